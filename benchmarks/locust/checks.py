"""What must be true of an answer. Pure: a function for each call, which raises `WrongAnswer` with a readable text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from tallypoint.v1 import checkout_pb2, common_pb2


class WrongAnswer(Exception):
    """An answer that cannot be right.

    Args:
        what: What of it, in few words, the same for all mistakes of a kind.
        text: What it says, and what would have been right.
    """

    def __init__(self, what: str, text: str) -> None:
        super().__init__(f"wrong answer, {what}: {text}")
        self.what = what
        self._text = text

    def to(self, call: str) -> WrongAnswer:
        """Return the same with the call that it answered, so that it can be looked up."""
        return WrongAnswer(self.what, f"{self._text}; {call}")


class Points(NamedTuple):
    """A member's points of the programme's own unit, in minor units."""

    available: int = 0
    pending: int = 0
    held: int = 0
    debt: int = 0

    @classmethod
    def of(cls, balance: common_pb2.Balance) -> Self:
        """Read a balance."""
        return cls(
            balance.available_points_minor,
            balance.pending_points_minor,
            balance.held_points_minor,
            balance.debt_points_minor,
        )

    @classmethod
    def first(cls, balances: Sequence[common_pb2.Balance]) -> Self:
        """Read the programme's own unit, which stands first; a member who never had points has none."""
        return cls.of(balances[0]) if balances else cls()

    @property
    def net(self) -> int:
        """All points, less those owed."""
        return self.available + self.pending + self.held - self.debt

    @property
    def is_settled(self) -> bool:
        """Whether time alone changes nothing soon: nothing pending, nothing held."""
        return not self.pending and not self.held


class Wanted(NamedTuple):
    """What a receipt must come to: who bought it, what the quote promised, and the balance before it, if known."""

    member_id: str
    quote: checkout_pb2.QuoteResponse
    before: Points | None
    is_held: bool = False


def check_identified(answer: checkout_pb2.IdentifyResponse, member_id: str, before: Points | None) -> None:
    """Check that the right member was found, with the balance that the last answer left."""
    _equal("member", answer.member.member_id, member_id)
    _equal_if_known("balance", Points.first(answer.balances), before)


def check_quoted(
    answer: checkout_pb2.QuoteResponse, receipt: common_pb2.Receipt, member_id: str, before: Points | None
) -> None:
    """Check that discounts, prices and points add up, line by line and as a whole."""
    _equal("member", answer.member.member_id, member_id)
    if member_id:
        _equal_if_known("balance", Points.first(answer.balances), before)
    _equal("lines", [line.line_number for line in answer.lines], [line.line_number for line in receipt.lines])
    for line, effects in zip(receipt.lines, answer.lines, strict=True):
        discount = sum(part.amount_minor for part in effects.discounts)
        _equal("price of a line", effects.payable_minor, line.list_amount_minor - discount)
        _at_least("price of a line", effects.payable_minor, line.floor_amount_minor)
        _at_least("price of a line beside its points", effects.payable_minor, effects.points_money_minor)
    _equal("discount", answer.discount_minor, sum(p.amount_minor for e in answer.lines for p in e.discounts))
    _equal("sum to pay", answer.payable_minor, sum(effects.payable_minor for effects in answer.lines))
    _equal("points as money", answer.spend_money_minor, sum(effects.points_money_minor for effects in answer.lines))
    _equal(
        "points to earn",
        answer.accrual_points_minor,
        sum(part.points_minor for effects in answer.lines for part in effects.accruals if not part.unit),
    )
    _at_least("most points to spend", answer.max_spend_points_minor, answer.spend_points_minor)
    _at_least("sum to pay beside the most points", answer.payable_minor, answer.max_spend_money_minor)
    if member_id:
        _at_least("balance", Points.first(answer.balances).available, answer.spend_points_minor)


def check_held(answer: checkout_pb2.HoldResponse, quoted: checkout_pb2.QuoteResponse, before: Points | None) -> None:
    """Check that a hold keeps what the quote promised, and takes it from what can be spent."""
    _entry(answer.entry)
    _equal("points held", answer.held_points_minor, quoted.spend_points_minor)
    _equal("money of the points held", answer.held_money_minor, quoted.spend_money_minor)
    _equal("sum to pay", answer.quote.payable_minor, quoted.payable_minor)
    if before is not None:
        after = before._replace(
            available=before.available - answer.held_points_minor, held=before.held + answer.held_points_minor
        )
        _equal("balance", Points.first(answer.balances), after)


def check_cancelled(answer: checkout_pb2.CancelResponse, held_points_minor: int, before: Points | None) -> None:
    """Check that all that was held is free again."""
    _entry(answer.entry)
    _equal("points released", answer.released_points_minor, held_points_minor)
    _equal_if_known("balance", Points.first(answer.balances), before)


