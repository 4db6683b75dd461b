"""The proof that ends every test of adversity finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg
import pytest

from ledger.booking.committer import Committer
from ledger.booking.opening import ensure_unit, open_books
from ledger.entry.model import AVAILABLE, DEBT, HELD, ISSUED, Booked, Purchase
from tests.support.commands import BONUS, member, purchase
from tests.support.proof import prove
from tests.support.snapshots import Snapshot
from tests.support.tally import Answer, Tally, settlement_of


def key_of(command: Purchase) -> bytes:
    assert command.business_key is not None
    return command.business_key


SECOND = key_of(purchase(2, member("Anna")))


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


def refuse(tally: Tally) -> None:
    tally.slips[SECOND].refusal = "POINTS_INSUFFICIENT"


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
        pytest.param(refuse, "", "though it was refused", id="refused and booked"),
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
        pytest.param(
            None, "UPDATE ledger.account_total SET credit_minor = credit_minor + 1", "sum to", id="a total changed"
        ),
        pytest.param(None, "UPDATE ledger.posting SET credit = 16 WHERE credit = 12", "clearing", id="not cleared"),
        pytest.param(
            None, "UPDATE ledger.lot SET remaining_minor = remaining_minor - 1", "lots add up", id="a lot changed"
        ),
        pytest.param(None, "UPDATE ledger.book_head SET number = number + 1", "the heads count", id="a tail cut off"),
    ],
)
async def test_what_is_wrong_is_found(
    ledger_dsn: str, lie: Callable[[Tally], None] | None, tampering: str, found: str
) -> None:
    conn = await asyncpg.connect(ledger_dsn)
    await open_books(conn, 1)
    await ensure_unit(conn, BONUS.code, BONUS.precision)

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(ledger_dsn)

    tally, committer = Tally(), Committer(connect, 1, lambda: datetime.now(UTC))
    for number, spend in ((1, None), (2, 30), (3, None)):
        command = purchase(number, member("Anna"), earn=[50], spend=spend)
        tally.sent(key_of(command), command.message_id or b"")
        booked = await committer.submit(command)
        assert isinstance(booked, Booked)
        tally.answered(key_of(command), Answer(booked.book, booked.number, settlement_of(booked.event)))
    await committer.close()
    assert await prove(ledger_dsn, tally) == (3, 0, 0, 3)

    await conn.execute("SET session_replication_role = replica")  # as somebody with all rights would
    await conn.execute(tampering or "SELECT")
    await conn.close()
    if lie is not None:
        lie(tally)
    with pytest.raises(AssertionError, match=found):
        await prove(ledger_dsn, tally)


def test_an_answer_in_other_words_is_found() -> None:
    tally, answer = Tally(), Answer(0, 1, b"30")
    tally.sent(SECOND, SECOND)
    tally.answered(SECOND, answer, b"the first reply")
    tally.sent(SECOND, SECOND)
    tally.answered(SECOND, answer, b"the first reply")
    with pytest.raises(AssertionError, match="word for word"):
        tally.answered(SECOND, answer, b"another reply")
    with pytest.raises(AssertionError, match="is now refused"):
        tally.refused(SECOND, "POINTS_INSUFFICIENT")


def test_a_snapshot_that_does_not_add_up_is_found() -> None:
    sound = Snapshot(
        entries=2,
        heads=2,
        posted={(1, AVAILABLE): 50, (1, ISSUED): -50},
        totalled={(1, AVAILABLE): 50, (1, ISSUED): -50},
        owned={(1, AVAILABLE): 50, (1, DEBT): 0},
        lots={(1, AVAILABLE): 50},
        held={},
        negative=0,
    )
    assert sound.problems() == []
    assert sound._replace(heads=3).problems()
    assert sound._replace(totalled={(1, AVAILABLE): 50, (1, ISSUED): -40}).problems()
    assert sound._replace(owned={(1, AVAILABLE): 51}).problems()
    assert sound._replace(lots={(1, AVAILABLE): 49, (1, HELD): 1}).problems()
    assert sound._replace(held={(1, HELD): 1}).problems()
    assert sound._replace(negative=1).problems()
