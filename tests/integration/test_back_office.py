"""The back office as its callers see it: a running server, gRPC, and our own commands."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tallypoint.v1 import (
    common_pb2,
    ledger_pb2,
    ledger_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
)

from server.commands import client
from tests.support.certificates import make_certificate
from tests.support.server_process import RunningServer, run_command

TIMEOUT_SECONDS = 20


class Client:
    """Calls the back office with one key."""

    def __init__(self, channel: grpc.Channel, key: str) -> None:
        self.channel = channel
        self._metadata = (("authorization", f"Bearer {key}"),)
        self.members = member_pb2_grpc.MemberServiceStub(channel)
        self.stores = store_pb2_grpc.StoreServiceStub(channel)
        self.programmes = programme_pb2_grpc.ProgrammeServiceStub(channel)
        self.ledger = ledger_pb2_grpc.LedgerServiceStub(channel)

    def call(self, method: Callable[..., Any], request: object) -> Any:
        """Call and return the answer."""
        return method(request, timeout=TIMEOUT_SECONDS, metadata=self._metadata)

    def refusal(self, method: Callable[..., Any], request: object) -> tuple[str, str, list[str]]:
        """Call and return the status code, the reason and the fields at fault."""
        with pytest.raises(grpc.RpcError) as error:
            self.call(method, request)
        status = rpc_status.from_call(error.value)
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details:
            if not detail.Unpack(info):
                detail.Unpack(bad_request)
        return error.value.code().name, info.reason, [violation.field for violation in bad_request.field_violations]


@pytest.fixture(scope="module")
def channel(tallypoint: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(tallypoint.backoffice_address) as channel:
        yield channel


@pytest.fixture
def admin(channel: grpc.Channel, tallypoint: RunningServer) -> Client:
    return Client(channel, tallypoint.keys["admin"])


def card() -> str:
    """Return the number of a new EAN-13 card of the default scheme."""
    digits = f"2{uuid4().int % 10**11:011d}"
    weighted = sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(digits))
    return f"{digits}{-weighted % 10}"


def registration(**fields: Any) -> member_pb2.RegisterMemberRequest:
    """Return the request that registers somebody."""
    return member_pb2.RegisterMemberRequest(message_id=str(uuid4()), member=member_pb2.NewMember(**fields))


def test_member_lives_through_all_calls(admin: Client) -> None:
    old, new = card(), card()
    request = registration(card_numbers=[old], profile=member_pb2.Profile(name="Olena Koval", birthday="1990-02-28"))
    made = admin.call(admin.members.RegisterMember, request).member
    assert admin.call(admin.members.RegisterMember, request).member == made
    assert (made.version, made.status, made.cards[0].card_number) == (1, common_pb2.MEMBER_STATUS_ACTIVE, old)

    status = member_pb2.SetMemberStatusRequest(
        message_id=str(uuid4()), member_id=made.member_id, status=common_pb2.MEMBER_STATUS_BLOCKED, reason="fraud"
    )
    assert admin.call(admin.members.SetMemberStatus, status).member.version == 2
    replacement = member_pb2.ReplaceCardRequest(
        message_id=str(uuid4()), member_id=made.member_id, old_card_number=old, new_card_number=new
    )
    assert admin.call(admin.members.ReplaceCard, replacement).member.version == 3

    by_old_card = member_pb2.GetMemberRequest(identifier=common_pb2.Identifier(card_number=old))
    shown = admin.call(admin.members.GetMember, by_old_card).member
    assert [(one.card_number, one.status) for one in shown.cards] == [
        (new, member_pb2.CARD_STATUS_ACTIVE),
        (old, member_pb2.CARD_STATUS_REPLACED),
    ]
    assert (shown.version, shown.profile.name) == (3, "Olena Koval")

    account = ledger_pb2.GetAccountRequest(member_id=made.member_id, newest_entries=10)
    entries = admin.call(admin.ledger.GetAccount, account).entries
    assert [entry.event.member_change.version for entry in entries] == [3, 2, 1]
    page = ledger_pb2.ListEntriesRequest(book=made.book, after_number=entries[0].ref.number - 1, page_size=1)
    assert list(admin.call(admin.ledger.ListEntries, page).entries) == [entries[0]]
    heads = {head.book: head.number for head in admin.call(admin.ledger.ListBooks, ledger_pb2.ListBooksRequest()).books}
    assert heads[made.book] >= entries[0].ref.number


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        pytest.param(
            {"phone": "12345"}, ("INVALID_ARGUMENT", "PHONE_INVALID", ["member.phone"]), id="phone that cannot exist"
        ),
        pytest.param(
            {"card_numbers": ["4000000000000002"]},
            ("INVALID_ARGUMENT", "CARD_FOREIGN", ["member.card_numbers[0]"]),
            id="foreign card",
        ),
        pytest.param(
            {"profile": member_pb2.Profile(birthday="01.02.1990")},
            ("INVALID_ARGUMENT", "INVALID_REQUEST", ["member.profile.birthday"]),
            id="birthday in another form",
        ),
        pytest.param(
            {"member_id": "me"}, ("INVALID_ARGUMENT", "INVALID_REQUEST", ["member.member_id"]), id="id is no UUID"
        ),
    ],
)
def test_bad_registration_names_its_field(
    admin: Client, fields: dict[str, Any], answer: tuple[str, str, list[str]]
) -> None:
    assert admin.refusal(admin.members.RegisterMember, registration(**fields)) == answer


def test_bad_row_of_an_import_does_not_touch_the_others(admin: Client) -> None:
    rows = [
        member_pb2.NewMember(card_numbers=[card()]),
        member_pb2.NewMember(card_numbers=[card()], profile=member_pb2.Profile(name="x" * 201)),
        member_pb2.NewMember(card_numbers=["1"]),
        member_pb2.NewMember(card_numbers=[card()]),
    ]
    results = admin.call(admin.members.ImportMembers, member_pb2.ImportMembersRequest(members=rows)).results
    assert [result.WhichOneof("outcome") for result in results] == ["member_id", "refusal", "refusal", "member_id"]
    assert results[1].refusal.violations[0].field == "profile.name"


@pytest.mark.parametrize(
    ("role", "reachable"),
    [
        pytest.param("admin", ["members", "stores", "programmes", "publish", "ledger"], id="admin"),
        pytest.param("crm", ["members", "programmes"], id="crm"),
        pytest.param("finance", ["programmes", "ledger"], id="finance"),
        pytest.param("terminal", [], id="terminal"),
    ],
)
def test_role_reaches_its_own_calls_only(
    channel: grpc.Channel, tallypoint: RunningServer, role: str, reachable: list[str]
) -> None:
    client = Client(channel, tallypoint.keys[role])
    calls: dict[str, tuple[Callable[..., Any], Any]] = {
        "members": (client.members.GetMember, member_pb2.GetMemberRequest()),
        "stores": (client.stores.ListStores, store_pb2.ListStoresRequest()),
        "programmes": (client.programmes.ListProgrammeVersions, programme_pb2.ListProgrammeVersionsRequest()),
        "publish": (client.programmes.PublishProgramme, programme_pb2.PublishProgrammeRequest()),
        "ledger": (client.ledger.ListBooks, ledger_pb2.ListBooksRequest()),
    }
    reached = []
    for name, (method, request) in calls.items():
        try:
            client.call(method, request)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                continue
        reached.append(name)
    assert reached == reachable


def test_unknown_key_is_unauthenticated(channel: grpc.Channel) -> None:
    stranger = Client(channel, "tp_nobody")
    code, reason, _ = stranger.refusal(stranger.members.GetMember, member_pb2.GetMemberRequest())
    assert (code, reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def test_store_its_terminal_and_its_goods(admin: Client) -> None:
    store = store_pb2.Store(store_id=f"s-{uuid4().hex[:8]}", name="Podil", time_zone="Europe/Kyiv")
    assert admin.call(admin.stores.PutStore, store_pb2.PutStoreRequest(store=store)).store == store
    assert store in admin.call(admin.stores.ListStores, store_pb2.ListStoresRequest()).stores
    issue = store_pb2.IssueTerminalKeyRequest(store_id=store.store_id, terminal_id="1")
    assert admin.call(admin.stores.IssueTerminalKey, issue).key.startswith("tp_")
    revoke = store_pb2.RevokeTerminalKeyRequest(store_id=store.store_id, terminal_id="1")
    admin.call(admin.stores.RevokeTerminalKey, revoke)
    elsewhere = store_pb2.IssueTerminalKeyRequest(store_id="nowhere", terminal_id="1")
    assert admin.refusal(admin.stores.IssueTerminalKey, elsewhere) == ("NOT_FOUND", "NOT_FOUND", ["store_id"])
    product = store_pb2.Product(sku=uuid4().hex, category="dairy", tags=["fresh"])
    request = store_pb2.PutProductsRequest(products=[product])
    assert [admin.call(admin.stores.PutProducts, request).changed for _ in range(2)] == [1, 0]
    assert admin.call(admin.stores.GetProduct, store_pb2.GetProductRequest(sku=product.sku)).product == product


@pytest.mark.parametrize(
    ("call", "request_", "answer"),
    [
        pytest.param(
            "ListEntries", ledger_pb2.ListEntriesRequest(book=9999), ("NOT_FOUND", ["book"]), id="no such book"
        ),
        pytest.param(
            "ListTotals",
            ledger_pb2.ListTotalsRequest(from_day="2026-02-30"),
            ("INVALID_REQUEST", ["from_day"]),
            id="no such day",
        ),
        pytest.param(
            "FindReceipt",
            ledger_pb2.FindReceiptRequest(
                receipt_key=common_pb2.ReceiptKey(
                    store_id="s", terminal_id="1", business_date="2026-11-21", receipt_number=1
                )
            ),
            ("NOT_FOUND", []),
            id="no such receipt",
        ),
    ],
)
def test_ledger_says_what_is_not_there(
    admin: Client, call: str, request_: object, answer: tuple[str, list[str]]
) -> None:
    _, reason, fields = admin.refusal(getattr(admin.ledger, call), request_)
    assert (reason, fields) == answer


# --- commands ---------------------------------------------------------------------------------------------


def run(server: RunningServer, *arguments: str, own_process: bool = False) -> CompletedProcess[str]:
    """Run `tallypoint` with an administrator's key."""
    environment = {
        "TALLYPOINT_BACKOFFICE_LISTEN": server.backoffice_address,
        "TALLYPOINT_ADMIN_KEY": server.keys["admin"],
    }
    return run_command(*arguments, environment=environment, own_process=own_process)


