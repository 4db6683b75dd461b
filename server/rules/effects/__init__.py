"""Further effects of promotions in messages: a room for each that tells more than what it counts, and all of them.

Rooms of the same name in server.promotions.effects have all else; promotions know no messages.
"""

from __future__ import annotations

from typing import Any, Final

from server.promotions.effects.club import ClubJoin
from server.promotions.effects.coupon import CouponIssue
from server.promotions.effects.draw import DrawEntry
from server.promotions.effects.effect import FurtherEffect
from server.rules.effects.club import ClubMessages
from server.rules.effects.coupon import CouponMessages
from server.rules.effects.draw import DrawMessages
from server.rules.effects.room import Messages

ROOMS: Final[dict[type[FurtherEffect], Messages[Any]]] = {
    CouponIssue: CouponMessages(),
    DrawEntry: DrawMessages(),
    ClubJoin: ClubMessages(),
}
"""The messages of each effect."""
