"""Members over a real ledger: registering, finding, changing, importing; and what others do at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

from ledger.entry.books import book_of_member
from server.base.errors import Refused
from server.members.directory import FIND_MEMBERS
from server.members.found import Found
from server.members.registry import AdminMessage, Placed
from tests.integration.back_office import BOOKS, NOW, OLENA, BackOffice, back_office_over, connect_writer

ACTIVE, EARN_ONLY, BLOCKED = api.MEMBER_STATUS_ACTIVE, api.MEMBER_STATUS_EARN_ONLY, api.MEMBER_STATUS_BLOCKED


@pytest.fixture
async def office(ledger_dsn: str) -> AsyncIterator[BackOffice]:
    async with back_office_over(ledger_dsn) as office:
        yield office


def person(number: int, **fields: object) -> member_pb2.NewMember:
    """Return somebody with a card and a phone of their own."""
    return member_pb2.NewMember(card_numbers=[f"5{number:07d}"], phone=f"+38050{number:07d}", **fields)  # type: ignore[arg-type]  # fields of the message


async def reason_of(call: object) -> str:
    """Return the reason for which a call is refused."""
    with pytest.raises(Refused) as refused:
        await call  # type: ignore[misc]  # a coroutine
    return refused.value.reason_name


# --- registering ------------------------------------------------------------------------------------------


async def test_registered_member_is_found_by_every_identifier(office: BackOffice) -> None:
    row = await office.register(OLENA)
    assert (row.book, row.version) == (book_of_member(row.member_id, BOOKS), 1)
    async with office.directory() as directory:
        for identifier in (
            api.Identifier(card_number="5100-0001"),
            api.Identifier(phone="+380501234567"),
            api.Identifier(digital_token="wallet:olena"),
            api.Identifier(member_id=str(row.member_id)),
        ):
            found = await directory.find(identifier)
            assert isinstance(found, Found)
            assert (found.member.member_id, found.member.book) == (row.member_id, row.book)
            assert (found.member.masked_name, str(found.member.birthday)) == ("O*** K.", "1990-02-28")
            assert found.identified_by == api.IdentifierKind.Value(
                "IDENTIFIER_KIND_" + str(identifier.WhichOneof("kind")).removesuffix("_number").upper()
            )
            assert (await office.registry.find(identifier)) == row


async def test_every_change_has_its_entry_in_the_ledger(office: BackOffice) -> None:
    olena = await office.register(OLENA)
    await office.set_status(olena, EARN_ONLY)
    await office.set_status(olena, EARN_ONLY)  # changes nothing
    await office.replace_card(olena, "51000001", "51000002")
    petro = await office.register(person(7))
    assert await office.changes() == {str(olena.member_id): [1, 2, 3], str(petro.member_id): [1]}


async def test_same_message_again_changes_nothing(office: BackOffice) -> None:
    message_id = str(uuid4())
    first = await office.register(OLENA, message_id)
    assert await office.register(OLENA, message_id) == first
    assert await office.changes() == {str(first.member_id): [1]}


async def test_message_id_with_another_body_is_refused(office: BackOffice) -> None:
    message_id = str(uuid4())
    row = await office.register(OLENA, message_id)
    assert await reason_of(office.register(person(1), message_id)) == "MESSAGE_ID_REUSED"
    request = member_pb2.SetMemberStatusRequest(message_id=message_id, member_id=str(row.member_id), status=BLOCKED)
    message = AdminMessage.of(message_id, request)
    call = office.registry.set_status(message, row.member_id, BLOCKED, "lost", NOW)
    assert await reason_of(call) == "MESSAGE_ID_REUSED"
    assert await office.count("server.member") == 1


async def test_refused_message_may_be_corrected_under_its_id(office: BackOffice) -> None:
    await office.register(person(1))
    message_id = str(uuid4())
    assert await reason_of(office.register(person(1), message_id)) == "IDENTIFIER_TAKEN"
    row = await office.register(person(2), message_id)
    assert (await office.registry.find(api.Identifier(card_number="50000002"))).member_id == row.member_id


@pytest.mark.parametrize(
    ("second", "reason", "field"),
    [
        pytest.param(
            member_pb2.NewMember(phone="0501234567"), "IDENTIFIER_TAKEN", "member.phone", id="phone in another form"
        ),
        pytest.param(
            member_pb2.NewMember(card_numbers=["50000009", "51000001"]),
            "IDENTIFIER_TAKEN",
            "member.card_numbers[1]",
            id="second card",
        ),
        pytest.param(
            member_pb2.NewMember(digital_token="wallet:olena"), "IDENTIFIER_TAKEN", "member.digital_token", id="token"
        ),
        pytest.param(OLENA, "IDENTIFIER_TAKEN", "member.card_numbers[0]", id="the same person under a new message"),
        pytest.param(member_pb2.NewMember(phone="123"), "PHONE_INVALID", "member.phone", id="no phone"),
        pytest.param(
            member_pb2.NewMember(card_numbers=["4000000000000002"]),
            "CARD_FOREIGN",
            "member.card_numbers[0]",
            id="foreign card",
        ),
        pytest.param(
            member_pb2.NewMember(profile=member_pb2.Profile(birthday="2023-02-29")),
            "INVALID_REQUEST",
            "member.profile.birthday",
            id="29 February of a common year",
        ),
        pytest.param(
            member_pb2.NewMember(profile=member_pb2.Profile(birthday="2026-11-22")),
            "INVALID_REQUEST",
            "member.profile.birthday",
            id="born tomorrow",
        ),
        pytest.param(
            member_pb2.NewMember(profile=member_pb2.Profile(language="українська")),
            "INVALID_REQUEST",
            "member.profile.language",
            id="language by its name",
        ),
    ],
)
async def test_bad_registration_is_refused_by_name(
    office: BackOffice, second: member_pb2.NewMember, reason: str, field: str
) -> None:
    await office.register(OLENA)
    with pytest.raises(Refused) as refused:
        await office.register(second)
    assert (refused.value.reason_name, refused.value.violations[0][0]) == (reason, field)
    assert await office.count("server.member") == 1
    assert await office.count("ledger.entry") == 1


async def test_given_member_id_is_kept_and_counts_once(office: BackOffice) -> None:
    member_id = str(uuid4())
    row = await office.register(person(1, member_id=member_id))
    assert str(row.member_id) == member_id
    assert await reason_of(office.register(person(2, member_id=member_id))) == "ALREADY_EXISTS"


async def test_one_row_holds_all_personal_data(office: BackOffice) -> None:
    row = await office.register(OLENA)
    columns = await office.pool.fetch(
        "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables "
        "WHERE table_schema IN ('server', 'ledger') AND table_type = 'BASE TABLE'"
    )
    holding = set()
    for table in (record["name"] for record in columns):
        for line in await office.pool.fetch(f"SELECT t::text AS line FROM {table} t WHERE t::text LIKE '%'"):
            if any(word in line["line"] for word in ("Olena", "380501234567", "1990-02-28", "51000001", "wallet")):
                holding.add(table)
    assert holding == {"server.member"}
    assert row.phone == "+380501234567"


# --- races ------------------------------------------------------------------------------------------------


async def test_of_many_who_want_one_card_exactly_one_gets_it(office: BackOffice) -> None:
    people = [member_pb2.NewMember(card_numbers=["51000001"], phone=f"+38050{n:07d}") for n in range(12)]
    outcomes = await asyncio.gather(*(office.register(one) for one in people), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, Refused)]
    assert {one.reason_name for one in refused} == {"IDENTIFIER_TAKEN"}
    assert len(refused) == len(people) - 1
    assert (await office.count("server.member"), await office.count("ledger.entry")) == (1, 1)
    assert await office.count("server.member_identifier") == 2


async def test_one_message_sent_many_times_at_once_makes_one_member(office: BackOffice) -> None:
    message_id = str(uuid4())
    rows = await asyncio.gather(*(office.register(OLENA, message_id) for _ in range(12)))
    assert len({row.member_id for row in rows}) == 1
    assert await office.count("ledger.entry") == 1


async def test_crossing_imports_end_without_deadlock_and_each_identifier_has_one_owner(office: BackOffice) -> None:
    randomness = random.Random(20261121)
    cards, phones = range(40), range(40)

    def rows() -> list[member_pb2.NewMember]:
        return [
            member_pb2.NewMember(
                card_numbers=[f"5{randomness.choice(cards):07d}"], phone=f"+38050{randomness.choice(phones):07d}"
            )
            for _ in range(25)
        ]

    batches = [rows() for _ in range(8)]
    results = await asyncio.gather(*(office.registry.import_members(batch, NOW) for batch in batches))
    for batch, outcomes in zip(batches, results, strict=True):
        for row, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Placed):
                for identifier in (api.Identifier(card_number=row.card_numbers[0]), api.Identifier(phone=row.phone)):
                    assert (await office.registry.find(identifier)).member_id == outcome.member_id
            else:
                assert outcome.reason_name == "IDENTIFIER_TAKEN"
    made = {outcome.member_id for outcomes in results for outcome in outcomes if isinstance(outcome, Placed)}
    assert await office.changes() == {str(member_id): [1] for member_id in made}


async def test_crossing_card_replacements_end_without_deadlock(office: BackOffice) -> None:
    olena, petro = await office.register(person(1)), await office.register(person(2))
    for round_ in range(10):
        new = f"59{round_:06d}"
        outcomes = await asyncio.gather(
            office.replace_card(olena, "", new), office.replace_card(petro, "", new), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in outcomes) == ["MemberRow", "Refused"]
    versions = await office.changes()
    assert sum(len(of_member) for of_member in versions.values()) == 2 + 10


# --- states -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        pytest.param(ACTIVE, "may spend", id="active"),
        pytest.param(EARN_ONLY, "may only earn", id="earn only"),
        pytest.param(BLOCKED, "MEMBER_BLOCKED", id="blocked"),
    ],
)
async def test_status_decides_what_a_member_may_do(office: BackOffice, status: api.MemberStatus, answer: str) -> None:
    row = await office.register(OLENA)
    changed = await office.set_status(row, status)
    assert (changed.status, changed.version) == (status, 1 if status == ACTIVE else 2)
    async with office.directory() as directory:
        found = await directory.find(api.Identifier(phone="0501234567"))
    if isinstance(found, Refused):
        assert found.reason_name == answer
        assert "customer service" in found.cashier_text
    else:
        assert answer == ("may spend" if found.member.can_spend else "may only earn")


async def test_replaced_card_is_refused_and_its_successor_found(office: BackOffice) -> None:
    row = await office.register(OLENA)
    changed = await office.replace_card(row, "51000001", "51000002")
    assert [(card.number, card.status) for card in changed.cards] == [
        ("51000002", member_pb2.CARD_STATUS_ACTIVE),
        ("51000001", member_pb2.CARD_STATUS_REPLACED),
    ]
    async with office.directory() as directory:
        old = await directory.look_up(api.Identifier(card_number="51000001"))
        new = await directory.find(api.Identifier(card_number="51000002"))
    assert old.refusal is not None
    assert old.refusal.reason_name == "CARD_REPLACED"
    assert "new card" in old.refusal.cashier_text
    assert isinstance(new, Found)
    assert old.found is not None, "a receipt taken offline still has to know whose card it was"
    assert old.found.member == new.member


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("50000009", "51000002", "NOT_FOUND", id="old card is not the member's"),
        pytest.param("51000001", "50000001", "IDENTIFIER_TAKEN", id="new card is somebody else's"),
        pytest.param("51000001", "51000001", "IDENTIFIER_TAKEN", id="new card is the old one"),
        pytest.param("51000000", "51000002", "CARD_REPLACED", id="old card was replaced before"),
        pytest.param("51000001", "4000000000000002", "CARD_FOREIGN", id="new card is foreign"),
    ],
)
async def test_bad_replacement_is_refused_and_changes_nothing(
    office: BackOffice, old: str, new: str, reason: str
) -> None:
    await office.register(person(1))
    row = await office.register(member_pb2.NewMember(card_numbers=["51000000"]))
    row = await office.replace_card(row, "51000000", "51000001")
    assert await reason_of(office.replace_card(row, old, new)) == reason
    assert await office.registry.find(api.Identifier(member_id=str(row.member_id))) == row


async def test_change_of_nobody_is_not_found(office: BackOffice) -> None:
    row = await office.register(OLENA)
    nobody = uuid4()
    request = member_pb2.SetMemberStatusRequest(message_id=str(uuid4()), member_id=str(nobody), status=BLOCKED)
    message = AdminMessage.of(request.message_id, request)
    assert await reason_of(office.registry.set_status(message, nobody, BLOCKED, "lost", NOW)) == "NOT_FOUND"
    assert await reason_of(office.registry.find(api.Identifier(member_id=str(nobody)))) == "NOT_FOUND"
    assert await reason_of(office.registry.find(api.Identifier(card_number="50000077"))) == "NOT_FOUND"
    assert await office.changes() == {str(row.member_id): [1]}


# --- importing --------------------------------------------------------------------------------------------


async def test_import_answers_each_row_and_again_changes_nothing(office: BackOffice) -> None:
    await office.register(OLENA)
    rows = [
        person(1),
        person(2, profile=member_pb2.Profile(birthday="2023-02-30")),
        member_pb2.NewMember(card_numbers=["50000003"], phone="0501234567"),
        person(4),
        person(1),
        member_pb2.NewMember(card_numbers=["50000001"], phone="+380500000009"),
        member_pb2.NewMember(profile=member_pb2.Profile(name="Nobody")),
        OLENA,
    ]
    expected = [
        "made",
        "INVALID_REQUEST",
        "IDENTIFIER_TAKEN",
        "made",
        "made",
        "IDENTIFIER_TAKEN",
        "INVALID_REQUEST",
        "made",
    ]
    first = await office.registry.import_members(rows, NOW)
    assert ["made" if isinstance(one, Placed) else one.reason_name for one in first] == expected
    assert isinstance(first[0], Placed)
    assert first[4] == first[0]._replace(already_there=True)
    counts = (await office.count("server.member"), await office.count("ledger.entry"))
    assert counts == (3, 3)
    again = await office.registry.import_members(rows, NOW)
    there = [one._replace(already_there=True) if isinstance(one, Placed) else one for one in first]
    assert [str(one) for one in again] == [str(one) for one in there]
    assert (await office.count("server.member"), await office.count("ledger.entry")) == counts


async def test_bad_row_names_its_field(office: BackOffice) -> None:
    outcome = (await office.registry.import_members([person(1), member_pb2.NewMember(phone="123")], NOW))[1]
    assert isinstance(outcome, Refused)
    assert outcome.violations[0][0] == "phone"


@pytest.mark.parametrize(
    ("cards", "phone", "answer"),
    [
        pytest.param(["50000001"], "+380500000001", "the same", id="as before"),
        pytest.param(["50000001"], "", "the same", id="with less"),
        pytest.param(["50000001", "50000009"], "", "ALREADY_EXISTS", id="with a card more"),
        pytest.param(["50000002"], "", "IDENTIFIER_TAKEN", id="with somebody else's card"),
    ],
)
async def test_import_with_a_known_member_id(office: BackOffice, cards: list[str], phone: str, answer: str) -> None:
    row = await office.register(person(1))
    await office.register(person(2))
    again = member_pb2.NewMember(member_id=str(row.member_id), card_numbers=cards, phone=phone)
    outcome = (await office.registry.import_members([again], NOW))[0]
    assert answer == (outcome.reason_name if isinstance(outcome, Refused) else "the same")
    assert isinstance(outcome, Refused) or outcome == Placed(row.member_id, already_there=True)


async def test_a_row_that_fails_as_nobody_foresaw_does_not_touch_the_others(
    office: BackOffice, ledger_dsn: str
) -> None:
    """Whatever the database has against a row: here a rule that the service does not know."""
    owner = await asyncpg.connect(ledger_dsn)
    await owner.execute("ALTER TABLE server.member ADD CONSTRAINT unforeseen CHECK (name <> 'Guilty')")
    await owner.close()
    rows = [person(number, profile=member_pb2.Profile(name="Good")) for number in range(40)]
    rows[17].profile.name = "Guilty"
    outcomes = await office.registry.import_members(rows, NOW)
    refused = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Refused)}
    assert {index: refusal.reason_name for index, refusal in refused.items()} == {17: "INTERNAL"}
    assert "report incident" in refused[17].message
    for index, row in enumerate(rows):
        if index != 17:
            assert (await office.registry.find(api.Identifier(phone=row.phone))).member_id == outcomes[index].member_id  # type: ignore[union-attr]  # placed


@pytest.mark.parametrize("birthday", ["0001-01-01", "1899-12-30", "1900-01-01", "2126-01-01"])
async def test_a_day_on_which_nobody_alive_was_born_is_refused(office: BackOffice, birthday: str) -> None:
    rows = [person(number, profile=member_pb2.Profile(name="Good")) for number in range(3)]
    rows[1].profile.birthday = birthday
    outcomes = await office.registry.import_members(rows, NOW)
    assert [isinstance(outcome, Refused) for outcome in outcomes] == [False, True, False]
    assert [field for field, _ in outcomes[1].violations] == ["profile.birthday"]  # type: ignore[union-attr]  # said above


@pytest.mark.parametrize("kept", ["0001-01-01", "1899-12-30", "1900-01-01"])
async def test_an_empty_date_that_was_taken_before_is_no_birthday(
    office: BackOffice, ledger_dsn: str, kept: str
) -> None:
    """Members of earlier releases have them; so may times of registration."""
    row = await office.register(OLENA)
    owner = await asyncpg.connect(ledger_dsn)
    await owner.execute(f"UPDATE server.member SET birthday = '{kept}', registered_at = '{kept} 00:00:00Z'")
    await owner.close()
    async with office.directory() as directory:
        found = await directory.find(api.Identifier(member_id=str(row.member_id)))
    assert isinstance(found, Found)
    assert found.member.birthday is None
    assert found.member.registered_at.year == 1950


@pytest.mark.parametrize(
    ("fields", "differing"),
    [
        pytest.param({"profile": member_pb2.Profile(name=" Olena  Koval ", birthday="1990-02-28")}, [], id="the same"),
        pytest.param({"profile": member_pb2.Profile(name="Olena Koval-Rud")}, ["profile.name"], id="name"),
        pytest.param({"profile": member_pb2.Profile(name="olena koval")}, ["profile.name"], id="capitals"),
        pytest.param({"profile": member_pb2.Profile(birthday="1990-02-27")}, ["profile.birthday"], id="birthday"),
        pytest.param({"profile": member_pb2.Profile(language="kk")}, ["profile.language"], id="language"),
        pytest.param({"status": api.MEMBER_STATUS_ACTIVE}, [], id="the same status"),
        pytest.param({"status": api.MEMBER_STATUS_BLOCKED}, ["status"], id="status"),
        pytest.param({"registered_at": Timestamp(seconds=1_600_000_000)}, ["registered_at"], id="registered_at"),
        pytest.param(
            {"profile": member_pb2.Profile(name="Anna", birthday="1991-01-01"), "status": api.MEMBER_STATUS_EARN_ONLY},
            ["profile.name", "profile.birthday", "status"],
            id="all that differs is named",
        ),
    ],
)
async def test_row_that_contradicts_its_member_is_refused_and_changes_nothing(
    office: BackOffice, fields: dict[str, Any], differing: list[str]
) -> None:
    row = await office.register(OLENA)
    (outcome,) = await office.registry.import_members([member_pb2.NewMember(phone=OLENA.phone, **fields)], NOW)
    if differing:
        assert isinstance(outcome, Refused)
        assert (outcome.reason_name, [field for field, _ in outcome.violations]) == ("ALREADY_EXISTS", differing)
        assert "Koval" not in f"{outcome.message} {outcome.violations}", "what the member has is nobody's business"
    else:
        assert outcome == Placed(row.member_id, already_there=True)
    assert await office.registry.find(api.Identifier(phone=OLENA.phone)) == row


async def test_import_of_500_rows_spreads_over_the_books(office: BackOffice) -> None:
    outcomes = await office.registry.import_members([person(number) for number in range(500)], NOW)
    assert all(isinstance(one, Placed) for one in outcomes)
    assert await office.count("ledger.entry") == 500
    used = await office.pool.fetchval("SELECT count(DISTINCT book) FROM server.member")
    assert used == BOOKS


# --- the directory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "reason", "advice"),
    [
        pytest.param(
            api.Identifier(card_number="50000077"), "IDENTIFIER_UNKNOWN", "offer to register", id="unknown card"
        ),
        pytest.param(api.Identifier(phone="0509999999"), "IDENTIFIER_UNKNOWN", "offer to register", id="unknown phone"),
        pytest.param(
            api.Identifier(member_id="0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f"),
            "IDENTIFIER_UNKNOWN",
            "offer to register",
            id="unknown id",
        ),
        pytest.param(api.Identifier(card_number="4000000000000002"), "CARD_FOREIGN", "another shop", id="foreign"),
        pytest.param(api.Identifier(card_number="2200000000018"), "CARD_CHECK_DIGIT_WRONG", "Scan", id="misread"),
        pytest.param(api.Identifier(phone="12"), "PHONE_INVALID", "say it again", id="impossible phone"),
    ],
)
async def test_refusals_are_values_with_advice(
    office: BackOffice, identifier: api.Identifier, reason: str, advice: str
) -> None:
    async with office.directory() as directory:
        answer = await directory.find(identifier)
    assert isinstance(answer, Refused)
    assert (answer.reason_name, advice in answer.cashier_text) == (reason, True)


async def test_lookups_that_wait_travel_together(office: BackOffice) -> None:
    await office.registry.import_members([person(number) for number in range(300)], NOW)
    queries: list[str] = []

    async def connect_and_listen() -> asyncpg.Connection[asyncpg.Record]:
        conn = await connect_writer(office.dsn)
        conn.add_query_logger(lambda record: queries.append(record.query))
        return conn

    cards = [api.Identifier(card_number=f"5{number:07d}") for number in range(300)]
    phones = [api.Identifier(phone=f"+38050{number:07d}") for number in range(300)]
    async with office.directory(connect_and_listen) as directory:
        answers = await asyncio.gather(*(directory.find(one) for one in [*cards, *phones]))
    assert queries.count(FIND_MEMBERS) == 2, "600 look-ups at once, at most 500 of them in a query"
    found = [answer.member for answer in answers if isinstance(answer, Found)]
    assert len(found) == 600
    assert found[:300] == found[300:]


async def test_caller_that_goes_away_does_not_disturb_the_others(office: BackOffice) -> None:
    row = await office.register(OLENA)
    async with office.directory() as directory:
        identifier = api.Identifier(phone="0501234567")
        tasks = [asyncio.create_task(directory.find(identifier)) for _ in range(5)]
        await asyncio.sleep(0)  # they are waiting now
        tasks[0].cancel()
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False, False, True, False]
    assert {answer.member.member_id for answer in answers if isinstance(answer, Found)} == {row.member_id}


async def test_directory_survives_the_loss_of_its_connection(office: BackOffice, ledger_dsn: str) -> None:
    row = await office.register(OLENA)
    owner = await asyncpg.connect(ledger_dsn)
    async with office.directory() as directory:
        identifier = api.Identifier(phone="0501234567")
        assert isinstance(await directory.find(identifier), Found)
        await owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        found = await directory.find(identifier)
    await owner.close()
    assert isinstance(found, Found)
    assert found.member.member_id == row.member_id


async def test_without_a_database_lookups_are_refused_and_later_answered(office: BackOffice) -> None:
    row = await office.register(OLENA)
    ports = iter([1])  # nobody listens there

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        port = next(ports, None)
        if port is None:
            return await connect_writer(office.dsn)
        return await asyncpg.connect(host="127.0.0.1", port=port, user="nobody", database="none")

    async with office.directory(connect) as directory:
        refused = await directory.find(api.Identifier(phone="0501234567"))
        found = await directory.find(api.Identifier(phone="0501234567"))
    assert isinstance(refused, Refused)
    assert refused.reason_name == "LEDGER_UNAVAILABLE"
    assert refused.retry_after_seconds
    assert isinstance(found, Found)
    assert found.member.member_id == row.member_id
