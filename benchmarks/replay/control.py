"""Control totals: what the data set says was bought, against what the ledger says was booked.

One side is computed by pandas straight from the published table, past all that the replay does with it; the
other is read entry by entry through the back-office API.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from tallypoint.v1 import common_pb2, journal_pb2, ledger_pb2, ledger_pb2_grpc

from benchmarks.replay.client import bearing, call
from benchmarks.replay.dataset import Dataset, IntColumn
from benchmarks.replay.schedule import Schedule, business_date
from benchmarks.replay.seed import TIMEOUT_SECONDS, BackOffice

if TYPE_CHECKING:
    import pandas as pd

ENTRIES_PER_PAGE: Final = 500
ACCEPTED: Final = "accepted"
MAX_SHOWN_DIFFERENCES: Final = 5


class Bought(NamedTuple):
    """What one member bought; money in minor units."""

    receipts: int
    lines: int
    turnover_minor: int


class Key(NamedTuple):
    """A receipt's business key."""

    store_id: str
    terminal_id: str
    business_date: str
    receipt_number: int


Keys = Mapping[Key, int]
"""Baskets by the business keys of their receipts."""


def keys_of(dataset: Dataset, schedule: Schedule, selection: IntColumn) -> Keys:
    """The keys of the selected baskets' receipts."""
    return {
        Key(
            str(dataset.store_id[index]),
            f"T{dataset.terminal_number[index]}",
            business_date(dataset, index),
            int(schedule.receipt_number[index]),
        ): int(dataset.basket_id[index])
        for index in selection.tolist()
    }


@dataclass
class Books:
    """What stands in the ledger. `bought` has replayed receipts only."""

    bought: dict[str, Bought] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    """Baskets that stand in the ledger more than once."""
    variances: int = 0
    """Lines on which the register gave another discount than the rules."""
    discount_minor: int = 0
    accrual_points_minor: int = 0
    """Points that all receipts' answers said were earned, the other receipts included."""
    spent_points_minor: int = 0
    """Points that all receipts' answers said were spent, the other receipts included."""
    returns: int = 0
    refund_money_minor: int = 0
    refund_points_minor: int = 0
    clawback_points_minor: int = 0
    """Points taken back, those that became a debt among them."""
    coupons: Counter[str] = field(default_factory=Counter)
    """What became of the coupons presented: `ACCEPTED`, or the reason why not."""
    coupon_discount_minor: int = 0
    """What promotions took off because of a coupon."""


@dataclass(frozen=True)
class CouponTotals:
    """Coupons that were redeemed in the data set, what became of them when they were presented, and what they gave."""

    redeemed: int
    outcomes: Mapping[str, int]
    discount_minor: int


@dataclass(frozen=True)
class PointTotals:
    """The programme's points since the ledger began, in minor units of a point."""

    issued: int
    redeemed: int
    expired: int
    outstanding: int


def from_data_set(
    transactions: pd.DataFrame, basket_ids: Collection[int], member_of: Callable[[int], str]
) -> dict[str, Bought]:
    """What each member bought in these baskets, from the data set's own table."""
    chosen = transactions[transactions["basket_id"].isin(list(basket_ids))]
    cents = (chosen["sales_value"] * 100).round().astype("int64")
    table = (
        chosen.assign(cents=cents)
        .groupby("household_id")
        .agg(receipts=("basket_id", "nunique"), lines=("basket_id", "size"), turnover=("cents", "sum"))
    )
    return {
        member_of(int(str(row.Index))): Bought(int(str(row.receipts)), int(str(row.lines)), int(str(row.turnover)))
        for row in table.itertuples()
    }


async def from_ledger(office: BackOffice, keys: Keys, on_read: Callable[[int], None]) -> Books:
    """Read every entry of every book; `on_read` is called with the number of entries of each page."""
    books, seen = Books(), set[int]()
    stub = ledger_pb2_grpc.LedgerServiceStub(office.channel)
    list_entries = bearing(stub.ListEntries, office.key, TIMEOUT_SECONDS)

    async def read(book: int) -> None:
        after = 0
        while True:
            request = ledger_pb2.ListEntriesRequest(book=book, after_number=after, page_size=ENTRIES_PER_PAGE)
            page = await call(office.counters, list_entries, "ListEntries", request)
            for entry in page.entries:
                which = entry.event.WhichOneof("event")
                if which == "purchase":
                    _add(books, entry.event, keys, seen)
                elif which == "goods_return":
                    _add_return(books, entry.event)
            on_read(len(page.entries))
            if len(page.entries) < ENTRIES_PER_PAGE:
                return
            after = page.entries[-1].ref.number

    await asyncio.gather(*(read(head.book) for head in await heads(office)))
    return books


