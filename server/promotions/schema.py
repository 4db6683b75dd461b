"""The shape of a programme file as pydantic models: field names, types and bounds, all checked by field.

Scalars arrive as text (see yaml_text) and are parsed here, decimals exactly. Checks that need more than one
field of one section are in load.py, where their messages can name the field at fault.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from server.promotions.model import Audience, Base, Clawback, Period, Rounding

MAX_PROMOTIONS = 20_000
MAX_GOODS = 100_000
MAX_TEXT = 500
MAX_PARTS = 50
STAY_EXPIRED = "stay_expired"

_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
_WHOLE = re.compile(r"[0-9]{1,9}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("programme_value", "{reason}", {"reason": message})


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"`{value[:40]}`"
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), repr(value))


def _decimal(value: object) -> Decimal:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return Decimal(value)
    raise _wrong(f"{_shown(value)} is no number like 10 or 2.50 (digits, a point, up to 6 decimals)")


def _whole(value: object) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise _wrong(f"{_shown(value)} is no whole number from 0")


def _day(value: object) -> date:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise _wrong(f"{_shown(value)} is no day of the calendar") from None
    raise _wrong(f"{_shown(value)} is no date like 2026-01-31")


def _truth(value: object) -> bool:
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise _wrong(f"{_shown(value)} is neither true nor false")


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise _wrong(f"{_shown(value)} is no text")


def _category(value: object) -> str:
    path = _text(value).strip("/")
    if not path or "" in (part.strip() for part in path.split("/")):
        raise _wrong(f"{_shown(value)} is no category path like grocery/frozen")
    return path


def _list(value: object) -> object:
    """Let a single word stand where a list is expected."""
    return [value] if isinstance(value, str) else value


Number = Annotated[Decimal, BeforeValidator(_decimal)]
Whole = Annotated[int, BeforeValidator(_whole)]
Day = Annotated[date, BeforeValidator(_day)]
Truth = Annotated[bool, BeforeValidator(_truth)]
Text = Annotated[str, BeforeValidator(_text), Field(max_length=MAX_TEXT)]
Code = Annotated[str, BeforeValidator(_text), Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Share = Annotated[Number, Field(ge=0, le=100)]
Off = Annotated[Number, Field(gt=0, le=100)]
Positive = Annotated[Number, Field(gt=0)]
Words = Annotated[list[Text], BeforeValidator(_list), Field(min_length=1, max_length=MAX_GOODS)]
Categories = Annotated[
    list[Annotated[str, BeforeValidator(_category)]],
    BeforeValidator(_list),
    Field(min_length=1, max_length=MAX_GOODS),
]


class Section(BaseModel):
    """Base of all sections: unknown fields are errors, enumerations are given by their value."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PointSection(Section):
    """The point: `pays` is what one point is worth in money."""

    unit: Text
    precision: Annotated[Whole, Field(le=6)] = 2
    pays: Positive


class ExpirySection(Section):
    """Either a fixed day, or a duration in months and days, optionally rounded up."""

    on: Day | None = None
    after_months: Annotated[Whole, Field(le=1200)] | None = None
    after_days: Annotated[Whole, Field(le=36500)] | None = None
    round_up_to: Period | None = None


class EarningSection(Section):
    """What the programme grants on everything that is not excluded."""

    base_percent: Annotated[Number, Field(ge=0, le=1000)] = Decimal(0)
    base_group: Code | None = None
    rounding: Rounding = Rounding.HALF_UP
    earn_on_points_paid: Truth = False
    pending_days: Annotated[Whole, Field(le=3650)] = 0
    expiry: ExpirySection | None = None


class SpendingSection(Section):
    """How points pay."""

    max_share_percent: Share = Decimal(100)
    step_points: Positive | None = None
    keep_one_minor_unit: Truth = True
    respect_price_floor: Truth = True
    hold_ttl_seconds: Annotated[Whole, Field(ge=10, le=3600)] = 600


class GraceSection(Section):
    """For how many days points are good that come back after they had lapsed."""

    grace_days: Annotated[Whole, Field(ge=1, le=366)]


def _expired_lots(value: object) -> object:
    """Let the word `stay_expired` stand for no grace."""
    if value == STAY_EXPIRED:
        return None
    if isinstance(value, dict):
        return value
    raise _wrong(f"{_shown(value)} is neither {STAY_EXPIRED} nor {{grace_days: N}}")


ExpiredLots = Annotated[
    GraceSection | None,
    BeforeValidator(_expired_lots),
    WithJsonSchema({"anyOf": [{"const": STAY_EXPIRED}, GraceSection.model_json_schema()]}),
]


