"""What a register knows: its own shoppers and coupons, what it sold, and the receipts that it prints.

Shoppers are shared out among the registers, so that each balance is known to the one that last moved it, and every
answer can be checked against it.
"""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, common_pb2

from benchmarks.locust.checks import Left, Points
from benchmarks.locust.prepared import Prepared, Shopper, receipt_of

PHONE_SHARE: Final = 0.3
"""How many of those who have a phone number say it instead of showing the card."""
MOST_QUOTES: Final = 4
"""A basket is quoted at most so often while it grows."""
_RECEIPTS_KEPT: Final = 50
_PART_BACK_SHARE: Final = 0.5
_MILLISECONDS: Final = 1000


@dataclass
class Sold:
    """A receipt that was booked, and what of it has not come back yet."""

    request: checkout_pb2.CommitRequest
    answer: bytes
    shopper: Shopper | None
    left: Left
    quantities_milli: dict[int, int] = field(default_factory=dict)
    """By line number; lines that are back are not in it."""


class Lane:
    """One terminal. It never serves two shoppers at once."""

    def __init__(self, prepared: Prepared, number: int) -> None:
        """Take terminal `number` of those prepared, with its share of shoppers and coupons."""
        count = len(prepared.terminals)
        self.terminal = prepared.terminals[number]
        self.chance = random.Random()  # noqa: S311  - goods, not secrets
        self._prepared = prepared
        self._shoppers = list(prepared.shoppers[number::count]) or list(prepared.shoppers)
        self._turn = self.chance.randrange(len(self._shoppers))
        self._coupons = deque(prepared.serial_coupons[number::count])
        # Numbers that no earlier run gave: milliseconds of the clock, since a lane sells less than one a millisecond.
        self._numbers = itertools.count(int(time.time() * _MILLISECONDS))
        self._known: dict[str, Points] = {}
        self._sold: deque[Sold] = deque(maxlen=_RECEIPTS_KEPT)

    # --- shoppers ---

    def next_shopper(self) -> Shopper:
        """Return the member who is next in the queue."""
        self._turn = (self._turn + 1) % len(self._shoppers)
        return self._shoppers[self._turn]

    def shopper_with_points(self, least_minor: int) -> Shopper:
        """Return the next member who has that many points to spend, or else the next one."""
        for _ in self._shoppers:
            shopper = self.next_shopper()
            if self._known.get(shopper.member_id, Points()).available >= least_minor:
                return shopper
        return self.next_shopper()

    def identifier(self, shopper: Shopper) -> common_pb2.Identifier:
        """Return what the shopper shows: the card, or now and then the phone number."""
        if shopper.phone and self.chance.random() < PHONE_SHARE:
            return common_pb2.Identifier(phone=shopper.phone)
        return common_pb2.Identifier(card_number=shopper.card_number)

    def unknown_card(self) -> common_pb2.Identifier:
        """Return a card that nobody has."""
        return common_pb2.Identifier(card_number=self.chance.choice(self._prepared.unknown_cards))

    def coupon(self) -> str:
        """Return a code: one that counts once, as long as there are any, or one that everybody may use; or none."""
        if self._coupons and self.chance.random() < 1 / 2:
            return self._coupons.popleft()
        return self.chance.choice(self._prepared.generic_coupons) if self._prepared.generic_coupons else ""

    # --- balances ---

    def known(self, shopper: Shopper | None) -> Points | None:
        """Return the shopper's balance as the last answer told it; None if that may have changed since."""
        return self._known.get(shopper.member_id) if shopper else None

    def learn(self, shopper: Shopper | None, points: Points) -> None:
        """Keep a balance, unless time alone may change it."""
        if shopper is None:
            return
        if points.is_settled:
            self._known[shopper.member_id] = points
        else:
            self.forget(shopper)

    def forget(self, shopper: Shopper | None) -> None:
        """Know nothing of a shopper any more: a call about them had no answer."""
        if shopper is not None:
            self._known.pop(shopper.member_id, None)

    # --- receipts ---

    def basket(self) -> common_pb2.Receipt:
        """Return the next shopper's goods as a receipt of this moment."""
        goods = self.chance.choice(self._prepared.baskets)
        return receipt_of(goods, self._prepared.currency, int(time.time()))

    def growing(self, receipt: common_pb2.Receipt) -> Sequence[common_pb2.Receipt]:
        """Return the receipt as it is quoted while it is scanned; the last one is the whole."""
        lines = len(receipt.lines)
        quotes = min(lines, self.chance.randint(1, MOST_QUOTES))
        stages = []
        for stage in range(1, quotes):
            part = common_pb2.Receipt()
            part.CopyFrom(receipt)
            del part.lines[lines * stage // quotes :]
            stages.append(part)
        return [*stages, receipt]

    def checkout_key(self) -> checkout_pb2.CheckoutKey:
        """Return the key of a new checkout."""
        return checkout_pb2.CheckoutKey(
            store_id=self.terminal.store_id, terminal_id=self.terminal.terminal_id, checkout_id=str(uuid.uuid4())
        )

    def commit(
        self, identifier: common_pb2.Identifier | None, receipt: common_pb2.Receipt, quote: checkout_pb2.QuoteResponse
    ) -> checkout_pb2.CommitRequest:
        """Return a receipt paid as it was quoted: its discounts, its points, the rest by bank card."""
        paid = common_pb2.Receipt()
        paid.CopyFrom(receipt)
        for line, effects in zip(paid.lines, quote.lines, strict=True):
            line.discount_minor = sum(part.amount_minor for part in effects.discounts)
        if quote.spend_money_minor:
            paid.tenders.add(kind=common_pb2.TENDER_KIND_POINTS, amount_minor=quote.spend_money_minor)
        money_minor = quote.payable_minor - quote.spend_money_minor
        paid.tenders.add(kind=common_pb2.TENDER_KIND_CARD, amount_minor=money_minor)
        return checkout_pb2.CommitRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self._receipt_key(),
            identifier=identifier,
            receipt=paid,
            spend_points_minor=quote.spend_points_minor,
            quoted_programme_version=quote.programme_version,
            coupon_codes=[coupon.code for coupon in quote.coupons],
        )

    def keep(self, request: checkout_pb2.CommitRequest, answer: bytes, shopper: Shopper | None) -> None:
        """Remember a receipt that was booked."""
        settlement = checkout_pb2.CommitResponse.FromString(answer).settlement
        price_minor = sum(line.list_amount_minor - line.discount_minor for line in request.receipt.lines)
        left = Left(
            price_minor - settlement.spent_money_minor, settlement.spent_points_minor, settlement.accrual_points_minor
        )
        quantities = {line.line_number: line.quantity_milli for line in request.receipt.lines}
        self._sold.append(Sold(request, answer, shopper, left, quantities))

    def any_sold(self) -> Sold | None:
        """Return a receipt that was booked here, or None if there is none yet."""
        return self.chance.choice(self._sold) if self._sold else None

    def goods_back(self, sold: Sold) -> list[tuple[int, int]]:
        """Return what comes back of a receipt, as (line number, thousandths): one line, or all that is left."""
        lines = sorted(sold.quantities_milli.items())
        if len(lines) > 1 and self.chance.random() < _PART_BACK_SHARE:
            return [self.chance.choice(lines)]
        return lines

    def return_of(self, sold: Sold, lines: Sequence[tuple[int, int]]) -> checkout_pb2.ReturnRequest:
        """Return the message by which goods come back."""
        return checkout_pb2.ReturnRequest(
            message_id=str(uuid.uuid4()),
            receipt_key=self._receipt_key(),
            purchase_key=sold.request.receipt_key,
            event_at=Timestamp(seconds=int(time.time())),
            lines=[checkout_pb2.ReturnedLine(line_number=line, quantity_milli=quantity) for line, quantity in lines],
        )

    def _receipt_key(self) -> common_pb2.ReceiptKey:
        return common_pb2.ReceiptKey(
            store_id=self.terminal.store_id,
            terminal_id=self.terminal.terminal_id,
            business_date=datetime.now(UTC).date().isoformat(),
            receipt_number=next(self._numbers),
        )


def sent_again(request: checkout_pb2.CommitRequest) -> checkout_pb2.CommitRequest:
    """Return the same receipt in a new message, as registers resend it."""
    again = checkout_pb2.CommitRequest()
    again.CopyFrom(request)
    again.message_id = str(uuid.uuid4())
    return again
