"""What the accounts of postings mean, and which take the place of the programme's own: those of coalition partners.

A partner has one account. What it issues is debited there instead of ISSUED, and what points pay in its stores is
credited there instead of REDEEMED, so its balance is what the partner and the programme owe each other. Which of the
two a posting means follows from the kind of its entry.
"""

from __future__ import annotations

from tallypoint.v1 import journal_pb2

from ledger.entry.model import ADJUSTED, EXPIRED, FIRST_PARTNER_ACCOUNT, ISSUED, REDEEMED

_RETURN = int(journal_pb2.ENTRY_KIND_RETURN)

LOST = frozenset({EXPIRED, ADJUSTED})
"""Where points of a lot are gone that no return can ask for again: they lapsed, or were taken by hand."""


def is_partner(account: int) -> bool:
    """Say whether an account is a partner's."""
    return account > FIRST_PARTNER_ACCOUNT


def is_granting(account: int) -> bool:
    """Say whether a purchase's points can come from an account: the programme's, or a partner's."""
    return account == ISSUED or is_partner(account)


def is_taking(account: int) -> bool:
    """Say whether an account takes what a purchase's points pay: the programme's, or a partner's."""
    return account == REDEEMED or is_partner(account)


def own_pair(kind: int, debit: int, credit: int) -> tuple[int, int]:
    """Return a posting's accounts with the programme's own in a partner's place; ``kind`` is its entry's.

    In a return points move back: what it credits a partner with was issued, what it debits was redeemed. A pair
    (ISSUED, ISSUED) is a partner made good for points that a return waives.
    """
    given, taken = (REDEEMED, ISSUED) if kind == _RETURN else (ISSUED, REDEEMED)
    return given if is_partner(debit) else debit, taken if is_partner(credit) else credit


def partner_account(number: int) -> int:
    """Return the settlement account of a partner, given its number."""
    return FIRST_PARTNER_ACCOUNT + number
