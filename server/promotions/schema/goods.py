"""Sections that name goods, days and amounts; parts of other sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.promotions.kinds import Period
from server.promotions.schema.values import Categories, Count, Day, Positive, Whole, Words, wholes


class Section(BaseModel):
    """Base of all sections: unknown fields are errors; a field's docstring is what editors show."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class GoodsSection(Section):
    """Goods that are in any of the lists."""

    skus: Words | None = None
    """Articles by SKU, exactly as the register sends them."""
    categories: Categories | None = None
    """Category paths such as dairy/cheese; each covers everything below it."""
    brands: Words | None = None
    """Brands."""
    suppliers: Words | None = None
    """Suppliers."""
    tags: Words | None = None
    """Tags of the catalogue or of the receipt line."""


class ScopeSection(GoodsSection):
    """The goods of a promotion; with more than one list, `match` says whether all or any has to fit."""

    match: Literal["all", "any"] | None = None
    """With several lists: a line has to be found in all of them, or in any."""
    but_not: GoodsSection | None = Field(default=None, alias="except")
    """Goods that are taken out again."""


class DatesSection(Section):
    """First and last day, both included, on the store's calendar."""

    first: Day | None = Field(default=None, alias="from")
    """The first day."""
    last: Day | None = Field(default=None, alias="until")
    """The last day."""


class ExpirySection(Section):
    """Either a fixed day, or a duration in months and days, optionally rounded up."""

    on: Day | None = None
    """The last good day."""
    after_months: Annotated[int, wholes(at_most=1200)] | None = None
    """Calendar months after the points become available."""
    after_days: Annotated[int, wholes(at_most=36500)] | None = None
    """Days after the points become available (after the months)."""
    round_up_to: Period | None = None
    """Round the day up to the end of this period."""


class AmountSection(Section):
    """An amount of money: at least this, less than that."""

    at_least: Positive | None = None
    """This much or more."""
    below: Positive | None = None
    """Less than this."""


class CountSection(Section):
    """A whole number: at least this, less than that."""

    at_least: Count | None = None
    """This many or more."""
    below: Count | None = None
    """Fewer than this."""


class WeightSection(Section):
    """A weight in kilograms (or litres), with up to three decimals: at least this, less than that."""

    at_least: Positive | None = None
    """This much or more."""
    below: Positive | None = None
    """Less than this."""


class DaysSection(Section):
    """Days: at least so many, fewer than so many."""

    at_least: Whole | None = None
    """This many or more."""
    below: Count | None = None
    """Fewer than this."""
