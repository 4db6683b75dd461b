"""Files as clerks have them, loaded by the real commands: what comes through, what is refused, and what is said."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from tallypoint.v1 import common_pb2, member_pb2, store_pb2

from server.commands import client
from tests.integration.test_back_office import Client, card, registration, run
from tests.support.server_process import RunningServer, run_command

CHANGED = "looks like a number that a spreadsheet has changed: format the column as text and enter it anew"


@pytest.fixture(scope="module")
def admin(tallypoint: RunningServer) -> Iterator[Client]:
    with grpc.insecure_channel(tallypoint.backoffice_address) as channel:
        yield Client(channel, tallypoint.keys["admin"])


@pytest.fixture
def load(tallypoint: RunningServer, tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Run a command over a file of this content; return the exit code and what it said, without the folder."""

    def loaded(command: str, content: str | bytes, *options: str) -> tuple[int, list[str]]:
        file = tmp_path / "f.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        verb = "import" if command == "members" else "load"
        done = run(tallypoint, command, verb, str(file), "--errors", str(tmp_path / "refused.csv"), *options)
        assert done.returncode in {0, 1}, done.stderr
        return done.returncode, done.stdout.replace(f"{tmp_path}/", "").splitlines()

    return loaded


Load = Callable[..., tuple[int, list[str]]]


def phone() -> str:
    """Return a phone number that nobody has."""
    return f"+38067{uuid4().int % 10**7:07d}"


def member(admin: Client, **identifier: str) -> member_pb2.Member | None:
    """Return a member, or None if there is none."""
    try:
        request = member_pb2.GetMemberRequest(identifier=common_pb2.Identifier(**identifier))
        found: member_pb2.Member = admin.call(admin.members.GetMember, request).member
        return found
    except grpc.RpcError:
        return None


# --- layout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "delimiter", "said"),
    [
        ("utf-8", ",", []),
        ("utf-8-sig", ";", ["f.csv: read as UTF-8, delimiter ';'"]),
        ("cp1251", ";", ["f.csv: read as cp1251, delimiter ';'"]),
        ("utf-16", "\t", ["f.csv: read as UTF-16, delimiter tab"]),
        ("utf-16-be", "|", ["f.csv: read as UTF-16-BE, delimiter '|'"]),
    ],
)
def test_members_are_read_from_any_layout(
    admin: Client, load: Load, encoding: str, delimiter: str, said: list[str]
) -> None:
    number = phone()
    text = f'Phone ,"Name",BIRTHDAY\r\n{number},Ганна Їжак,1990-05-17\r\n'.replace(",", delimiter)
    outcome = load("members", text.encode(encoding))
    assert outcome == (0, [*said, "1 rows: 1 members are new, 0 were there already, 0 were refused"])
    made = member(admin, phone=number)
    assert made is not None
    assert (made.profile.name, made.profile.birthday) == ("Ганна Їжак", "1990-05-17")


def test_every_command_finds_delimiter_and_encoding(admin: Client, load: Load) -> None:
    number, sku, code = card(), uuid4().hex, uuid4().hex
    admin.call(admin.members.RegisterMember, registration(card_numbers=[number]))
    said = "f.csv: read as UTF-16, delimiter ';'"
    for command, text, options in (
        ("products", f"SKU;Name\n{sku};Молоко\n", ()),
        ("coupons", f"Code;Card number;Uses\n{code};{number};2\n", ("--series", "s")),
        ("segments", f"Card_Numbers\n{number}\n", ("--segment", "vip", "--delimiter", ";")),
        ("offers", f"promotion id;CARD_NUMBER;\ncakes;{number};\n", ()),
    ):
        outcome, lines = load(command, text.encode("utf-16"), *options)
        assert (outcome, lines[0] if command != "segments" else said) == (0, said), command
        assert "0 were refused" in lines[-1] or "0 rows were refused" in lines[-1], command
    shown = admin.call(admin.stores.GetProduct, store_pb2.GetProductRequest(sku=sku)).product
    assert shown.name == "Молоко"


