"""The proof that ends every test of adversity finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg
import pytest

from ledger.books import open_books
from ledger.committer import Committer
from ledger.model import Booked
from tests.support.commands import member, purchase
from tests.support.faults import Answer, Tally, prove, settlement_of

SECOND = purchase(2, member("Anna")).business_key


def acknowledge_one_more(tally: Tally) -> None:
    tally.sent(bytes(16), bytes(16))
    tally.answered(bytes(16), Answer(0, 4, b""))


def tell_another_answer(tally: Tally) -> None:
    answer = tally.slips[SECOND].answer
    assert answer is not None
    tally.slips[SECOND].answer = answer._replace(number=answer.number + 1)


def never_send(tally: Tally) -> None:
    del tally.slips[SECOND]


def send_another_message(tally: Tally) -> None:
    tally.slips[SECOND].message_ids = [bytes(16)]


def promise_nothing_stored(tally: Tally) -> None:
    tally.failed(SECOND, "OVERLOADED", stored_nothing=True)


@pytest.mark.parametrize(
    ("lie", "tampering", "found"),
    [
        pytest.param(acknowledge_one_more, "", "was acknowledged and is lost", id="acknowledged and lost"),
        pytest.param(tell_another_answer, "", "was told", id="told something else"),
        pytest.param(never_send, "", "nobody sent it", id="never sent"),
        pytest.param(send_another_message, "", "under a message that nobody sent", id="another message"),
        pytest.param(promise_nothing_stored, "", "told that nothing was stored", id="stored after all"),
        pytest.param(
            None,
            "INSERT INTO ledger.entry SELECT book, number + 2, booked_at, event_at, kind, member_id, message_id, "
            "business_key, content_hash, payload, hash FROM ledger.entry WHERE number = 2",
            "is booked twice",
            id="booked twice",
        ),
        pytest.param(
            None, "UPDATE ledger.balance SET available_minor = available_minor + 1", "members have", id="points given"
        ),
        pytest.param(
            None, "UPDATE ledger.posting SET points_minor = 1000 WHERE credit = 12", "less than nothing", id="overdrawn"
        ),
        pytest.param(None, "DELETE FROM ledger.posting WHERE credit = 12", "differ", id="a posting lost"),
    ],
)
async def test_what_is_wrong_is_found(
    ledger_dsn: str, lie: Callable[[Tally], None] | None, tampering: str, found: str
) -> None:
    conn = await asyncpg.connect(ledger_dsn)
    await open_books(conn, 1)

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(ledger_dsn)

    tally, committer = Tally(), Committer(connect, 1, lambda: datetime.now(UTC))
    for number, spend in ((1, None), (2, 30), (3, None)):
        command = purchase(number, member("Anna"), earn=[50], spend=spend)
        tally.sent(command.business_key, command.message_id)
        booked = await committer.submit(command)
        assert isinstance(booked, Booked)
        tally.answered(command.business_key, Answer(booked.book, booked.number, settlement_of(booked.event)))
    await committer.close()
    assert await prove(ledger_dsn, tally) == (3, 0, 0)

    await conn.execute("SET session_replication_role = replica")  # as somebody with all rights would
    await conn.execute(tampering or "SELECT")
    await conn.close()
    if lie is not None:
        lie(tally)
    with pytest.raises(AssertionError, match=found):
        await prove(ledger_dsn, tally)