class ReturnsSection(Section):
    """What becomes of points when goods come back."""

    clawback: Clawback = Clawback.DEBT
    expired_lots: ExpiredLots = Field(default=None, json_schema_extra={"default": STAY_EXPIRED})


class GoodsSection(Section):
    """Goods that are in any of the lists."""

    skus: Words | None = None
    categories: Categories | None = None
    brands: Words | None = None
    tags: Words | None = None


class ScopeSection(GoodsSection):
    """The goods of a promotion; with more than one list, `match` says whether all or any has to fit."""

    match: Literal["all", "any"] | None = None
    but_not: GoodsSection | None = Field(default=None, alias="except")


class ExclusionsSection(Section):
    """Three separate sets of goods."""

    no_earning: GoodsSection | None = None
    no_discount: GoodsSection | None = None
    no_points_payment: GoodsSection | None = None


class OfflineSection(Section):
    """Receipts taken offline, a case each."""

    unknown_identifier: Literal["book_without_member", "refuse"] = "book_without_member"
    blocked_member: Literal["book_without_member", "book_for_member", "refuse"] = "book_without_member"
    replaced_card: Literal["book_for_successor", "book_without_member", "refuse"] = "book_for_successor"
    merged_member: Literal["book_for_successor", "book_without_member", "refuse"] = "book_for_successor"
    erased_member: Literal["book_without_member", "refuse"] = "book_without_member"


class ValidSection(Section):
    """First and last day, both included, on the store's calendar."""

    first: Day | None = Field(default=None, alias="from")
    last: Day | None = Field(default=None, alias="until")


class TotalSection(Section):
    """An amount of money: at least this, less than that."""

    at_least: Positive | None = None
    below: Positive | None = None


class BirthdaySection(Section):
    """Days around the birthday."""

    days_before: Annotated[Whole, Field(le=180)] = 0
    days_after: Annotated[Whole, Field(le=180)] = 0


class WhenSection(Section):
    """Conditions; all that are given have to hold. `all`, `any` and `not` nest."""

    receipt_total: TotalSection | None = None
    scope_total: TotalSection | None = None
    birthday: BirthdaySection | None = None
    every: Annotated[list[WhenSection], Field(min_length=1, max_length=MAX_PARTS)] | None = Field(
        default=None, alias="all"
    )
    some: Annotated[list[WhenSection], Field(min_length=1, max_length=MAX_PARTS)] | None = Field(
        default=None, alias="any"
    )
    no: WhenSection | None = Field(default=None, alias="not")


class LineDiscountSection(Section):
    """One of percent, amount (off each unit) and fixed_price (of each unit)."""

    percent: Off | None = None
    amount: Positive | None = None
    fixed_price: Number | None = None
    base: Base = Base.REMAINING


class BasketDiscountSection(Section):
    """One of percent and amount, spread over the goods in scope."""

    percent: Off | None = None
    amount: Positive | None = None
    base: Base = Base.REMAINING


class PointsSection(Section):
    """One of percent, multiplier and fixed; perhaps with dates of its own."""

    percent: Annotated[Number, Field(gt=0, le=1000)] | None = None
    multiplier: Annotated[Number, Field(gt=1, le=1000)] | None = None
    compound: Truth | None = None
    fixed: Positive | None = None
    per: Literal["receipt", "line", "unit"] | None = None
    pending_days: Annotated[Whole, Field(le=3650)] | None = None
    expiry: ExpirySection | None = None


class PromotionSection(Section):
    """One promotion."""

    id: Code
    name: Text
    scope: ScopeSection | None = None
    valid: ValidSection = ValidSection()
    when: WhenSection | None = None
    line_discount: LineDiscountSection | None = None
    basket_discount: BasketDiscountSection | None = None
    points: PointsSection | None = None
    priority: Whole = 100
    group: Code | None = None
    exclusive: Truth = False
    messages: dict[Audience, Text] = Field(default_factory=dict)


class ProgrammeSection(Section):
    """The whole file."""

    programme: Code
    name: Text
    effective_from: Day
    currency: Annotated[str, BeforeValidator(_text), Field(pattern=r"^[A-Z]{3}$")]
    point: PointSection
    earning: EarningSection = EarningSection()
    spending: SpendingSection = SpendingSection()
    returns: ReturnsSection = ReturnsSection()
    exclusions: ExclusionsSection = ExclusionsSection()
    offline: OfflineSection = OfflineSection()
    promotions: Annotated[list[PromotionSection], Field(max_length=MAX_PROMOTIONS)] = []


WhenSection.model_rebuild()


def json_schema() -> dict[str, Any]:
    """JSON Schema of a programme file, for editors that complete and check while typing."""
    return ProgrammeSection.model_json_schema(by_alias=True)