def test_delimiter_and_encoding_may_be_forced(admin: Client, load: Load) -> None:
    number = phone()
    text = f"phone:name\n{number}:Ґанна\n".encode("koi8-u")
    code, lines = load("members", text, "--delimiter", ":", "--encoding", "koi8-u")
    assert (code, len(lines)) == (0, 1)
    made = member(admin, phone=number)
    assert made is not None
    assert made.profile.name == "Ґанна"


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        pytest.param(b"PK\x03\x04", (), "is a workbook", id="workbook"),
        pytest.param(b"phone;name\n", ("--delimiter", ","), "Is the delimiter really ','?", id="delimiter"),
        pytest.param(b"phone\n", ("--delimiter", "::"), "must be one character", id="no delimiter"),
        pytest.param(b"phone\n", ("--encoding", "ansi"), "there is no encoding 'ansi': try utf-8", id="encoding"),
        pytest.param("name\nŁukasz\n".encode("cp1250"), (), "--encoding", id="encoding that cannot be told"),
    ],
)
def test_file_that_cannot_be_read_says_what_to_do(
    tallypoint: RunningServer, tmp_path: Path, content: bytes, options: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "members.csv"
    file.write_bytes(content)
    done = run(tallypoint, "members", "import", str(file), *options)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


# --- bad rows -------------------------------------------------------------------------------------------------------


def test_bad_rows_stop_nothing_in_any_part_of_a_long_file(
    admin: Client, load: Load, tallypoint: RunningServer, tmp_path: Path
) -> None:
    """1,200 rows are three calls; each part has rows of every kind of damage."""
    first = uuid4().int % (10**7 - 1200)
    phones = [f"+38068{number:07d}" for number in range(first, first + 1200)]
    rows = [f"{number},Member {index},1990-05-17" for index, number in enumerate(phones)]
    rows[3] = f'{phones[3]},"Open,1990-05-17'
    rows[499] = f"{phones[499]},Padded\x00\x00,1990-05-17"
    rows[700] = f'{phones[700]},"TOV "Kvitka"",1990-05-17'
    rows[701] = f"{phones[701]},Koval, Anna,1990-05-17"
    rows[1100] = f"{float(phones[1100]):.5E},Changed,1990-05-17"
    rows[1199] = f"{phones[1199]},#N/A,1990-05-17"
    code, lines = load("members", "phone,name,birthday\n" + "\n".join(rows) + "\nРазом,1200,\n")
    assert code == 1
    assert [line.split(": ", 3)[::2] for line in lines[1:6]] == [
        ["f.csv:5", "name"],
        ["f.csv:702", "name"],
        ["f.csv:703", "has 1 values more than the first line has columns"],
        ["f.csv:1102", "phone"],
        ["f.csv:1201", "name"],
    ]
    assert (lines[0], lines[6:]) == (
        "f.csv:1202: sums the rows up: passed over",
        ["1,200 rows: 1,195 members are new, 0 were there already, 5 were refused"],
    )
    made = member(admin, phone=phones[499])
    assert made is not None
    assert made.profile.name == "Padded"
    mended = (tmp_path / "refused.csv").read_text().replace('"""Open"', "Open").replace("#N/A", "Named")
    (tmp_path / "mended.csv").write_text(mended)
    done = run(tallypoint, "members", "import", str(tmp_path / "mended.csv"))
    assert done.stdout.splitlines()[-1].startswith("5 rows: 3 members are new, 0 were there already, 2 were refused")


@pytest.mark.parametrize(
    ("command", "text", "options"),
    [
        ("members", "phone,name\n3.80501E+11,x\n", ()),
        ("members", "card_numbers\n2.2E+12\n", ()),
        ("members", "card_numbers\n2200000000019.0\n", ()),
        ("products", "sku,name\n4.82E+12,x\n", ()),
        ("products", "sku\n4820000000031.0\n", ()),
        ("products", "sku;name\n4,82E+12;x\n", ()),
        ("coupons", "code\n1.23457E+11\n", ("--series", "s")),
        ("coupons", "code,card_number\nX,2.2E+12\n", ("--series", "s")),
        ("segments", "card_number\n2.2E+12\n", ("--segment", "s")),
        ("offers", "promotion,phone\ncakes,3.80501E+11\n", ()),
        ("offers", "promotion,phone\n1E+05,+380501234567\n", ()),
    ],
)
def test_changed_numbers_are_refused_wherever_codes_are_read(
    load: Load, command: str, text: str, options: tuple[str, ...]
) -> None:
    code, lines = load(command, text, *options)
    assert (code, CHANGED in lines[-2]) == (1, True), lines


def test_values_that_only_look_changed_may_be_taken_as_they_stand(admin: Client, load: Load) -> None:
    sku = f"{uuid4().int % 10**9}.0"
    code, _ = load("products", f"sku,name\n{sku},Part\n", "--verbatim")
    assert code == 0
    assert admin.call(admin.stores.GetProduct, store_pb2.GetProductRequest(sku=sku)).product.name == "Part"


def test_cards_are_read_however_they_are_grouped(admin: Client, load: Load) -> None:
    one, two, three = card(), card(), card()
    grouped = f"{one[:1]} {one[1:7]}\xa0{one[7:]}"
    code, lines = load("members", f'card_numbers\n="{two}"\n{grouped}\n{three} \n')
    assert code == 0, lines
    assert None not in [member(admin, card_number=number) for number in (one, two, three)]


class FailingMembers:
    """A service with a mistake that rows named Poison meet, and that goes away when it has seen somebody named Last."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.is_gone = False

    def import_members(
        self, request: member_pb2.ImportMembersRequest, context: grpc.ServicerContext
    ) -> member_pb2.ImportMembersResponse:
        names = [one.profile.name for one in request.members]
        self.is_gone |= "Last" in names
        if self.is_gone:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if "Poison" in names:
            context.abort(grpc.StatusCode.INTERNAL, "a mistake of the service")
        self.stored += names
        results = [member_pb2.ImportMemberResult(member_id=str(uuid4())) for _ in names]
        return member_pb2.ImportMembersResponse(results=results)


def test_calls_that_fail_cost_no_sound_row_and_what_was_not_done_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second part of 500 rows has a row that the service fails of; it goes away with the third part."""
    monkeypatch.setattr(client, "SERVICE_CONFIG", client.SERVICE_CONFIG.replace('"0.5s"', '"0.01s"'))
    names = [f"N{number}" for number in range(1600)]
    names[700], names[1200] = "Poison", "Last"
    file, refused = tmp_path / "members.csv", tmp_path / "refused.csv"
    file.write_text("phone,name\n" + "".join(f"{index},{name}\n" for index, name in enumerate(names, start=1000)))
    servicer, service = FailingMembers(), grpc.server(ThreadPoolExecutor(2))
    call = grpc.unary_unary_rpc_method_handler(
        servicer.import_members,
        member_pb2.ImportMembersRequest.FromString,
        member_pb2.ImportMembersResponse.SerializeToString,
    )
    name = "tallypoint.v1.MemberService"
    service.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"ImportMembers": call})])
    address = f"127.0.0.1:{service.add_insecure_port('127.0.0.1:0')}"
    service.start()
    command = ("members", "import", str(file), "--errors", str(refused), "--address", address, "--key", "tp_any")
    done = run_command(*command, environment={})
    service.stop(None)
    assert servicer.stored == names[:700] + names[701:1000]
    assert (done.returncode, done.stdout.splitlines()) == (
        2,
        [
            f"{file}:702: INTERNAL: a mistake of the service",
            f"{file}: lines 1,002 to 1,601 were not loaded",
            "1,600 rows: 999 members are new, 0 were there already, 1 were refused, 600 were not loaded",
        ],
    ), done.stderr
    assert "UNAVAILABLE: gone\nLoad the file once more later" in done.stderr
    with refused.open() as written:
        assert [row["name"] for row in csv.DictReader(written)] == ["Poison", *names[1000:]]


