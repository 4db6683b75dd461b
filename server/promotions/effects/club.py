"""Clubs: paid membership, which whoever buys certain goods gets for some time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from server.promotions.arithmetic import add_days
from server.promotions.counts import Count
from server.promotions.effects.effect import EffectSection, FurtherEffect, Occasion
from server.promotions.schema.values import Code, wholes
from server.promotions.yaml_text import Path, Plain

if TYPE_CHECKING:  # it imports the rooms
    from server.promotions.load.context import Context


class ClubSection(EffectSection):
    """Paid membership: whoever buys goods in scope is a member."""

    name: Code
    """The club that promotions ask for with `club: ...`."""
    days: Annotated[int, wholes(at_least=1, at_most=3660)]
    """For so many days, or longer by them."""

    def checked(self, path: Path, context: Context) -> ClubJoin:  # noqa: ARG002 - each field has been checked by itself
        """Nothing goes beyond the fields."""
        return ClubJoin(self.name, self.days)


class Joined(NamedTuple):
    """A membership of a club; `until` is its last day."""

    promotion_id: str
    club: str
    until: date


@dataclass(frozen=True, slots=True)
class ClubJoin(FurtherEffect):
    """Paid membership: whoever buys goods in scope is in the club for `days`, today counted, or longer by them."""

    club: str
    days: int

    gives: ClassVar = Joined

    def give(self, occasion: Occasion) -> Joined:
        """A membership that begins today, or goes on from the day on which the present one ends."""
        until = occasion.facts.get(club_key(self.club)).until
        day_before = add_days(occasion.day, -1) if until is None or until < occasion.day else until
        return Joined(occasion.promotion_id, self.club, add_days(day_before, self.days))

    @staticmethod
    def counts(gave: Sequence[Joined]) -> Iterable[Count]:
        """Of several memberships of a club that one receipt gives, the longest."""
        longest: dict[str, date] = {}
        for joined in gave:
            longest[joined.club] = max(joined.until, longest.get(joined.club, joined.until))
        return [Count(club_key(club), times=1, until=until) for club, until in longest.items()]


def clubs_in(promotions: Iterable[dict[str, Plain]]) -> frozenset[str]:
    """The clubs that a file sells, as far as it can be read; conditions can ask for no other."""
    sections = [promotion.get("club") for promotion in promotions]
    names = [section.get("name") for section in sections if isinstance(section, dict)]
    return frozenset(name for name in names if isinstance(name, str))


def club_key(club: str) -> str:
    """The counter that a paid membership stands in; its `until` is the last day."""
    return f"club/{club}"