async def heads(office: BackOffice) -> list[ledger_pb2.BookHead]:
    """The heads of all books."""
    stub = ledger_pb2_grpc.LedgerServiceStub(office.channel)
    list_books = bearing(stub.ListBooks, office.key, TIMEOUT_SECONDS)
    return list((await call(office.counters, list_books, "ListBooks", ledger_pb2.ListBooksRequest())).books)


async def entry_count(office: BackOffice) -> int:
    """How many entries the ledger has."""
    return sum(head.number for head in await heads(office))


async def point_totals(office: BackOffice) -> PointTotals:
    """Sum up the programme's daily totals."""
    stub = ledger_pb2_grpc.LedgerServiceStub(office.channel)
    list_totals = bearing(stub.ListTotals, office.key, TIMEOUT_SECONDS)
    response = await call(office.counters, list_totals, "ListTotals", ledger_pb2.ListTotalsRequest())
    net = dict.fromkeys(journal_pb2.Account.values(), 0)
    for total in response.totals:
        net[total.account] += total.credit_points_minor - total.debit_points_minor
    return PointTotals(
        issued=-net[journal_pb2.ACCOUNT_ISSUED],
        redeemed=net[journal_pb2.ACCOUNT_REDEEMED],
        expired=net[journal_pb2.ACCOUNT_EXPIRED],
        outstanding=net[journal_pb2.ACCOUNT_AVAILABLE]
        + net[journal_pb2.ACCOUNT_PENDING]
        + net[journal_pb2.ACCOUNT_HELD]
        + net[journal_pb2.ACCOUNT_DEBT],
    )


def differences(expected: dict[str, Bought], booked: dict[str, Bought]) -> list[str]:
    """In words, the members whose bookings are not what they bought; none if all are."""
    nothing = Bought(0, 0, 0)
    wrong = [
        (member, expected.get(member, nothing), booked.get(member, nothing))
        for member in sorted(expected.keys() | booked.keys())
        if expected.get(member, nothing) != booked.get(member, nothing)
    ]
    shown = [f"member {member}: {_words(should)} bought, {_words(does)} booked" for member, should, does in wrong]
    if len(shown) > MAX_SHOWN_DIFFERENCES:
        shown[MAX_SHOWN_DIFFERENCES:] = [f"and {len(shown) - MAX_SHOWN_DIFFERENCES} more members"]
    return shown


def _words(bought: Bought) -> str:
    return f"{bought.receipts} receipts, {bought.lines} lines, {bought.turnover_minor} minor units"


def summed(bought: dict[str, Bought]) -> Bought:
    """All members together."""
    return Bought(*(sum(column) for column in zip(*bought.values(), strict=True))) if bought else Bought(0, 0, 0)


def _add_return(books: Books, event: journal_pb2.Event) -> None:
    settlement = event.settlement
    books.returns += 1
    books.refund_money_minor += event.goods_return.refund_money_minor
    books.refund_points_minor += settlement.refund_points_minor
    books.clawback_points_minor += settlement.clawback_points_minor + settlement.clawback_debt_points_minor


def _add(books: Books, event: journal_pb2.Event, keys: Keys, seen: set[int]) -> None:
    purchase, key = event.purchase, event.purchase.receipt_key
    basket_id = keys.get(Key(key.store_id, key.terminal_id, key.business_date, key.receipt_number))
    books.accrual_points_minor += event.settlement.accrual_points_minor
    books.spent_points_minor += event.settlement.spent_points_minor
    if basket_id is None:
        return
    if basket_id in seen:
        books.twice.append(basket_id)
    seen.add(basket_id)
    lines = purchase.receipt.lines
    before = books.bought.get(purchase.member_id, Bought(0, 0, 0))
    turnover = sum(line.list_amount_minor for line in lines)
    books.bought[purchase.member_id] = Bought(
        before.receipts + 1, before.lines + len(lines), before.turnover_minor + turnover
    )
    _add_coupons(books, purchase)
    books.variances += len(purchase.variances)
    books.discount_minor += sum(line.discount_minor for line in lines)


def _add_coupons(books: Books, purchase: journal_pb2.Purchase) -> None:
    given = set[str]()
    for coupon in purchase.coupons:
        reason = common_pb2.RefusalReason.Name(coupon.reason).removeprefix("REFUSAL_REASON_")
        books.coupons[ACCEPTED if coupon.used else reason] += 1
        given.update(coupon.promotion_ids)
    books.coupon_discount_minor += sum(
        part.amount_minor for line in purchase.effects for part in line.discounts if part.promotion_id in given
    )