# --- there already --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        pytest.param("Mother Test,1960-05-17", "Daughter Test,1960-05-17", ["name"], id="another name"),
        pytest.param("Anna,1960-05-17", "Anna,1991-01-01", ["birthday"], id="another birthday"),
        pytest.param("Mother,1960-05-17", "Daughter,1991-01-01", ["name", "birthday"], id="both"),
        pytest.param(",", "Anna,", ["name"], id="a name where there was none"),
        pytest.param("Anna,1960-05-17", "Anna,1960-05-17", [], id="the same"),
        pytest.param("Anna,1960-05-17", " Anna ,", [], id="less, and blanks"),
    ],
)
@pytest.mark.parametrize("in_one_file", [True, False])
@pytest.mark.parametrize("column", ["phone", "card_numbers", "digital_token"])
def test_member_who_is_there_with_other_data_is_refused(
    admin: Client, load: Load, first: str, second: str, words: list[str], in_one_file: bool, column: str
) -> None:
    number = {"phone": phone(), "card_numbers": card(), "digital_token": uuid4().hex}[column]
    head, rows = f"{column},name,birthday\n", [f"{number},{first}\n", f"{number},{second}\n"]
    if not in_one_file:
        assert load("members", head + rows.pop(0))[0] == 0
    code, lines = load("members", head + "".join(rows))
    there = f"{int(not words)} were there already, {int(bool(words))} were refused"
    other = " (other data is there for 1 of them)" if words else ""
    assert (code, lines[-1]) == (
        int(bool(words)),
        f"{len(rows)} rows: {len(rows) - 1} members are new, {there}{other}",
    )
    told = [f"{word}: is there already with another {word}: correct the row, or change the member" for word in words]
    assert lines[:-1] == ([f"f.csv:{len(rows) + 1}: ALREADY_EXISTS: {'; '.join(told)}"] if words else [])
    kept = member(admin, **{column.removesuffix("s"): number})
    assert kept is not None
    assert kept.profile.name == first.split(",", maxsplit=1)[0]


