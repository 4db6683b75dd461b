"""The data set's receipts for `tallypoint rules backtest --dataset`: households are members, without coupons."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from benchmarks.replay.dataset import CURRENCY, TIME_ZONE, Basket, DatasetMissing, load
from benchmarks.replay.people import REGISTERED_AT, CardShape, person
from server.promotions import MemberFacts, ReceiptFacts, ReceiptLine
from server.rules.backtest.run import BacktestError
from server.rules.backtest.simulation import Case

_BASKETS_PER_BATCH = 500
_ZONE = ZoneInfo(TIME_ZONE)

_Goods = dict[str, tuple[str, str, tuple[str, ...]]]
"""Category, brand and tags by SKU."""


def cases(month: str | None, limit: int | None, part: int, parts: int) -> Iterator[tuple[int, list[Case | str]]]:
    """Yield one part of the receipts of a month (YYYY-MM; None is the year), oldest first, a batch at a time.

    A household's receipts are all in one part. With each batch comes how many receipts of all parts were passed; the
    first is empty and comes with how many there are.

    Raises:
        BacktestError: the data are not installed, or have no such month.
    """
    try:
        dataset = load()
        selection = dataset.select(month, limit)
    except (DatasetMissing, ValueError) as error:
        raise BacktestError(str(error)) from error
    goods: _Goods = {one.sku: (one.category, one.brand, one.tags) for one in dataset.products}
    members: dict[int, MemberFacts] = {}
    yield len(selection), []
    for start in range(0, len(selection), _BASKETS_PER_BATCH):
        piece = selection[start : start + _BASKETS_PER_BATCH]
        mine = piece[dataset.household_id[piece] % parts == part]
        baskets = (dataset.basket(int(index)) for index in mine)
        yield len(piece), [_case(basket, goods, members) for basket in baskets]


def _case(basket: Basket, goods: _Goods, members: dict[int, MemberFacts]) -> Case | str:
    lines = tuple(
        ReceiptLine(
            number, *_goods_of_sku(goods, line.sku), line.quantity_milli, line.list_amount_minor, 0, line.weighed
        )
        for number, line in enumerate(basket.lines, start=1)
        if line.quantity_milli
    )
    if not lines:
        return "nothing was sold"
    member = members.get(basket.household_id)
    if member is None:
        member = members[basket.household_id] = _member(basket.household_id)
    local_at = datetime.fromtimestamp(basket.event_seconds, UTC).astimezone(_ZONE)
    receipt = ReceiptFacts(basket.store_id, local_at, lines)
    return Case(f"basket {basket.basket_id}", CURRENCY, receipt, member)


def _goods_of_sku(goods: _Goods, sku: str) -> tuple[str, str, str, str, tuple[str, ...]]:
    category, brand, tags = goods.get(sku, ("", "", ()))
    return sku, category, brand, "", tags


def _member(household_id: int) -> MemberFacts:
    known = person(household_id, CardShape())
    return MemberFacts(str(known.member_id), known.birthday, registered_on=REGISTERED_AT.date())
