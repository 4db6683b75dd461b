"""Receipts that an older release let spend more than their goods allowed: named as known, explained, and returnable.

Such entries were booked as the register asked, of semantics 0; their books were BAD for good once the goods came back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import asyncpg
import pytest
from tallypoint.v1 import journal_pb2
from typer.testing import CliRunner

from ledger.entry import semantics
from ledger.entry.keys import business_key
from ledger.entry.model import Booked
from ledger.reading.lookups import read_receipts
from ledger.rebuild import rebuild
from ledger.verify import BookReport, record_checkpoints, verify, verify_since
from server.commands.ledger import app
from tests.support.books import START, BooksUnderTest, open_test_books
from tests.support.commands import Line, goods_return, member, purchase, receipt_key

ANNA = member("anna")


class Overspent(NamedTuple):
    """What an old release booked: lines as (price, what points might pay), what points paid, and what comes back.

    ``old_money`` is what its returns gave back in money, ``money`` what is right; ``allowed`` what the goods allowed.
    """

    lines: Sequence[tuple[int, int]]
    spent: int
    allowed: int
    old_money: int
    money: int


CASES = {
    "more than the goods cost": Overspent([(1000, 1000)], 10_000, 1000, 0, 0),
    "more than two lines cost": Overspent([(700, 700), (300, 300)], 10_000, 1000, 0, 0),
    "for excluded goods too": Overspent([(600, 600), (400, 0)], 800, 600, 400, 200),
    "for excluded goods only": Overspent([(1000, 0)], 800, 0, 200, 200),
    "below the lowest price": Overspent([(1000, 300), (500, 500)], 1200, 800, 550, 300),
    "for everything, and more": Overspent([(600, 600), (400, 0)], 5000, 600, 400, 0),
}


@pytest.fixture
async def books(ledger_dsn: str) -> AsyncIterator[BooksUnderTest]:
    async with open_test_books(ledger_dsn, 1) as books:
        yield books


@pytest.fixture
async def owner(ledger_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    conn = await asyncpg.connect(ledger_dsn)
    yield conn
    await conn.close()


@contextmanager
def old_release(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Book as the last release did."""
    with monkeypatch.context() as patch:
        patch.setattr(semantics, "CURRENT", semantics.FIRST)
        yield


def _books_as_before() -> bool:
    current: int = semantics.CURRENT
    return current == semantics.FIRST


async def sell_as_before(books: BooksUnderTest, case: Overspent, monkeypatch: pytest.MonkeyPatch) -> Booked:
    """Let the old release book the purchase as it planned it: what points pay is spread over what they might pay."""
    await books.append([purchase(1, ANNA, earn=[20_000])])
    sale = purchase(2, ANNA, lines=[Line(amount_minor=price) for price, _ in case.lines], spend=case.spent)
    event = journal_pb2.Event.FromString(sale.event)
    event.purchase.programme_version = 1
    for line, (_, spendable) in zip(event.purchase.effects, case.lines, strict=True):
        line.spendable_minor = line.points_money_minor = spendable
    with old_release(monkeypatch):
        (booked,) = await books.append([replace(sale, event=event.SerializeToString())])
    return booked


async def bring_back(
    books: BooksUnderTest, owner: asyncpg.Connection[asyncpg.Record], number: int, bought: Booked, *lines: int
) -> journal_pb2.GoodsReturn:
    key = business_key(journal_pb2.Event.FromString(bought.event).purchase.receipt_key)
    terms = (await read_receipts(owner, [key]))[key].lots
    asked = [(line, 1000) for line in lines]
    back = goods_return(number, bought, asked, terms=terms)
    if _books_as_before():  # it knew no kinds of keys
        back = replace(back, business_key=business_key(receipt_key(number)))
    (booked,) = await books.append([back])
    return journal_pb2.Event.FromString(booked.event).goods_return


async def verified(owner: asyncpg.Connection[asyncpg.Record]) -> BookReport:
    """Verify, write the caches anew, and verify again: the same is found."""
    (report,) = await verify(owner)
    await rebuild(owner)
    assert await verify(owner) == [report]
    return report


@pytest.mark.parametrize("returned", ["not at all", "by the old release", "by this one", "half by each"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_it_is_known_and_its_book_is_sound(
    books: BooksUnderTest,
    owner: asyncpg.Connection[asyncpg.Record],
    case: Overspent,
    returned: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bought = await sell_as_before(books, case, monkeypatch)
    backs = []
    if returned in {"by the old release", "half by each"}:
        with old_release(monkeypatch):
            lines = [1] if returned == "half by each" and len(case.lines) > 1 else []
            backs.append(await bring_back(books, owner, 3, bought, *lines))
    if returned in {"by this one", "half by each"} and not (backs and backs[-1].so_far.complete):
        backs.append(await bring_back(books, owner, 4, bought))
    report = await verified(owner)
    assert report.problem is None
    (known,) = report.known
    assert known.number == bought.number
    assert f"let points pay {case.spent} (minor units of money) where its goods allowed {case.allowed}" in known.what
    if backs:
        right = case.money if returned == "by this one" else case.old_money
        assert sum(back.refund_money_minor for back in backs) == right
        assert sum(line.refund_points_minor for back in backs for line in back.lines) == case.spent


async def test_a_purchase_that_did_not_overspend_is_not_known(
    books: BooksUnderTest, owner: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Overspent([(600, 600), (400, 0)], 600, 600, 400, 400)
    bought = await sell_as_before(books, case, monkeypatch)
    assert (await bring_back(books, owner, 3, bought)).refund_money_minor == case.money
    report = await verified(owner)
    assert (report.problem, report.known) == (None, ())


async def test_known_entries_are_told_where_they_are_looked_at(
    books: BooksUnderTest, owner: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["more than the goods cost"]
    await record_checkpoints(owner, await verify(owner), START, full=True)
    await sell_as_before(books, case, monkeypatch)
    (report,) = await verify_since(owner)
    assert (report.problem, len(report.known)) == (None, 1)
    await record_checkpoints(owner, [report], START, full=False)
    (report,) = await verify_since(owner)
    assert report.known == ()


async def test_the_command_names_them_and_ends_well(
    books: BooksUnderTest, owner: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    await sell_as_before(books, CASES["more than the goods cost"], monkeypatch)
    text = await _run_in_thread("verify", "--dsn", books.dsn)
    assert "known: book 0, entry 2: receipt 2 of 2026-03-14, store 1, terminal 1, let points pay 10000" in text
    assert "Verified: 2 entries in 1 books" in text


async def _run_in_thread(*words: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return str(result.output)
