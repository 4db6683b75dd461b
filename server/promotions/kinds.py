"""The enumerations of a programme file."""

from __future__ import annotations

from enum import Enum


class Base(Enum):
    """The price that a discount is computed from."""

    LIST = "list"
    REMAINING = "remaining"


class Period(Enum):
    """Calendar periods: of limits, of counted visits, and that an expiry date may be rounded up to the end of."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    HALF_YEAR = "half_year"
    YEAR = "year"


class TerminalKind(Enum):
    """Who stands at a terminal."""

    LANE = "lane"
    SELF_CHECKOUT = "self_checkout"
    ONLINE = "online"


class TenderKind(Enum):
    """A way of paying."""

    CASH = "cash"
    CARD = "card"
    OTHER = "other"
    POINTS = "points"


class Measure(Enum):
    """What a limit counts: how often (units, deals or receipts), money taken off, or points granted."""

    COUNT = "count"
    MONEY = "money"
    POINTS = "points"


class LimitScope(Enum):
    """Whose uses a limit adds up."""

    RECEIPT = "receipt"
    MEMBER = "member"
    STORE = "store"
    ALL = "all"


class TierMeasure(Enum):
    """By what a level is reached within its window."""

    SPEND = "spend"
    VISITS = "visits"
    POINTS = "points"


class Rounding(Enum):
    """How one accrual is rounded to the point precision."""

    HALF_UP = "half_up"
    DOWN = "down"
    UP = "up"


class RoundingPer(Enum):
    """Over what the points of a promotion are summed before they are rounded."""

    LINE = "line"
    RECEIPT = "receipt"


class FloorRest(Enum):
    """What becomes of the part of a discount over several lines that the lowest permitted price of one cuts off."""

    SPREAD = "spread"
    """It goes to the lines that have room."""
    LOST = "lost"


class Audience(Enum):
    """Where a message is shown or said."""

    CASHIER = "cashier"
    SHOPPER = "shopper"
    RECEIPT = "receipt"
    VOICE = "voice"


class OfflineAction(Enum):
    """What becomes of a receipt taken offline whose identifier is no longer what it was."""

    BOOK_WITHOUT_MEMBER = "book_without_member"
    BOOK_FOR_MEMBER = "book_for_member"
    BOOK_FOR_SUCCESSOR = "book_for_successor"
    REFUSE = "refuse"


class Clawback(Enum):
    """From where points earned on goods that come back are taken."""

    DEBT = "debt"
    WITHIN_BALANCE = "within_balance"
    OWN_LOT_ONLY = "own_lot_only"
    OFF_THE_REFUND = "off_the_refund"
