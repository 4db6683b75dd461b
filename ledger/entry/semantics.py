"""Which readings of the rules judged an entry: a number that each entry stores, so that old entries stay as booked.

A mended fault changes what the same receipt gives. What was booked before stays: `rules explain`, backtests and
`verify` know by the number which readings an entry was judged by, and show where today's would differ, which is no
fault of the entry. What was mended with each number stands in `MENDED`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

FIRST: Final = 0
"""Entries and programme versions that carry no number: all that releases up to 0.4 booked and published."""

CURRENT: Final = 1
"""What new entries are judged by: spending within the rules at the fence, units apart, whole returns, 2026-11."""


class Area(Enum):
    """What of an entry a mended kind concerns."""

    PRICES = "prices"
    """What the rules give on a receipt: discounts, and with them the points."""
    POINTS = "points"
    """What points pay and what is earned, the prices being the same."""
    RETURNS = "returns"
    KEYS = "keys"


class Mended(NamedTuple):
    """A kind of fault: what the rule is since it was mended, in a sentence, and with which semantics that began."""

    kind: str
    since: int
    area: Area
    text: str


UNITS_APART: Final = Mended(
    "units-apart",
    1,
    Area.PRICES,
    "units of one line are told apart: one line of five gives what five lines of one give",
)
LIMITS_BY_UNIT: Final = Mended(
    "limits-by-unit",
    1,
    Area.PRICES,
    "a limit in units takes off no more than those units cost above their lowest price",
)
PARTS_OF_A_PIECE: Final = Mended(
    "parts-of-a-piece",
    1,
    Area.PRICES,
    "the part beyond whole pieces counts for no deal, and gets discounts in proportion",
)
GIFT_OWN_THRESHOLD: Final = Mended(
    "gift-own-threshold", 1, Area.PRICES, "a gift does not count towards the threshold that gives it"
)
CAPS_AS_A_WHOLE: Final = Mended(
    "caps-as-a-whole",
    1,
    Area.PRICES,
    "a limit of money cuts the whole discount, and what is left is spread over the lines",
)
FLOOR_REST_SPREAD: Final = Mended(
    "floor-rest-spread", 1, Area.PRICES, "what a lowest price cuts off an amount goes to the goods that have room"
)
CHANGE_IS_NOT_PAID: Final = Mended(
    "change-is-not-paid", 1, Area.PRICES, "cash beyond what is due is change, and counts as paid in no condition"
)
NO_VISIT: Final = Mended(
    "no-visit",
    1,
    Area.PRICES,
    "a receipt on which nothing has a price is no visit, and promotions for all goods give nothing for it",
)
SPENDING_AT_THE_FENCE: Final = Mended(
    "spending-at-the-fence",
    1,
    Area.POINTS,
    "what points may pay is judged when a receipt is booked, whatever was asked",
)
REAL_PAYMENT_EARNS: Final = Mended(
    "real-payment-earns", 1, Area.POINTS, "points are earned on what was paid in money, points left out included"
)
WHOLE_RETURNS: Final = Mended("whole-returns", 1, Area.RETURNS, "a return takes back all that its goods gave or sold")
LAPSED_ONCE: Final = Mended(
    "lapsed-once", 1, Area.RETURNS, "points that have lapsed or were taken back already are not taken again"
)
KEYS_BY_KIND: Final = Mended(
    "keys-by-kind", 1, Area.KEYS, "a receipt's number counts once for a sale and once for a return"
)

MENDED: Final = (
    UNITS_APART,
    LIMITS_BY_UNIT,
    PARTS_OF_A_PIECE,
    GIFT_OWN_THRESHOLD,
    CAPS_AS_A_WHOLE,
    FLOOR_REST_SPREAD,
    CHANGE_IS_NOT_PAID,
    NO_VISIT,
    SPENDING_AT_THE_FENCE,
    REAL_PAYMENT_EARNS,
    WHOLE_RETURNS,
    LAPSED_ONCE,
    KEYS_BY_KIND,
)


def mended_since(semantics: int, *areas: Area) -> tuple[Mended, ...]:
    """Return the kinds that were mended after an entry of some semantics was judged; without areas those of all."""
    return tuple(one for one in MENDED if one.since > semantics and (not areas or one.area in areas))
