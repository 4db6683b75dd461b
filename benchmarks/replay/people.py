"""Households as members: ids, cards, phones and birthdays, the same in every run and nobody's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID, uuid5

import stdnum.ean
import stdnum.luhn

NAMESPACE = UUID("6f1c1f0e-5d0b-5c53-9a9e-0d2a3f7f7c11")
"""Of all UUIDs that a replay derives from names."""

REGISTERED_AT = datetime(2016, 12, 1, tzinfo=UTC)
"""Every household joined before the first receipt of the data."""

_FIRST_BIRTHDAY = date(1935, 1, 1)
_BIRTHDAYS = 25_000
# American numbers 555-0100 to 555-0199 are set aside for fiction; so many area codes are needed to go round.
_AREA_CODES = (212, 513, 614, 206, 415, 305, 404, 312, 313, 202, 617, 303, 502)
_FICTIONAL_PER_AREA = 100
_HOUSEHOLDS_PER_PHONE = 2
_PHONE_SHARE_PER_CENT = 30
_CHECK_DIGITS: dict[str, Callable[[str], str]] = {
    "ean": stdnum.ean.calc_check_digit,
    "luhn": stdnum.luhn.calc_check_digit,
}


class CardShape(NamedTuple):
    """Card numbers to make: `length` digits in all, beginning with `prefix`, the last one a check digit.

    `check` is "ean" or "luhn". The default is a chain's own EAN-13, whose prefix 2 is never given to goods;
    it is also the server's default scheme.
    """

    check: str = "ean"
    prefix: str = "2"
    length: int = 13

    @classmethod
    def parse(cls, text: str) -> CardShape:
        """Read a scheme as settings write it: "ean13:2" or "luhn16:9804".

        Raises:
            ValueError: it is not of that form.
        """
        match = re.fullmatch(r"(ean|luhn)([0-9]{1,2}):([0-9]*)", text)
        if match is None:
            raise ValueError(f"card scheme {text!r} is not of the form ean13:2 or luhn16:9804")
        return cls(match[1], match[3], int(match[2]))


class Person(NamedTuple):
    """A member to register. `phone` is E.164, empty for those who gave none."""

    member_id: UUID
    name: str
    birthday: date
    card_number: str
    phone: str


def person(household_id: int, shape: CardShape) -> Person:
    """The member that a household becomes; every second one has a phone number."""
    return Person(
        member_id=uuid5(NAMESPACE, f"household:{household_id}"),
        name=f"Household {household_id}",
        birthday=_FIRST_BIRTHDAY + timedelta(days=digest_number(f"birthday:{household_id}") % _BIRTHDAYS),
        card_number=card_number(household_id, shape),
        phone=_phone(household_id),
    )


def card_number(household_id: int, shape: CardShape) -> str:
    """A card number with its check digit.

    Raises:
        ValueError: the household's number does not fit between prefix and check digit.
    """
    body = shape.prefix + str(household_id).zfill(shape.length - 1 - len(shape.prefix))
    if len(body) != shape.length - 1:
        raise ValueError(f"a card of {shape.length} digits from {shape.prefix} has no room for {household_id}")
    return body + str(_CHECK_DIGITS[shape.check](body))


def shows_phone(basket_id: int, who: Person) -> bool:
    """Whether the shopper says the phone number at this checkout instead of showing the card."""
    return bool(who.phone) and digest_number(f"phone:{basket_id}") % 100 < _PHONE_SHARE_PER_CENT


def digest_number(text: str) -> int:
    """An integer of 64 bits drawn from a text: the same in every run and on every machine."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def _phone(household_id: int) -> str:
    position, other = divmod(household_id, _HOUSEHOLDS_PER_PHONE)
    area, number = divmod(position, _FICTIONAL_PER_AREA)
    if other or area >= len(_AREA_CODES):
        return ""
    return f"+1{_AREA_CODES[area]}55501{number:02d}"
