"""Coupons for later: a promotion gives the member coupons of a series, which other promotions ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from server.promotions.arithmetic import add_days
from server.promotions.effects.effect import EffectSection, FurtherEffect, Occasion
from server.promotions.schema.values import Name, wholes
from server.promotions.yaml_text import Path

if TYPE_CHECKING:  # it imports the rooms
    from server.promotions.load.context import Context


class IssueCouponSection(EffectSection):
    """Coupons for a later receipt, for this member alone."""

    series: Name
    """The series that promotions ask for with `coupon: {series: ...}`."""
    quantity: Annotated[int, wholes(at_least=1, at_most=20)] = 1
    """How many coupons."""
    starts_after_days: Annotated[int, wholes(at_most=3650)] = 0
    """They can be used so many days later: 1 means from tomorrow on."""
    valid_days: Annotated[int, wholes(at_least=1, at_most=3650)] | None = None
    """For so many days, the first one counted; without end if left out."""

    def checked(self, path: Path, context: Context) -> CouponIssue:  # noqa: ARG002 - each field has been checked by itself
        """Nothing goes beyond the fields."""
        return CouponIssue(self.series, self.quantity, self.starts_after_days, self.valid_days)


class IssuedCoupon(NamedTuple):
    """Coupons that a promotion gives for later."""

    promotion_id: str
    series: str
    quantity: int
    valid_from: date
    valid_until: date | None


@dataclass(frozen=True, slots=True)
class CouponIssue(FurtherEffect):
    """Coupons for a later receipt: `quantity` of a series, for the member alone."""

    series: str
    quantity: int = 1
    starts_after_days: int = 0
    valid_days: int | None = None

    gives: ClassVar = IssuedCoupon

    def give(self, occasion: Occasion) -> IssuedCoupon:
        """The coupons with their first and last day; the register's answer adds codes."""
        first = add_days(occasion.day, self.starts_after_days)
        last = None if self.valid_days is None else add_days(first, self.valid_days - 1)
        return IssuedCoupon(occasion.promotion_id, self.series, self.quantity, first, last)
