"""What every room of this folder may have: where messages tell of an effect. Not in one of them: nothing to tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from tallypoint.v1 import checkout_pb2, journal_pb2

from server.promotions import Effects
from server.promotions.effects.effect import FurtherEffect

E = TypeVar("E", bound=FurtherEffect)


class Messages(Generic[E]):
    """How one effect stands in the journal and in answers."""

    def record(self, purchase: journal_pb2.Purchase, effects: Effects) -> None:
        """Write into the journal what it gave on a receipt."""

    def rest(self, given: journal_pb2.Given, effect: E) -> None:
        """Write into the journal what of the effect itself a return needs to take back what it gave."""

    def promise(self, quote: checkout_pb2.QuoteResponse, effects: Effects) -> None:
        """Write into a quote what it would give to the member."""

    def answer(self, response: checkout_pb2.CommitResponse, purchase: journal_pb2.Purchase) -> None:
        """Copy from the journal into the answer what it gave."""

    def compared(self, purchase: journal_pb2.Purchase, effects: Effects) -> Iterator[tuple[str, object, object]]:  # noqa: ARG002 - for those that record something
        """Yield what the journal stores and what was computed again, with its name."""
        yield from ()
