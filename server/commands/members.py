"""`tallypoint members`: commands for administrators and the hotline, which are clients of the back office."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple
from uuid import uuid4

import typer
from rich.console import Console
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import correction_pb2, correction_pb2_grpc, ledger_pb2, ledger_pb2_grpc, member_pb2, member_pb2_grpc

from server.commands.client import Address, BackOfficeClient, CallFailed, Key, TlsCa, back_office
from server.commands.common import Yes, confirm, fail, load_settings
from server.commands.members_import import import_members
from server.commands.members_shown import account_lines, member_line, member_lines
from server.commands.rights_rows import identifier_of

app = typer.Typer(no_args_is_help=True, help="Members and their cards.")

DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]
MemberName = Annotated[str, typer.Argument(help="The member's id, a card number, or a phone with its +.")]
Full = Annotated[bool, typer.Option("--full", help="Show name, phones and birthday whole.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
CardNumber = Annotated[str, typer.Option("--card", help="Only this card of the member, such as a lost one.")]


class _Desk(NamedTuple):
    """An open channel to the back office, and the calls about members."""

    client: BackOfficeClient
    members: member_pb2_grpc.MemberServiceStub


@app.callback()
def _members() -> None:
    """Members and their cards."""


app.command("import")(import_members)


@app.command()
def show(
    member: MemberName,
    full: Full = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show a member: status, cards, balances. A key of the role finance names members by id, and sees the account."""
    with _desk(data_dir, address, key, tls_ca) as (client, members):
        identifier = identifier_of(member)
        try:
            found = client.attempt(members.GetMember, member_pb2.GetMemberRequest(identifier=identifier)).member
        except CallFailed as failure:
            if failure.reason != "ROLE_FORBIDDEN" or not identifier.member_id:
                raise fail(_without_rights(failure)) from None
            request = ledger_pb2.GetAccountRequest(member_id=identifier.member_id)
            account = client.call(ledger_pb2_grpc.LedgerServiceStub(client.channel).GetAccount, request)
            _print(account_lines(identifier.member_id, account))
            return
    _print(member_lines(found, full=full))


