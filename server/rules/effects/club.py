"""Paid membership, in messages: it counts in the member's counters, so only a return has to be told of it."""

from __future__ import annotations

from tallypoint.v1 import journal_pb2

from server.promotions.effects.club import ClubJoin
from server.rules.effects.room import Messages


class ClubMessages(Messages[ClubJoin]):
    """The membership that comes back with the goods."""

    def rest(self, given: journal_pb2.Given, effect: ClubJoin) -> None:
        """Write the club, and for how many days."""
        given.club, given.club_days = effect.club, effect.days
