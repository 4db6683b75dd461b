"""What promotions give once a receipt beside discounts and points: an effect a room, and the list of all rooms.

A new effect is a module like `draw`, and a field in each of the two classes below: one as it stands in the file, one as
a promotion has it, of the same name. All else goes through these lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from pydantic import Field

from server.promotions.counts import Count
from server.promotions.effects.club import ClubJoin, ClubSection
from server.promotions.effects.coupon import CouponIssue, IssueCouponSection
from server.promotions.effects.draw import DrawEntry, DrawSection
from server.promotions.effects.effect import FurtherEffect, Gave
from server.promotions.schema.goods import Section
from server.promotions.yaml_text import Path

if TYPE_CHECKING:  # it imports the rooms
    from server.promotions.load.context import Context


class FurtherSections(Section):
    """The effects of a promotion in the file, in the order in which they are shown, given and counted."""

    coupon: IssueCouponSection | None = Field(default=None, alias="issue_coupon")
    """Coupons for a later receipt."""
    draw: DrawSection | None = None
    """Entries into a prize draw."""
    club: ClubSection | None = None
    """Buying goods in scope makes somebody a member of a club."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherEffects:
    """The same as a promotion has them."""

    coupon: CouponIssue | None = None
    draw: DrawEntry | None = None
    club: ClubJoin | None = None

    def further(self) -> tuple[FurtherEffect, ...]:
        """Those that a promotion has."""
        return tuple(effect for name in WORDS.values() if (effect := getattr(self, name)) is not None)


WORDS: Final = {field.alias or name: name for name, field in FurtherSections.model_fields.items()}
"""The word of each effect in the file, and the name of its field in both classes."""

KINDS: Final = tuple(get_args(hint)[0] for hint in get_type_hints(FurtherEffects).values())
"""The class of each effect."""


def checked(sections: FurtherSections, path: Path, context: Context) -> dict[str, Any]:
    """The effects of a promotion that stands at `path`, by their names in `FurtherEffects`."""
    given = ((word, name, getattr(sections, name)) for word, name in WORDS.items())
    return {name: section.checked((*path, word), context) for word, name, section in given if section is not None}


def counts_of(gave: Iterable[Gave]) -> Iterable[Count]:
    """What all that one receipt gave adds to the member's counters, an effect after the other."""
    gave = list(gave)
    for kind in KINDS:
        yield from kind.counts([one for one in gave if type(one) is kind.gives])
