"""A member on a terminal: personal data masked, as it is shown over somebody's shoulder, unless asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC
from decimal import Decimal
from typing import Final

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import ledger_pb2, member_pb2

from server.members.identifiers import mask_name

_SHOWN_DIGITS: Final = 4


def member_line(member: member_pb2.Member, *, full: bool = False) -> str:
    """Return a member in a line."""
    name = (member.profile.name if full else mask_name(member.profile.name)) or "without a name"
    balances = [f"{decimal(one.available_points_minor, one.precision)} {one.unit}" for one in member.balances]
    return ", ".join([member.member_id, name, _status(member), f"cards: {len(member.cards)}", *balances])


def member_lines(member: member_pb2.Member, *, full: bool = False) -> Iterator[str]:
    """Return a member's record, line by line."""
    profile = member.profile
    yield f"member     {member.member_id}, version {member.version}"
    yield f"status     {_status(member)}"
    yield f"name       {(profile.name if full else mask_name(profile.name)) or 'not known'}"
    for phone in filter(None, (member.phone, *member.further_phones)):
        yield f"phone      {phone if full else _masked(phone)}"
    if profile.birthday:
        yield f"birthday   {profile.birthday if full else 'known'}"
    if profile.language:
        yield f"language   {profile.language}"
    for card in member.cards:
        status = member_pb2.CardStatus.Name(card.status).removeprefix("CARD_STATUS_").lower()
        yield f"card       {card.card_number}, {status}"
    yield f"since      {member.registered_at.ToDatetime(tzinfo=UTC):%Y-%m-%d}"
    yield from _balance_lines(member.balances)


def account_lines(member_id: str, account: ledger_pb2.GetAccountResponse) -> Iterator[str]:
    """Return what the ledger knows of a member, line by line."""
    yield f"member     {member_id}"
    if account.merged_into:
        yield f"status     merged into {account.merged_into}"
    if not account.balances:
        yield "points     nothing is booked for this id"
    yield from _balance_lines(account.balances)


def decimal(points_minor: int, precision: int) -> str:
    """Return points as people write them."""
    return f"{Decimal(points_minor).scaleb(-precision):,f}"


def _status(member: member_pb2.Member) -> str:
    name = api.MemberStatus.Name(member.status).removeprefix("MEMBER_STATUS_").lower().replace("_", " ")
    return f"{name} into {member.merged_into}" if member.merged_into else name


def _masked(phone: str) -> str:
    """Return a phone by which its owner can be told from others: "+38*******4567"."""
    hidden = max(len(phone) - 3 - _SHOWN_DIGITS, 0)
    return f"{phone[:3]}{'*' * hidden}{phone[-_SHOWN_DIGITS:]}"


def _balance_lines(balances: Iterable[api.Balance]) -> Iterator[str]:
    for balance in balances:
        parts = [f"{decimal(balance.available_points_minor, balance.precision)} {balance.unit} available"]
        for points_minor, what in (
            (balance.pending_points_minor, "pending"),
            (balance.held_points_minor, "held by checkouts"),
            (balance.debt_points_minor, "owed"),
        ):
            if points_minor:
                parts.append(f"{decimal(points_minor, balance.precision)} {what}")
        if balance.HasField("expiring_next"):
            at = balance.expiring_next.expires_at.ToDatetime(tzinfo=UTC)
            lapsing = decimal(balance.expiring_next.points_minor, balance.precision)
            parts.append(f"{lapsing} lapse at {at:%Y-%m-%d %H:%M} UTC")
        yield f"points     {', '.join(parts)}"
