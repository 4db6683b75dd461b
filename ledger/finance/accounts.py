"""Names of accounts and events, and what a posting does to what the programme owes its members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from tallypoint.v1 import journal_pb2

from ledger.entry.accounts import is_partner, own_pair
from ledger.entry.model import ADJUSTED, AVAILABLE, CLEARING, EXPIRED, HELD, ISSUED, MEMBER_ACCOUNTS, REDEEMED

ACCOUNT_NAMES: Final[Mapping[int, str]] = {
    value: name.removeprefix("ACCOUNT_").lower()
    for name, value in journal_pb2.Account.items()
    if value not in {journal_pb2.ACCOUNT_UNSPECIFIED, journal_pb2.ACCOUNT_PARTNER}
}
"""Members' and the programme's accounts by their number in the journal, members' first."""

PARTNER_PREFIX: Final = "partner:"
"""What the name of a partner's account begins with; the partner's code follows."""

SUMMED_ACCOUNTS: Final[Mapping[int, str]] = {
    account: name for account, name in ACCOUNT_NAMES.items() if account != HELD
}
"""The accounts that finance adds up: what a checkout holds counts as available still.

A hold lasts minutes, has no business date, and is booked on a UTC day; the receipt that captures it counts for the
store's business date, which may be the day before. An account of its own would be short by that at every close.
"""

KIND_NAMES: Final[Mapping[int, str]] = {
    value: name.removeprefix("ENTRY_KIND_").lower() for name, value in journal_pb2.EntryKind.items() if value
}
"""What an entry records, by its number in the journal."""

Movement = Literal["issued", "redeemed", "expired", "adjusted", "transferred"]

MOVEMENTS: Final[Mapping[int, Movement]] = {
    ISSUED: "issued",
    REDEEMED: "redeemed",
    EXPIRED: "expired",
    ADJUSTED: "adjusted",
    CLEARING: "transferred",
}
"""The programme's accounts, by what a posting between them and a member's account is called."""


def account_name(account: int, partners: Mapping[int, str]) -> str:
    """Return the name of an account; ``partners`` are the partners' codes by their accounts."""
    if is_partner(account):
        return f"{PARTNER_PREFIX}{partners[account]}"
    return ACCOUNT_NAMES[account]


def summed_account(account: int) -> int:
    """Return the account under which finance adds up what moves on an account of the books."""
    return AVAILABLE if account == HELD else account


def movement_of(debit: int, credit: int, kind: int) -> tuple[Movement, int] | None:
    """Return what a posting is called and the sign with which it changes the liability; None if it changes nothing.

    The liability is what members have: available, pending and held, less what they owe. Postings between a member's
    own accounts (holds, activation, debt paid) leave it as it is, as does what makes a partner good. ``kind`` is the
    entry's: by it a partner's account stands for points issued, or for points redeemed.
    """
    debit, credit = own_pair(kind, debit, credit)
    if debit in MEMBER_ACCOUNTS:
        return None if credit in MEMBER_ACCOUNTS else (MOVEMENTS[credit], -1)
    return (MOVEMENTS[debit], 1) if credit in MEMBER_ACCOUNTS else None