@app.command()
def find(
    members: Annotated[list[str], typer.Argument(help="Ids, card numbers, or phones with their +.")],
    full: Full = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Find members, a line each. Exit code 1 means that nobody has one of the identifiers."""
    missing = 0
    with _desk(data_dir, address, key, tls_ca) as (client, stub):
        for text in members:
            try:
                request = member_pb2.GetMemberRequest(identifier=identifier_of(text))
                typer.echo(member_line(client.attempt(stub.GetMember, request).member, full=full))
            except CallFailed as failure:
                if failure.reason != "NOT_FOUND":
                    raise fail(_without_rights(failure)) from None
                typer.echo(f"{text}: no member has this identifier", err=True)
                missing += 1
    if missing:
        raise typer.Exit(1)


@app.command()
def block(
    member: MemberName,
    reason: Reason,
    card: CardNumber = "",
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Block a member, or with --card one of the cards. Registers hear of it with their next call."""
    with _desk(data_dir, address, key, tls_ca) as desk:
        if card:
            _set_card(desk, member, card, member_pb2.CARD_STATUS_BLOCKED)
        else:
            _set_status(desk, member, api.MEMBER_STATUS_BLOCKED, reason)


@app.command()
def unblock(
    member: MemberName,
    reason: Reason,
    card: CardNumber = "",
    earn_only: Annotated[bool, typer.Option("--earn-only", help="The member may earn, but not spend yet.")] = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Let a member, or with --card one of the cards, count again."""
    if card and earn_only:
        raise fail("--earn-only is about the member, not about a card: leave one of the two out")
    with _desk(data_dir, address, key, tls_ca) as desk:
        if card:
            _set_card(desk, member, card, member_pb2.CARD_STATUS_ACTIVE)
        else:
            status = api.MEMBER_STATUS_EARN_ONLY if earn_only else api.MEMBER_STATUS_ACTIVE
            _set_status(desk, member, status, reason)


@app.command()
def replace(
    old_card: Annotated[str, typer.Argument(help="The card that was lost or worn out.")],
    new_card: Annotated[str, typer.Argument(help="The card that the member gets.")],
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Give a member a new card for an old one, which stays in the record as replaced."""
    with _desk(data_dir, address, key, tls_ca) as desk:
        owner = find_member(desk.client, old_card, card=True)
        _give_card(desk, owner, new_card, old_card)


@app.command("add-card")
def add_card(
    member: MemberName,
    new_card: Annotated[str, typer.Argument(help="The further card.")],
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Give a member a further card."""
    with _desk(data_dir, address, key, tls_ca) as desk:
        _give_card(desk, find_member(desk.client, member), new_card)


@app.command()
def change(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    member: MemberName,
    name: Annotated[str | None, typer.Option(help='The name; "" takes it away, here and below.')] = None,
    birthday: Annotated[str | None, typer.Option(help="The birthday, YYYY-MM-DD.")] = None,
    language: Annotated[str | None, typer.Option(help="The language for texts, such as uk.")] = None,
    phone: Annotated[str | None, typer.Option(help="The phone; the old one recognises nobody from then on.")] = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Change what is known of a member."""
    wanted = {"name": name, "birthday": birthday, "language": language, "phone": phone}
    given = {field: text for field, text in wanted.items() if text is not None}
    if not given:
        raise fail("name what to change: --name, --birthday, --language or --phone")
    with _desk(data_dir, address, key, tls_ca) as (client, members):
        request = member_pb2.ChangeMemberRequest(
            message_id=str(uuid4()), member_id=find_member(client, member).member_id, **given
        )
        _print(member_lines(client.call(members.ChangeMember, request).member))


@app.command()
def merge(
    duplicate: Annotated[str, typer.Argument(help="Who goes: the member's id, a card number, or a phone with its +.")],
    survivor: Annotated[str, typer.Argument(help="Who stays: the id, a card number, or a phone.")],
    reason: Reason,
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make two records of one person one: points, cards and phones go to the second. It cannot be undone."""
    with _desk(data_dir, address, key, tls_ca) as (client, _):
        goes, stays = find_member(client, duplicate), find_member(client, survivor)
        typer.echo(f"goes:  {member_line(goes)}\nstays: {member_line(stays)}")
        confirm("Merge them?", yes=yes)
        request = correction_pb2.MergeMembersRequest(
            request_id=str(uuid4()), duplicate_id=goes.member_id, survivor_id=stays.member_id, reason=reason
        )
        stub = correction_pb2_grpc.CorrectionServiceStub(client.channel)
        merged = client.call(stub.MergeMembers, request).survivor
    typer.echo(f"is now: {member_line(merged)}")


def find_member(client: BackOfficeClient, text: str, *, card: bool = False) -> member_pb2.Member:
    """Return a member's record by id, card number, or phone in international form; with `card` only by a card."""
    identifier = api.Identifier(card_number=text) if card else identifier_of(text)
    stub = member_pb2_grpc.MemberServiceStub(client.channel)
    try:
        return client.attempt(stub.GetMember, member_pb2.GetMemberRequest(identifier=identifier)).member
    except CallFailed as failure:
        raise fail(_without_rights(failure)) from None


@contextmanager
def _desk(data_dir: Path | None, address: str | None, key: str | None, tls_ca: Path | None) -> Iterator[_Desk]:
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        yield _Desk(client, member_pb2_grpc.MemberServiceStub(client.channel))


def _set_status(desk: _Desk, text: str, status: api.MemberStatus, reason: str) -> None:
    member = find_member(desk.client, text)
    request = member_pb2.SetMemberStatusRequest(
        message_id=str(uuid4()), member_id=member.member_id, status=status, reason=reason
    )
    typer.echo(member_line(desk.client.call(desk.members.SetMemberStatus, request).member))


def _set_card(desk: _Desk, text: str, number: str, status: member_pb2.CardStatus) -> None:
    member = find_member(desk.client, text)
    request = member_pb2.SetCardStatusRequest(
        message_id=str(uuid4()), member_id=member.member_id, card_number=number, status=status
    )
    _print(member_lines(desk.client.call(desk.members.SetCardStatus, request).member))


def _give_card(desk: _Desk, owner: member_pb2.Member, new_card: str, old_card: str = "") -> None:
    request = member_pb2.ReplaceCardRequest(
        message_id=str(uuid4()), member_id=owner.member_id, old_card_number=old_card, new_card_number=new_card
    )
    _print(member_lines(desk.client.call(desk.members.ReplaceCard, request).member))


def _without_rights(failure: CallFailed) -> str:
    """Return what a failed look-up says; to finance, what it may do instead."""
    if failure.reason != "ROLE_FORBIDDEN":
        return str(failure)
    return f"{failure}\nCards and phones are for keys of the roles crm and admin; finance names members by their id."


def _print(lines: Iterator[str]) -> None:
    console = Console(highlight=False)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