def check_committed(answer: checkout_pb2.CommitResponse, request: checkout_pb2.CommitRequest, wanted: Wanted) -> None:
    """Check that what was booked is what was quoted, and that the balance is the one before, moved by it.

    `wanted.before` is the balance with the hold counted, if there was one.
    """
    _entry(answer.entry)
    _equal("member", answer.member_id, wanted.member_id)
    settlement = answer.settlement
    _equal(
        "points asked for",
        settlement.spent_points_minor + settlement.left_out_points_minor,
        request.spend_points_minor,
    )
    _equal("coupons", _used(answer.coupons), _used(wanted.quote.coupons))
    if not wanted.member_id:
        _equal("points without a member", (settlement.accrual_points_minor, settlement.spent_points_minor), (0, 0))
        return
    if wanted.is_held:
        _equal("points captured", settlement.captured_points_minor, request.spend_points_minor)
    if not settlement.left_out_points_minor:
        _equal("points earned", settlement.accrual_points_minor, wanted.quote.accrual_points_minor)
        _equal("money of the points spent", settlement.spent_money_minor, wanted.quote.spend_money_minor)
    if wanted.before is not None:
        _equal("balance", Points.of(settlement.balance), _points_after(wanted.before, settlement))


def _points_after(before: Points, settlement: checkout_pb2.Settlement) -> Points:
    free_at_once = settlement.accrual_points_minor - settlement.pending_points_minor - settlement.debt_paid_points_minor
    from_balance = settlement.spent_points_minor - settlement.captured_points_minor
    return Points(
        before.available + free_at_once - from_balance + settlement.released_points_minor,
        before.pending + settlement.pending_points_minor,
        before.held - settlement.captured_points_minor - settlement.released_points_minor,
        before.debt - settlement.debt_paid_points_minor,
    )


class Left(NamedTuple):
    """What of a purchase has not come back yet: money in minor units, points spent and points earned."""

    money_minor: int
    spent_points_minor: int
    earned_points_minor: int


def check_returned(
    answer: checkout_pb2.ReturnResponse,
    lines: Iterable[tuple[int, int]],
    left: Left,
    before: Points | None,
    *,
    is_last: bool,
) -> Left:
    """Check a return of (line number, thousandths); return what of the purchase is left after it.

    Args:
        answer: The answer.
        lines: What comes back, line by line.
        left: What of the purchase has not come back yet.
        before: The member's balance before it, if known.
        is_last: Whether nothing is left after this one: then all money and points must be back, to the last unit.
    """
    _entry(answer.entry)
    _equal("goods that came back", [(line.line_number, line.quantity_milli) for line in answer.lines], list(lines))
    _equal("money back", answer.refund_money_minor, sum(line.refund_money_minor for line in answer.lines))
    _equal("points back", answer.refund_points_minor, sum(line.refund_points_minor for line in answer.lines))
    _equal("points taken", answer.clawback_points_minor, sum(line.clawback_points_minor for line in answer.lines))
    after = Left(
        left.money_minor - answer.refund_money_minor,
        left.spent_points_minor - answer.refund_points_minor,
        left.earned_points_minor - answer.clawback_points_minor,
    )
    if is_last:
        _equal("what is left of a purchase that is back", after, Left(0, 0, 0))
    _at_least("what is left of a purchase", min(after), 0)
    if before is not None:
        net = before.net + answer.refund_points_minor - answer.clawback_points_minor
        _equal("balance, less debt", Points.first(answer.balances).net, net)
    return after


def check_same(first: bytes, again: bytes) -> None:
    """Check that a receipt that was sent again got the very answer that it got at first, byte for byte."""
    if first != again:
        one, two = (checkout_pb2.CommitResponse.FromString(raw) for raw in (first, again))
        raise WrongAnswer("sent again", f"first {_short(one)}; then {_short(two)}")


def _entry(entry: common_pb2.EntryRef) -> None:
    if entry.number <= 0 or not entry.HasField("booked_at"):
        raise WrongAnswer("entry", f"an answer without an entry in the books: {_short(entry)}")


def _used(coupons: Iterable[common_pb2.CouponOutcome]) -> list[tuple[str, bool]]:
    return [(coupon.code, coupon.used) for coupon in coupons]


def _short(message: object) -> str:
    return " ".join(str(message).split())


def _equal(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongAnswer(what, f"{got}, not {wanted}")


def _equal_if_known(what: str, got: Points, wanted: Points | None) -> None:
    if wanted is not None:
        _equal(what, got, wanted)


def _at_least(what: str, got: int, least: int) -> None:
    if got < least:
        raise WrongAnswer(what, f"{got}, less than {least}")