NO_BIRTHDAY = "is not a day of the calendar written as YYYY-MM-DD, such as 2026-05-17 (or leave it empty)"


def test_import_command_reports_each_bad_row_and_may_be_run_again(tallypoint: RunningServer, tmp_path: Path) -> None:
    cards = [card() for _ in range(1200)]
    rows = [f"{number},Member {index}," for index, number in enumerate(cards)]
    rows[3] = f"{card()},Member 3,1990-02-30"
    rows[700] = "4000000000000002,Member 700,"
    rows[701] = f"{cards[0]};{card()},Member 701,"
    file, refused = tmp_path / "members.csv", tmp_path / "refused.csv"
    file.write_text("card_numbers,name,birthday\n" + "\n".join(rows) + "\n")
    command = ("members", "import", str(file), "--errors", str(refused))
    first, again = (run(tallypoint, *command, own_process=own_process) for own_process in (True, False))
    for done, counts in ((first, "1,197 members are new, 0"), (again, "0 members are new, 1,197")):
        assert done.returncode == 1, done.stderr
        assert done.stdout.splitlines() == [
            f"{file}:5: INVALID_REQUEST: birthday: {NO_BIRTHDAY}",
            f"{file}:702: CARD_FOREIGN: card_numbers[0]: is not a number of one of our card schemes (ean13:2)",
            f"{file}:703: IDENTIFIER_TAKEN: card_numbers[0]: already belongs to a member",
            f"1,200 rows: {counts} were there already, 3 were refused",
        ]
        assert "1,200 of 1,200 rows" in done.stderr
    with refused.open() as written:
        kept = list(csv.DictReader(written))
    assert [(row["error_line"], row["error_reason"]) for row in kept] == [
        ("5", "INVALID_REQUEST"),
        ("702", "CARD_FOREIGN"),
        ("703", "IDENTIFIER_TAKEN"),
    ]
    mended = refused.read_text().replace("1990-02-30", "1990-02-28").replace("4000000000000002", card())
    refused.write_text(mended.replace(f"{cards[0]};", ""))
    done = run(tallypoint, "members", "import", str(refused))
    assert (done.returncode, done.stdout) == (
        0,
        "3 rows: 3 members are new, 0 were there already, 0 were refused\n",
    ), done.stderr


