"""Prize draws: a promotion gives entries, once a receipt or for each step of money."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from server.promotions.counts import Count
from server.promotions.effects.effect import EffectSection, FurtherEffect, Occasion
from server.promotions.schema.values import Code, Positive, wholes
from server.promotions.yaml_text import Path

if TYPE_CHECKING:  # it imports the rooms
    from server.promotions.load.context import Context

MOST_ENTRIES = 10**9
"""The most entries into a draw that a promotion gives on one receipt: they fit 32 bits."""


class DrawSection(EffectSection):
    """Entries into a prize draw."""

    name: Code
    """The draw."""
    entries: Annotated[int, wholes(at_least=1, at_most=10_000)] = 1
    """So many entries, once a receipt or for each step of money."""
    per_amount: Positive | None = None
    """For every full step of money paid for goods in scope; once a receipt if left out."""

    def checked(self, path: Path, context: Context) -> DrawEntry:
        """The step has the decimals of the currency."""
        return DrawEntry(self.name, self.entries, context.money(self.per_amount, (*path, "per_amount")))


class Drawn(NamedTuple):
    """Entries into a prize draw."""

    promotion_id: str
    draw: str
    entries: int


@dataclass(frozen=True, slots=True)
class DrawEntry(FurtherEffect):
    """Entries into a prize draw: `entries` once a receipt, or for every full `step_minor` paid in scope."""

    draw: str
    entries: int = 1
    step_minor: int | None = None

    gives: ClassVar = Drawn

    def give(self, occasion: Occasion) -> Drawn | None:
        """Entries; nothing if too little was paid for one."""
        steps = 1 if self.step_minor is None else occasion.paid_minor // self.step_minor
        entries = min(self.entries * steps, MOST_ENTRIES)
        return Drawn(occasion.promotion_id, self.draw, entries) if entries > 0 else None

    @staticmethod
    def counts(gave: Sequence[Drawn]) -> Iterable[Count]:
        """Entries add up, a draw at a time."""
        sums: dict[str, int] = {}
        for drawn in gave:
            sums[drawn.draw] = sums.get(drawn.draw, 0) + drawn.entries
        return [Count(draw_key(draw), times=entries) for draw, entries in sums.items()]


def draw_key(draw: str) -> str:
    """The counter of entries into a prize draw."""
    return f"draw/{draw}"
