"""The hotline's commands: members shown, found, blocked, given cards and changed, against a running server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from uuid import uuid4

import grpc
import pytest
from tallypoint.v1 import member_pb2

from tests.integration.test_back_office import Client, card, registration, run
from tests.support.server_process import RunningServer

_numbers = itertools.count(uuid4().int % 9_000_000 + 1_000_000)


@pytest.fixture(scope="module")
def crm(tallypoint: RunningServer) -> Iterator[Client]:
    with grpc.insecure_channel(tallypoint.backoffice_address) as channel:
        yield Client(channel, tallypoint.keys["crm"])


def phone() -> str:
    """Return a phone that nobody has."""
    return f"+38067{next(_numbers):07d}"


@pytest.fixture
def member(crm: Client) -> member_pb2.Member:
    """Somebody with a card, a phone and a name."""
    request = registration(
        card_numbers=[card()],
        phone=phone(),
        profile=member_pb2.Profile(name="Olena Koval", birthday="1990-05-17", language="uk"),
    )
    made: member_pb2.Member = crm.call(crm.members.RegisterMember, request).member
    return made


def members(server: RunningServer, *words: str, key: str = "crm") -> tuple[int, str]:
    """Run a command; return its exit code and all that it says."""
    done = run(server, "members", *words, "--key", server.keys[key])
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_member_is_shown_by_each_identifier_with_personal_data_masked(
    tallypoint: RunningServer, member: member_pb2.Member
) -> None:
    number = member.cards[0].card_number
    for name in (number, member.phone, member.member_id):
        code, said = members(tallypoint, "show", name)
        assert code == 0
        for part in (
            f"member {member.member_id}, version 1",
            "status active",
            "name O*** K.",
            f"card {number}, active",
        ):
            assert part in said
        for secret in ("Koval", member.phone, "1990"):
            assert secret not in said
    _, whole = members(tallypoint, "show", number, "--full")
    for secret in ("name Olena Koval", f"phone {member.phone}", "birthday 1990-05-17", "language uk"):
        assert secret in whole


def test_members_are_found_a_line_each(tallypoint: RunningServer, member: member_pb2.Member) -> None:
    number = member.cards[0].card_number
    code, said = members(tallypoint, "find", number, member.phone)
    assert (code, said.count(f"{member.member_id}, O*** K., active, cards: 1")) == (0, 2)
    unknown = card()
    code, said = members(tallypoint, "find", unknown, number)
    assert (code, f"{unknown}: no member has this identifier" in said, member.member_id in said) == (1, True, True)


def test_a_member_and_a_card_are_blocked_and_count_again(tallypoint: RunningServer, member: member_pb2.Member) -> None:
    number = member.cards[0].card_number
    for words, part in (
        (["block", number, "--reason", "fraud"], "blocked, cards: 1"),
        (["unblock", number, "--reason", "was a mistake", "--earn-only"], "earn only, cards: 1"),
        (["unblock", number, "--reason", "was a mistake"], "active, cards: 1"),
        (["block", number, "--card", number, "--reason", "lost"], f"card {number}, blocked"),
        (["unblock", member.phone, "--card", number, "--reason", "found"], f"card {number}, active"),
    ):
        code, said = members(tallypoint, *words)
        assert (code, part in said) == (0, True), said
    code, said = members(tallypoint, "unblock", number, "--card", number, "--reason", "x", "--earn-only")
    assert (code, "leave one of the two out" in said) == (2, True)


def test_a_card_is_replaced_and_stays_in_the_record(tallypoint: RunningServer, member: member_pb2.Member) -> None:
    old, new, further = member.cards[0].card_number, card(), card()
    code, said = members(tallypoint, "replace", old, new)
    assert (code, f"card {new}, active card {old}, replaced" in said) == (0, True), said
    code, said = members(tallypoint, "add-card", new, further)
    assert (code, f"card {further}, active" in said) == (0, True), said
    code, said = members(tallypoint, "replace", old, card())
    assert (code, "CARD_REPLACED" in said) == (2, True), said
    code, said = members(tallypoint, "add-card", old, new)
    assert (code, "IDENTIFIER_TAKEN" in said) == (2, True), said


def test_what_is_known_of_a_member_is_changed(
    tallypoint: RunningServer, crm: Client, member: member_pb2.Member
) -> None:
    old, new = member.phone, phone()
    words = ["--name", "Olha Bondar", "--birthday", "1991-06-18", "--language", "en", "--phone", new]
    assert members(tallypoint, "change", old, *words)[0] == 0
    _, whole = members(tallypoint, "show", new, "--full")
    for part in ("name Olha Bondar", "birthday 1991-06-18", "language en", f"phone {new}", "version 2"):
        assert part in whole
    assert members(tallypoint, "find", old)[0] == 1, "the old phone recognises nobody"
    crm.call(crm.members.RegisterMember, registration(phone=old))  # and its next owner may register
    code, said = members(tallypoint, "change", new, "--phone", old)
    assert (code, "IDENTIFIER_TAKEN" in said, "phone:" in said) == (2, True, True), said
    assert "version 2" in members(tallypoint, "change", new, "--name", "Olha Bondar")[1], "nothing changed"
    assert members(tallypoint, "change", member.member_id, "--phone", "", "--birthday", "")[0] == 0
    _, whole = members(tallypoint, "show", member.member_id, "--full")
    assert ("phone" in whole, "birthday" in whole, "name Olha Bondar" in whole) == (False, False, True)


@pytest.mark.parametrize(
    ("option", "text", "fault"),
    [
        pytest.param("--birthday", "17.05.1990", "birthday:", id="no date"),
        pytest.param("--birthday", "1899-12-30", "birthday:", id="a spreadsheet's empty date"),
        pytest.param("--language", "Ukrainian!", "language:", id="no language"),
        pytest.param("--phone", "12", "phone", id="no phone"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    tallypoint: RunningServer, member: member_pb2.Member, option: str, text: str, fault: str
) -> None:
    code, said = members(tallypoint, "change", member.member_id, option, text)
    assert (code, fault in said) == (2, True), said
    assert "profile." not in said


def test_finance_names_members_by_id_only(tallypoint: RunningServer, member: member_pb2.Member) -> None:
    code, said = members(tallypoint, "show", member.member_id, key="finance")
    assert (code, f"member {member.member_id}" in said) == (0, True), said
    for words in (
        ["show", member.phone],
        ["find", member.cards[0].card_number],
        ["change", member.phone, "--name", "X"],
    ):
        code, said = members(tallypoint, *words, key="finance")
        assert (code, "finance names members by their id" in said) == (2, True), said


def test_nothing_to_change_and_nobody_to_show_are_said(tallypoint: RunningServer, member: member_pb2.Member) -> None:
    assert "name what to change" in members(tallypoint, "change", member.member_id)[1]
    code, said = members(tallypoint, "show", str(uuid4()))
    assert (code, "no member has this identifier" in said, "Traceback" in said) == (2, True, False)
    code, said = members(tallypoint, "show", "not a card")
    assert (code, "Traceback" in said) == (2, False), said


def test_a_change_sent_again_changes_nothing(crm: Client, member: member_pb2.Member) -> None:
    request = member_pb2.ChangeMemberRequest(message_id=str(uuid4()), member_id=member.member_id, name="Olha")
    first = crm.call(crm.members.ChangeMember, request).member
    assert crm.call(crm.members.ChangeMember, request).member == first
    assert (first.profile.name, first.profile.birthday, first.version) == ("Olha", "1990-05-17", 2)
    assert first.phone == member.phone