def test_articles_are_counted_as_new_changed_and_there_already(load: Load) -> None:
    one, two, three = (uuid4().hex for _ in range(3))
    counts = "articles are new, {} were changed, {} were there already, {} were refused"
    code, lines = load("products", f"sku,name\n{one},Milk\n{two},Bread\n{one},Butter\n")
    assert (code, lines) == (
        1,
        ["f.csv:4: INVALID_REQUEST: sku: stands in line 2 already", f"3 rows: 2 {counts.format(0, 0, 1)}"],
    )
    code, lines = load("products", f"sku,name\n{one},Milk\n{two},Rye\n{three},Tea\n")
    assert (code, lines) == (0, [f"3 rows: 1 {counts.format(1, 1, 0)}"])


def test_offer_that_stands_twice_with_other_days_is_refused(admin: Client, load: Load) -> None:
    number = card()
    admin.call(admin.members.RegisterMember, registration(card_numbers=[number]))
    row = f"cakes,{number},2030-01-01"
    code, lines = load("offers", f"promotion,card_number,valid_until\n{row}\n{row}\ncakes,{number},2030-02-02\n")
    twice = "stands in line 2 already, with other days: leave one of them out"
    assert (code, lines[:-1]) == (1, [f"f.csv:4: INVALID_REQUEST: promotion: {twice}"])


def test_segment_is_not_emptied_by_a_file_without_rows_unless_somebody_says_so(
    admin: Client, tallypoint: RunningServer, tmp_path: Path
) -> None:
    number, segment = card(), uuid4().hex[:8]
    admin.call(admin.members.RegisterMember, registration(card_numbers=[number]))
    file = tmp_path / "vip.csv"
    file.write_text(f"card_number\n{number}\n")
    command = ("segments", "load", str(file), "--segment", segment)
    assert run(tallypoint, *command).returncode == 0
    file.write_text("card_number\n")
    stopped = run(tallypoint, *command, "--replace")
    assert (stopped.returncode, "give --yes" in stopped.stderr) == (2, True)
    done = run(tallypoint, *command, "--replace", "--yes")
    assert (done.returncode, "1 others were taken out" in done.stdout) == (0, True), done.stderr
