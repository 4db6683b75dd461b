"""Rights as marketing and the hotline see them: a running server, gRPC, and our own commands with their files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from tallypoint.v1 import common_pb2, rights_pb2, rights_pb2_grpc, store_pb2

from server.rights.codes import is_own_code
from tests.integration.test_back_office import Client, card, registration, run
from tests.support.server_process import RunningServer


@pytest.fixture(scope="module")
def channel(tallypoint: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(tallypoint.backoffice_address) as channel:
        yield channel


@pytest.fixture
def crm(channel: grpc.Channel, tallypoint: RunningServer) -> Client:
    return Client(channel, tallypoint.keys["crm"])


@pytest.fixture
def stub(channel: grpc.Channel) -> rights_pb2_grpc.RightsServiceStub:
    return rights_pb2_grpc.RightsServiceStub(channel)


@pytest.fixture
def shopper(crm: Client) -> common_pb2.Identifier:
    """Somebody with a card."""
    number = card()
    crm.call(crm.members.RegisterMember, registration(card_numbers=[number]))
    return common_pb2.Identifier(card_number=number)


def unique(name: str) -> str:
    """Return a name that no other test has: the server is shared."""
    return f"{name}-{uuid4().hex[:8]}".upper()


def test_member_gets_rights_and_they_are_listed(
    crm: Client, stub: rights_pb2_grpc.RightsServiceStub, shopper: common_pb2.Identifier
) -> None:
    code, series, segment = unique("hello"), unique("welcome"), unique("vegans")
    row = rights_pb2.CouponRow(code=code.lower(), member=shopper, valid_until="2030-01-31")
    load = rights_pb2.LoadCouponsRequest(series=series, coupons=[row, rights_pb2.CouponRow(code="")])
    loaded = crm.call(stub.LoadCoupons, load)
    assert (loaded.added, [(one.index, one.refusal.violations[0].field) for one in loaded.refused]) == (
        1,
        [(1, "code")],
    )
    put = rights_pb2.PutSegmentRequest(segment=segment, action=rights_pb2.SEGMENT_ACTION_ADD, members=[shopper])
    assert crm.call(stub.PutSegment, put).changed == 1
    offer = rights_pb2.OfferAssignment(promotion_id="cakes", member=shopper, valid_from="2029-12-01")
    assert crm.call(stub.PutOffers, rights_pb2.PutOffersRequest(offers=[offer])).changed == 1
    has = crm.call(stub.ListMemberRights, rights_pb2.ListMemberRightsRequest(identifier=shopper))
    assert has.segments == [segment]
    assert [(one.promotion_id, one.valid_from, one.valid_until) for one in has.offers] == [("cakes", "2029-12-01", "")]
    assert [(one.code, one.series, one.state, one.member_id) for one in has.coupons] == [
        (code, series, rights_pb2.COUPON_STATE_OPEN, has.member_id)
    ]
    block = rights_pb2.BlockCouponsRequest(series=series)
    assert [crm.call(stub.BlockCoupons, block).changed for _ in range(2)] == [1, 0]
    shown = crm.call(stub.GetCoupon, rights_pb2.GetCouponRequest(code=code))
    assert shown.coupon.state == rights_pb2.COUPON_STATE_BLOCKED
    counts = crm.call(stub.CountSegments, rights_pb2.CountSegmentsRequest()).segments
    assert {one.segment: one.members for one in counts}[segment] == 1


@pytest.mark.parametrize(
    ("call", "request_", "answer"),
    [
        pytest.param(
            "GetCoupon",
            rights_pb2.GetCouponRequest(code="unheard of"),
            ("NOT_FOUND", "COUPON_UNKNOWN", ["code"]),
            id="unknown code",
        ),
        pytest.param(
            "ListMemberRights",
            rights_pb2.ListMemberRightsRequest(identifier=common_pb2.Identifier(member_id=str(uuid4()))),
            ("NOT_FOUND", "NOT_FOUND", ["identifier"]),
            id="rights of nobody",
        ),
        pytest.param(
            "GenerateCoupons",
            rights_pb2.GenerateCouponsRequest(request_id=str(uuid4()), series="s", count=5001),
            ("INVALID_ARGUMENT", "INVALID_REQUEST", ["count"]),
            id="too many codes",
        ),
        pytest.param(
            "GenerateCoupons",
            rights_pb2.GenerateCouponsRequest(
                request_id=str(uuid4()), series="s", count=1, valid_from="2030-02-02", valid_until="2030-02-01"
            ),
            ("INVALID_ARGUMENT", "INVALID_REQUEST", ["valid_until"]),
            id="codes that end before they begin",
        ),
        pytest.param(
            "BlockCoupons",
            rights_pb2.BlockCouponsRequest(series="s", codes=["c"]),
            ("INVALID_ARGUMENT", "INVALID_REQUEST", [""]),
            id="codes and a series to block",
        ),
        pytest.param(
            "PutSegment",
            rights_pb2.PutSegmentRequest(
                segment="s",
                action=rights_pb2.SEGMENT_ACTION_REPLACE,
                members=[common_pb2.Identifier(phone="+380501234567")],
            ),
            ("INVALID_ARGUMENT", "INVALID_REQUEST", [""]),
            id="replacement without its id",
        ),
        pytest.param(
            "LoadCoupons",
            rights_pb2.LoadCouponsRequest(series="with a space", coupons=[rights_pb2.CouponRow(code="c")]),
            ("INVALID_ARGUMENT", "INVALID_REQUEST", ["series"]),
            id="series that no programme file could name",
        ),
    ],
)
def test_bad_call_names_its_field(
    crm: Client, stub: rights_pb2_grpc.RightsServiceStub, call: str, request_: Any, answer: tuple[str, str, list[str]]
) -> None:
    assert crm.refusal(getattr(stub, call), request_) == answer


@pytest.mark.parametrize(("role", "may"), [("admin", True), ("crm", True), ("finance", False), ("terminal", False)])
def test_rights_are_for_marketing(
    channel: grpc.Channel, tallypoint: RunningServer, stub: rights_pb2_grpc.RightsServiceStub, role: str, may: bool
) -> None:
    call: Callable[..., Any] = stub.GetCoupon
    code, _, _ = Client(channel, tallypoint.keys[role]).refusal(call, rights_pb2.GetCouponRequest(code="unheard of"))
    assert code == ("NOT_FOUND" if may else "PERMISSION_DENIED")


def test_store_has_groups_and_a_partner(channel: grpc.Channel, tallypoint: RunningServer) -> None:
    admin, store_id = Client(channel, tallypoint.keys["admin"]), unique("s")
    options = ("--time-zone", "Europe/Kyiv", "--group", "west", "--group", "hyper", "--partner", "pharmacy")
    done = run(tallypoint, "stores", "put", store_id, *options)
    assert done.returncode == 0, done.stderr
    stores = {one.store_id: one for one in admin.call(admin.stores.ListStores, store_pb2.ListStoresRequest()).stores}
    assert (list(stores[store_id].groups), stores[store_id].partner) == (["hyper", "west"], "pharmacy")


# --- commands -----------------------------------------------------------------------------------------------------

NO_FORM_OF_A_DAY = "is not a day of the calendar written as YYYY-MM-DD, such as 2026-05-17 (or leave it empty)"
NO_DAY = f"is 2030-02-30, which {NO_FORM_OF_A_DAY}"
NO_UUID = "is not a UUID, such as 0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"
NO_NUMBER = "is not a whole number of at most 9 digits, such as 5 (or leave it empty)"
NO_CODE = "is not a code of Latin letters, digits, points, underscores and hyphens alone, such as kyiv-12"
NO_MEMBER = "names no member: fill one of member_id, card_number, phone, digital_token"


def test_coupons_are_loaded_from_a_file_which_may_be_loaded_again(
    crm: Client, shopper: common_pb2.Identifier, tallypoint: RunningServer, tmp_path: Path
) -> None:
    codes = [unique("c") for _ in range(5100)]
    rows = [f"{code},,," for code in codes]
    rows[1] = f"{codes[1]},{shopper.card_number},5,2030-12-31"
    rows[2] = f"{codes[2]},{shopper.card_number},many,"
    rows[5050] = f"{codes[5050]},4000000000000002,,"
    file, refused = tmp_path / "coupons.csv", tmp_path / "refused.csv"
    file.write_text("code,card_number,uses,valid_until\n" + "\n".join(rows) + "\n")
    command = ("coupons", "load", str(file), "--series", unique("spring"), "--from", "2026-01-01")
    for counts in ("5,098 coupons are new, 0 were there", "0 coupons are new, 5,098 were there"):
        done = run(tallypoint, *command, "--errors", str(refused))
        assert done.returncode == 1, done.stderr
        assert done.stdout.splitlines() == [
            f"{file}:4: INVALID_REQUEST: uses: {NO_NUMBER}",
            f"{file}:5052: CARD_FOREIGN: card_number: is not a number of one of our card schemes (ean13:2)",
            f"5,100 rows: {counts} already, 2 were refused",
        ]
        assert "5,100 of 5,100 rows" in done.stderr
    with refused.open() as written:
        assert [(row["code"], row["error_line"]) for row in csv.DictReader(written)] == [
            (codes[2], "4"),
            (codes[5050], "5052"),
        ]
    refused.write_text(refused.read_text().replace("many", "2").replace("4000000000000002", ""))
    done = run(tallypoint, "coupons", "load", str(refused), "--series", command[4], "--from", "2026-01-01")
    assert (done.returncode, done.stdout) == (
        0,
        "2 rows: 2 coupons are new, 0 were there already, 0 were refused\n",
    ), done.stderr
    shown = run(tallypoint, "coupons", "show", codes[1].lower())
    assert "0 of 5" in shown.stdout, shown.stderr
    blocked = run(tallypoint, "coupons", "block", codes[1], "unheard of")
    assert (blocked.returncode, blocked.stdout) == (1, "1 changed, 1 refused\n"), blocked.stderr
    assert "blocked" in run(tallypoint, "coupons", "show", codes[1]).stdout


def test_hotline_gives_a_coupon_to_a_member(tallypoint: RunningServer, shopper: common_pb2.Identifier) -> None:
    series = unique("sorry")
    options = ("--series", series, "--member", shopper.card_number, "--until", "2030-01-31")
    done = run(tallypoint, "coupons", "generate", *options)
    assert done.returncode == 0, done.stderr
    [code] = done.stdout.split()
    assert is_own_code(code)
    shown = run(tallypoint, "offers", "show", shopper.card_number)
    assert code in shown.stdout, shown.stderr
    assert series in shown.stdout


def test_generated_codes_are_written_to_a_new_file(tallypoint: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    command = ("coupons", "generate", "--series", unique("print"), "--count", "6000", "--output", str(file))
    done = run(tallypoint, *command)
    assert done.returncode == 0, done.stderr
    head, *codes = file.read_text().split()
    assert head == "code"
    assert len(set(codes)) == 6000
    assert run(tallypoint, *command).returncode == 2
    loaded = run(tallypoint, "coupons", "load", str(file), "--series", command[3])
    assert "6,000 were there already" in loaded.stdout, loaded.stderr


def test_segment_is_replaced_by_a_file(
    crm: Client, shopper: common_pb2.Identifier, tallypoint: RunningServer, tmp_path: Path
) -> None:
    other, segment = card(), unique("vip")
    crm.call(crm.members.RegisterMember, registration(card_numbers=[other]))
    file = tmp_path / "vip.csv"
    file.write_text(f"card_number,phone\n{shopper.card_number},\n")
    done = run(tallypoint, "segments", "load", str(file), "--segment", segment)
    assert (done.returncode, done.stdout) == (0, "1 rows: 1 members were put in, 0 rows were refused\n"), done.stderr
    file.write_text(f"card_number,phone\n{other},\n,\n{other},+380501112233\n")
    command = ("segments", "load", str(file), "--segment", segment, "--replace")
    stopped = run(tallypoint, *command)
    assert stopped.returncode == 2
    assert stopped.stdout.splitlines() == [
        f"{file}:3: INVALID_REQUEST: names no member: fill one of member_id, card_number, phone, digital_token",
        f"{file}:4: INVALID_REQUEST: phone: is set beside card_number: name the member once",
    ]
    assert count_of(tallypoint, segment) == "2"
    done = run(tallypoint, *command, "--yes")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "3 rows: 0 members were put in, 2 rows were refused; 1 others were taken out"
    ), done.stderr
    assert count_of(tallypoint, segment) == "1"


def count_of(server: RunningServer, segment: str) -> str:
    """Return the members of a segment as the command shows them."""
    done = run(server, "segments", "show")
    [line] = [line for line in done.stdout.splitlines() if segment in line]
    return line.strip("│ ").split("│")[1].strip()


def test_offers_are_loaded_and_taken_away(
    shopper: common_pb2.Identifier, tallypoint: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "offers.csv"
    file.write_text(f"promotion,card_number\ncakes,{shopper.card_number}\n,{shopper.card_number}\n")
    done = run(tallypoint, "offers", "load", str(file), "--until", "2030-01-31")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{file}:3: INVALID_REQUEST: promotion: is empty, and there is no --promotion",
        "2 rows: 1 times a member's offers changed, 1 rows were refused",
    ], done.stderr
    assert "2030-01-31" in run(tallypoint, "offers", "show", shopper.card_number).stdout
    assert run(tallypoint, "offers", "load", str(file), "--remove").returncode == 1
    assert "cakes" not in run(tallypoint, "offers", "show", shopper.card_number).stdout


def test_catalogue_is_loaded_from_a_file(tallypoint: RunningServer, tmp_path: Path) -> None:
    skus = [uuid4().hex for _ in range(5001)]
    rows = [f'{sku},dairy/milk,Own,Farm,"fresh; eco",Milk' for sku in skus]
    rows[7] = f"{skus[0]},dairy,,,,"
    rows[8] = f"{skus[8]},dairy,{'x' * 65},,{'y' * 33},"
    rows[9] = ",dairy,,,,"
    brand = "brand: must have at most 64 characters, not 65"
    file = tmp_path / "products.csv"
    file.write_text("sku,category,brand,supplier,tags,name\n" + "\n".join(rows) + "\n")
    for counts in ("4,998 articles are new, 0 were changed, 0", "0 articles are new, 0 were changed, 4,998"):
        done = run(tallypoint, "products", "load", str(file))
        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            f"{file}:9: INVALID_REQUEST: sku: stands in line 2 already",
            f"{file}:10: INVALID_REQUEST: {brand}; tags[0]: must have 1 to 32 characters, not 33",
            f"{file}:11: INVALID_REQUEST: sku: is empty: must have 1 to 64 characters",
            f"5,001 rows: {counts} were there already, 3 were refused",
        ], done.stderr
    shown = run(tallypoint, "products", "show", skus[1])
    assert "Farm" in shown.stdout, shown.stderr


COUPONS = ("coupons", "code,member_id,phone,uses,valid_from,valid_until", ("--series", "winter-letter"))
SEGMENTS = ("segments", "member_id,phone,digital_token", ("--segment", "pensioners"))
OFFERS = ("offers", "promotion,member_id,phone,valid_from,valid_until", ())


@pytest.mark.parametrize(
    ("of", "row", "words"),
    [
        pytest.param(
            COUPONS,
            ",K-7,,5000,17.05.2030,30-1-1",
            "INVALID_REQUEST: code: is empty: must have 1 to 64 characters; "
            f"member_id: {NO_UUID}; uses: must be 0 to 1,000, not 5,000; "
            f"valid_from: {NO_FORM_OF_A_DAY}; valid_until: {NO_FORM_OF_A_DAY}",
            id="coupon whose every cell is wrong",
        ),
        pytest.param(
            COUPONS,
            "C-1,,,many,17.05.2030,",
            f"INVALID_REQUEST: uses: {NO_NUMBER}; valid_from: {NO_FORM_OF_A_DAY}",
            id="uses in words, and a day as people write it",
        ),
        pytest.param(COUPONS, "C-1,,,9999999999,,", f"INVALID_REQUEST: uses: {NO_NUMBER}", id="uses beyond all limits"),
        pytest.param(
            COUPONS,
            "C-1,,,,2030-02-30,2030-02-30",
            f"INVALID_REQUEST: valid_from: {NO_DAY}; valid_until: {NO_DAY}",
            id="days that the calendar does not have",
        ),
        pytest.param(
            COUPONS,
            "C-1,,,,2030-02-02,2030-02-01",
            "INVALID_REQUEST: valid_until: lies before valid_from, 2030-02-02",
            id="coupon that ends before it begins",
        ),
        pytest.param(
            COUPONS,
            "C-1,,0441,,,",
            "PHONE_INVALID: phone: does not exist: write it as +380501234567, or as dialled in UA",
            id="phone of a coupon's member",
        ),
        pytest.param(
            COUPONS,
            "C-1,0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f,,,,",
            "NOT_FOUND: member_id: is nobody's: correct it, or register the member first",
            id="coupon of nobody",
        ),
        pytest.param(
            COUPONS,
            "C-1,,,,,,2030-01-01,x",
            "INVALID_REQUEST: has 2 values more than the first line has columns",
            id="a comma too many",
        ),
        pytest.param(
            SEGMENTS,
            "K-7,050,short",
            f"INVALID_REQUEST: phone: is set beside member_id: name the member once; digital_token: is set beside "
            f"member_id: name the member once; member_id: {NO_UUID}",
            id="member named three times, once wrong",
        ),
        pytest.param(SEGMENTS, ",,", None, id="empty line of a segment"),
        pytest.param(
            SEGMENTS, ",050,", "INVALID_REQUEST: phone: must have 4 to 40 characters, not 3", id="phone cut short"
        ),
        pytest.param(
            SEGMENTS,
            ",0441,",
            "PHONE_INVALID: phone: does not exist: write it as +380501234567, or as dialled in UA",
            id="phone of nobody in a segment",
        ),
        pytest.param(
            OFFERS,
            "a cake,K-7,,,2030-1-31",
            f"INVALID_REQUEST: promotion: {NO_CODE}; member_id: {NO_UUID}; valid_until: {NO_FORM_OF_A_DAY}",
            id="offer whose every cell is wrong",
        ),
        pytest.param(
            OFFERS,
            ",,,2030-1-31,",
            "INVALID_REQUEST: promotion: is empty, and there is no --promotion; "
            f"{NO_MEMBER}; valid_from: {NO_FORM_OF_A_DAY}",
            id="offer of nothing to nobody",
        ),
    ],
)
def test_bad_row_is_told_by_line_and_column_with_all_that_is_wrong(
    tallypoint: RunningServer, tmp_path: Path, of: tuple[str, str, tuple[str, ...]], row: str, words: str | None
) -> None:
    command, columns, options = of
    file, refused = tmp_path / "rows.csv", tmp_path / "refused.csv"
    file.write_text(f"{columns}\n\n{row}\n")
    done = run(tallypoint, command, "load", str(file), *options, "--errors", str(refused))
    expected = words or f"INVALID_REQUEST: {NO_MEMBER}"
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0] == f"{file}:3: {expected}"
    assert len(done.stdout.splitlines()) == 2
    with refused.open() as written:
        [kept] = csv.DictReader(written)
    assert f"{kept['error_reason']}: {kept['error_message']}" == expected


@pytest.mark.parametrize(
    ("of", "row", "options", "words"),
    [
        pytest.param(COUPONS, "C-1,,,,,", ("--from", "2030-02-30"), f"--from: {NO_DAY}", id="day of no calendar"),
        pytest.param(COUPONS, "C-1,,,,,", ("--until", "soon"), f"--until: {NO_FORM_OF_A_DAY}", id="day in words"),
        pytest.param(
            OFFERS,
            "cakes,,+380501234567,,",
            ("--from", "2030-02-02", "--until", "2030-02-01"),
            "--until: lies before valid_from, 2030-02-02",
            id="end before the beginning",
        ),
        pytest.param(OFFERS, ",,+380501234567,,", ("--promotion", "a cake"), f"--promotion: {NO_CODE}", id="promotion"),
        pytest.param(
            COUPONS,
            "C-1,,,,17.05.2030,",
            ("--from", "2030-02-02"),
            f"valid_from: {NO_FORM_OF_A_DAY}",
            id="not the option where the row has its own",
        ),
    ],
)
def test_option_that_stands_for_an_empty_cell_is_told_by_its_name(
    tallypoint: RunningServer,
    tmp_path: Path,
    of: tuple[str, str, tuple[str, ...]],
    row: str,
    options: tuple[str, ...],
    words: str,
) -> None:
    command, columns, always = of
    file = tmp_path / "rows.csv"
    file.write_text(f"{columns}\n{row}\n")
    done = run(tallypoint, command, "load", str(file), *always, *options)
    assert done.stdout.splitlines()[0] == f"{file}:2: INVALID_REQUEST: {words}", done.stderr


def test_code_that_stands_twice_is_told_by_the_line_of_the_first(tallypoint: RunningServer, tmp_path: Path) -> None:
    code, file = unique("twice"), tmp_path / "coupons.csv"
    file.write_text(f"code,uses\nC-1,many\n\n{code},1\n{code.lower()},2\n")
    command = ("coupons", "load", str(file), "--series")
    done = run(tallypoint, *command, unique("spring"))
    twice = "code: is the same as in line 4: leave one of them out"
    assert done.stdout.splitlines()[1] == f"{file}:5: INVALID_REQUEST: {twice}", done.stderr
    file.write_text(f"code,uses\n{code},7\n")
    done = run(tallypoint, *command, unique("autumn"))
    assert ": ALREADY_EXISTS: code: is that of a coupon of series SPRING-" in done.stdout, done.stderr
    assert "with other terms: give out another code" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("coupon\n1\n", "unknown column 'coupon'", id="another column"),
        pytest.param("code,uses,code\n", "column 'code' stands twice", id="column twice"),
        pytest.param("uses\n1\n", "column 'code' is missing", id="without codes"),
    ],
)
def test_file_that_is_none_is_refused(tallypoint: RunningServer, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "coupons.csv"
    file.write_text(text)
    done = run(tallypoint, "coupons", "load", str(file), "--series", "s")
    assert done.returncode == 2
    assert message in done.stderr
