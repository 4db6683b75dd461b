"""What every room of this folder has: a section of the file that checks itself, and an effect that gives.

A room has the whole of one effect: the file (an `EffectSection`), its checks (`checked`), what compiled promotions hold
(a `FurtherEffect`), its application (`give`), its record (what it `gives`, and what that `counts`). What it gives names
its promotion, which is what `explain` asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from server.promotions.counts import Count
from server.promotions.schema.goods import Section
from server.promotions.yaml_text import Path

if TYPE_CHECKING:  # they import the rooms
    from server.promotions.conditions import Facts
    from server.promotions.load.context import Context


class Gave(Protocol):
    """What an effect gave on one receipt, as plain data: a named tuple of its room."""

    @property
    def promotion_id(self) -> str:
        """The promotion that gave it."""


class Occasion(NamedTuple):
    """A promotion that holds on a receipt with goods of its scope: what its effects may know.

    `paid_minor` was paid for these goods, in minor units of money. Counters that are read from `facts` are noted.
    """

    promotion_id: str
    day: date
    paid_minor: int
    facts: Facts


class EffectSection(Section):
    """An effect as it stands in the file."""

    def checked(self, path: Path, context: Context) -> FurtherEffect:
        """The effect; what does not fit the rest of the file is noted in the context. `path` is where it stands."""
        raise NotImplementedError


class FurtherEffect(ABC):
    """What a promotion gives once a receipt beside discounts and points."""

    __slots__ = ()

    gives: ClassVar[type[Any]]
    """The plain data of what it gave."""

    @abstractmethod
    def give(self, occasion: Occasion) -> Gave | None:
        """What it gives on a receipt; None: nothing."""

    @staticmethod
    def counts(gave: Sequence[Any]) -> Iterable[Count]:  # noqa: ARG004 - most that give count nothing
        """What all that one receipt `gave` of this effect adds to the member's counters."""
        return ()
