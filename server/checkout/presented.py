"""Coupons that a shopper presents: which of them count, and what the cashier is told of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from tallypoint.v1 import common_pb2

from ledger.entry.model import CouponClaim
from server.base.errors import Refused
from server.promotions import CouponFact, Effects

COUPON_TEXTS: Final[Mapping[int, str]] = {
    common_pb2.REFUSAL_REASON_COUPON_UNKNOWN: "Nobody knows this coupon. Check the code.",
    common_pb2.REFUSAL_REASON_COUPON_USED: "This coupon was used already.",
    common_pb2.REFUSAL_REASON_COUPON_NOT_VALID: "This coupon is not valid today.",
    common_pb2.REFUSAL_REASON_COUPON_FOREIGN: "This coupon belongs to somebody else. Ask for the card it was sent to.",
    common_pb2.REFUSAL_REASON_COUPON_HELD_ELSEWHERE: "Another checkout uses this coupon. Finish or cancel there.",
    common_pb2.REFUSAL_REASON_COUPON_WITHOUT_EFFECT: "This coupon gives nothing on this receipt: give it back.",
}
"""What a cashier is told of a coupon that does not count."""


class Presented(NamedTuple):
    """Coupons as they were presented, and what of them counts.

    ``codes`` are normalised and stand in the order of the request; ``refused`` says why some do not count, and
    ``repeated`` has those that were presented more than once.
    """

    codes: tuple[str, ...] = ()
    usable: tuple[CouponFact, ...] = ()
    claims: tuple[CouponClaim, ...] = ()
    refused: Mapping[str, int] = {}
    repeated: tuple[str, ...] = ()

    def without(self, taken: Mapping[str, int]) -> Presented:
        """Return what counts when the books say, for some codes, why they do not."""
        gone = {code: reason for code, reason in taken.items() if reason}
        if not gone:
            return self
        usable = tuple(coupon for coupon in self.usable if coupon.code not in gone)
        return self._replace(usable=usable, refused={**self.refused, **gone})

    def outcomes(self, effects: Effects) -> list[common_pb2.CouponOutcome]:
        """Return what became of each coupon."""
        used = {coupon.code: coupon.promotion_ids for coupon in effects.coupons}
        return [self._outcome(code, used.get(code)) for code in self.codes]

    def _outcome(self, code: str, promotion_ids: tuple[str, ...] | None) -> common_pb2.CouponOutcome:
        if promotion_ids is not None:
            return common_pb2.CouponOutcome(code=code, used=True, promotion_ids=promotion_ids)
        reason = self.refused.get(code, common_pb2.REFUSAL_REASON_COUPON_WITHOUT_EFFECT)
        return common_pb2.CouponOutcome(code=code, reason=reason, text=COUPON_TEXTS[reason])  # type: ignore[arg-type]  # an int

    def used_claims(self, effects: Effects) -> tuple[CouponClaim, ...]:
        """Return the claims of those coupons that have an effect; generic codes have none."""
        used = {coupon.code for coupon in effects.coupons}
        return tuple(claim for claim in self.claims if claim.code in used)

    def refusal(self) -> Refused | None:
        """Return why the first coupon that does not count cannot be kept; None if all count."""
        for code in self.codes:
            reason = self.refused.get(code)
            if reason:
                return Refused(
                    reason,  # type: ignore[arg-type]  # an int
                    f"coupon {code} cannot be kept",
                    cashier_text=f"{code}: {COUPON_TEXTS[reason]}",
                    violations=[("coupon_codes", f"{code}: {COUPON_TEXTS[reason]}")],
                )
        return None


NOTHING: Final = Presented()
