"""Entries into prize draws, in messages."""

from __future__ import annotations

from collections.abc import Iterator

from tallypoint.v1 import checkout_pb2, journal_pb2

from server.promotions import Effects
from server.promotions.effects.draw import DrawEntry, Drawn
from server.rules.effects.room import Messages


class DrawMessages(Messages[DrawEntry]):
    """The entries that a receipt gives, each with its promotion."""

    def record(self, purchase: journal_pb2.Purchase, effects: Effects) -> None:
        """Write the entries."""
        purchase.draws.extend(_entries(effects))

    def rest(self, given: journal_pb2.Given, effect: DrawEntry) -> None:
        """Write the money of an entry each: entries come back with steps that are left no more."""
        given.draw_step_minor = effect.step_minor or 0

    def promise(self, quote: checkout_pb2.QuoteResponse, effects: Effects) -> None:
        """Write the entries."""
        quote.draws.extend(_entries(effects))

    def answer(self, response: checkout_pb2.CommitResponse, purchase: journal_pb2.Purchase) -> None:
        """Copy the entries."""
        if purchase.draws:
            response.draws.extend(purchase.draws)

    def compared(self, purchase: journal_pb2.Purchase, effects: Effects) -> Iterator[tuple[str, object, object]]:
        """Yield the entries."""
        stored = [(one.promotion_id, one.draw, one.entries) for one in purchase.draws]
        yield "draws", stored, [(one.promotion_id, one.draw, one.entries) for one in effects.of(Drawn)]


def _entries(effects: Effects) -> Iterator[checkout_pb2.DrawEntries]:
    for drawn in effects.of(Drawn):
        yield checkout_pb2.DrawEntries(draw=drawn.draw, entries=drawn.entries, promotion_id=drawn.promotion_id)
