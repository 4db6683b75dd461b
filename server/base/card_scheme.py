"""The card numbers that a chain gives out, as the setting `card_schemes` describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

SHORTEST_CARD: Final = 4
LONGEST_CARD: Final = 40
"""What the API accepts as a card number, in digits."""

_FORM: Final = re.compile(
    r"(?P<check>luhn|ean|verhoeff|iso7064_mod11_10|none)/?"
    r"((?P<least>\d{1,2})(-(?P<most>\d{1,2}))?)?"
    r":(?P<prefixes>\d*(,\d+)*)"
)


class CardCheck(Enum):
    """How the last digit of a card number is computed from the others."""

    LUHN = "luhn"
    EAN = "ean"
    VERHOEFF = "verhoeff"
    ISO7064_MOD11_10 = "iso7064_mod11_10"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CardScheme:
    """One series of card numbers: how they begin, how many digits they have, and their check digit."""

    name: str
    prefixes: tuple[str, ...]
    lengths: range
    check: CardCheck

    def gave_out(self, number: str) -> bool:
        """Say whether a number begins as this scheme's do; its length and check digit are not looked at."""
        return number.startswith(self.prefixes)


def parse_card_scheme(text: str) -> CardScheme:
    """Return the scheme of a setting: check, permitted digits, and prefixes, such as `ean13:2`.

    `luhn16-19:9804,9805` permits 16 to 19 digits and two prefixes; without digits any length will do, and an empty
    prefix fits every number. `iso7064_mod11_10/12:7` has a slash because the check's name ends in digits.

    Raises:
        ValueError: The text is not of that form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            f"card scheme {text!r} is not check, digits and prefix, such as ean13:2 or luhn16-19:9804,9805 "
            f"(checks: {', '.join(check.value for check in CardCheck)})"
        )
    least = int(match["least"] or SHORTEST_CARD)
    most = int(match["most"] or match["least"] or LONGEST_CARD)
    if not SHORTEST_CARD <= least <= most <= LONGEST_CARD:
        raise ValueError(f"card scheme {text!r} must permit {SHORTEST_CARD} to {LONGEST_CARD} digits, the lesser first")
    prefixes = tuple(match["prefixes"].split(","))
    return CardScheme(text, prefixes, range(least, most + 1), CardCheck(match["check"]))
