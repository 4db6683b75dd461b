"""Names of accounts and events, and what a posting does to what the programme owes its members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from tallypoint.v1 import journal_pb2

from ledger.model import ADJUSTED, AVAILABLE, CLEARING, EXPIRED, HELD, ISSUED, MEMBER_ACCOUNTS, REDEEMED

ACCOUNT_NAMES: Final[Mapping[int, str]] = {
    value: name.removeprefix("ACCOUNT_").lower() for name, value in journal_pb2.Account.items() if value
}
"""All accounts by their number in the journal, members' first."""

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
    int(journal_pb2.ACCOUNT_PARTNER): "transferred",
}
"""The programme's accounts, by what a posting between them and a member's account is called."""


def summed_account(account: int) -> int:
    """Return the account under which finance adds up what moves on an account of the books."""
    return AVAILABLE if account == HELD else account


def movement_of(debit: int, credit: int) -> tuple[Movement, int] | None:
    """Return what a posting is called and the sign with which it changes the liability; None if it changes nothing.

    The liability is what members have: available, pending and held, less what they owe. Postings between a member's
    own accounts (holds, activation, debt paid) leave it as it is.
    """
    if debit in MEMBER_ACCOUNTS:
        return None if credit in MEMBER_ACCOUNTS else (MOVEMENTS[credit], -1)
    return (MOVEMENTS[debit], 1) if credit in MEMBER_ACCOUNTS else None