def test_import_command_tells_line_column_and_cure(tallypoint: RunningServer, tmp_path: Path) -> None:
    """All that is wrong with the form of a row at once, and nothing of what the member said."""
    file = tmp_path / "members.csv"
    file.write_text(
        "phone,birthday,member_id,status\n"
        "+380501234567,1990-5-1,,\n"
        "0501234568,17.05.1990,K-7,\n"
        "0441,,,\n"
        "+380501234569,,,asleep\n"
    )
    done = run(tallypoint, "members", "import", str(file))
    day = f"birthday: {NO_BIRTHDAY}"
    uuid = "member_id: is not a UUID, such as 0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f (or leave it empty)"
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        f"{file}:2: INVALID_REQUEST: {day}",
        f"{file}:3: INVALID_REQUEST: {uuid}; {day}",
        f"{file}:4: PHONE_INVALID: phone: does not exist: write it as +380501234567, or as dialled in UA",
        f"{file}:5: INVALID_REQUEST: status: must be active, earn_only or blocked, or empty",
        "4 rows: 0 members are new, 0 were there already, 4 were refused",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("mobile\n1\n", "unknown column 'mobile'", id="column"),
        pytest.param("", "is empty", id="empty"),
    ],
)
def test_import_command_refuses_a_file_that_is_none(
    tallypoint: RunningServer, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "members.csv"
    file.write_text(text)
    done = run(tallypoint, "members", "import", str(file))
    assert done.returncode == 2
    assert message in done.stderr


def test_commands_with_a_wrong_key_say_so(tallypoint: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "members.csv"
    file.write_text(f"card_numbers\n{card()}\n")
    done = run(tallypoint, "members", "import", str(file), "--key", "tp_wrong")
    assert done.returncode == 2
    assert "UNAUTHENTICATED" in done.stderr


def test_a_key_that_is_no_text_of_one_line_is_refused_before_it_is_sent(tallypoint: RunningServer) -> None:
    done = run(tallypoint, "stores", "list", "--key", "tp_right\ntp_wrong")
    assert (done.returncode, "the key is none of ours" in done.stderr) == (2, True)


def test_commands_need_an_authority_where_the_back_office_has_a_certificate(
    tallypoint: RunningServer, tmp_path: Path
) -> None:
    """Without one they say so at once; the variables stand for the options."""
    authority = make_certificate(tmp_path, "authority")
    own = make_certificate(tmp_path, "server", authority)
    keys = {"TALLYPOINT_TLS_CERT": str(own.cert_path), "TALLYPOINT_TLS_KEY": str(own.key_path)}
    environment = {**keys, "TALLYPOINT_ADMIN_KEY": tallypoint.keys["admin"]}
    done = run_command("stores", "list", environment=environment)
    assert (done.returncode, "set TALLYPOINT_ADMIN_TLS_CA" in done.stderr) == (2, True)
    environment |= {"TALLYPOINT_ADMIN_ADDRESS": tallypoint.backoffice_address}
    done = run_command("stores", "list", environment=environment)
    assert done.returncode == 0, done.stderr


def test_command_without_a_server_says_so(
    tallypoint: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SERVICE_CONFIG", client.SERVICE_CONFIG.replace('"0.5s"', '"0.05s"'))
    file = tmp_path / "members.csv"
    file.write_text(f"card_numbers\n{card()}\n")
    done = run(tallypoint, "members", "import", str(file), "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "UNAVAILABLE" in done.stderr


PROGRAMME = """\
programme: corner-shop
name: Test programme
effective_from: 2040-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 1}
earning: {base_percent: 1}
spending: {max_share_percent: 50}
"""


def test_a_terminal_that_has_a_key_gets_another_one_only_when_that_is_meant(tallypoint: RunningServer) -> None:
    assert run(tallypoint, "stores", "put", "asked-1", "--time-zone=Europe/Kyiv").returncode == 0
    first = run(tallypoint, "stores", "issue-key", "asked-1", "1")
    assert first.stdout.startswith("tp_"), first.stderr
    again = run(tallypoint, "stores", "issue-key", "asked-1", "1")
    words = "terminal 1 of store asked-1 has a key, which would stop working. Give it a new one?"
    assert (again.returncode, words in " ".join(again.stderr.split())) == (2, True), again.stderr
    meant = run(tallypoint, "stores", "issue-key", "asked-1", "1", "--yes")
    assert (meant.stdout.startswith("tp_"), meant.stdout != first.stdout) == (True, True), meant.stderr
    assert run(tallypoint, "stores", "revoke-key", "asked-1", "1", "--yes").returncode == 0
    assert run(tallypoint, "stores", "issue-key", "asked-1", "1").stdout.startswith("tp_"), "it has none now"


def test_programme_commands(tallypoint: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "programme.yaml"
    file.write_text(PROGRAMME.replace("base_percent: 1", "base_percent: many"))
    for command in ("check", "publish"):
        done = run(tallypoint, "programme", command, str(file))
        assert done.returncode == 1
        assert f"{file}:6:11: earning.base_percent:" in done.stderr
    file.write_text(PROGRAMME)
    done = run(tallypoint, "programme", "check", str(file))
    assert (done.returncode, "valid" in done.stdout) == (0, True), done.stderr
    first, second = (run(tallypoint, "programme", "publish", str(file), "--yes") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "is now version" in first.stdout
    assert "was published before, as version" in second.stdout
    assert "effective from 2040-01-01T00:00:00Z" in second.stdout
