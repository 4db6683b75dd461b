"""The registers' journal: on disk before it is sent, and never rewritten."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from benchmarks.replay.journal import RegisterJournal, StoredReceipt


async def test_a_receipt_is_in_the_file_before_it_may_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.sqlite"
    async with RegisterJournal(path) as journal:
        await journal.put_receipt(7, b"receipt")
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT request, answer_sha256 FROM receipt").fetchall() == [(b"receipt", None)]


async def test_everything_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with RegisterJournal(path) as journal:
        await asyncio.gather(*(journal.put_receipt(number, b"%d" % number) for number in range(500)))
        for number in range(0, 500, 2):
            journal.put_answer(number, b"hash %d" % number)
        journal.put_keys([("1", "T1", "first"), ("1", "T2", "other")])
        journal.put_keys([("1", "T1", "second")])
        journal.put_fact("name", "value")
    async with RegisterJournal(path) as journal:
        assert journal.counts() == (500, 250)
        assert journal.answered() == set(range(0, 500, 2))
        assert journal.find(8) == StoredReceipt(b"8", b"hash 8")
        assert journal.find(9) == StoredReceipt(b"9", None)
        assert journal.find(1000) is None
        assert journal.keys() == {("1", "T1"): "second", ("1", "T2"): "other"}
        assert journal.fact("name") == "value"
        assert journal.fact("unknown") is None


async def test_a_receipt_that_is_there_stays_as_it_was_printed(tmp_path: Path) -> None:
    async with RegisterJournal(tmp_path / "journal.sqlite") as journal:
        await journal.put_receipt(7, b"as printed")
        await journal.put_receipt(7, b"another quote")
        assert journal.find(7) == StoredReceipt(b"as printed", None)


async def test_a_disk_that_fails_stops_the_lane_before_it_sends(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    async with RegisterJournal(path) as journal:
        with sqlite3.connect(path) as other:
            other.execute("ALTER TABLE receipt RENAME TO lost")
        with pytest.raises(sqlite3.Error):
            await journal.put_receipt(7, b"receipt")
        with sqlite3.connect(path) as other:
            other.execute("ALTER TABLE lost RENAME TO receipt")
        await journal.put_receipt(8, b"receipt")
        assert journal.find(8) is not None


async def test_a_cancelled_lane_stops_neither_the_others_nor_the_end(tmp_path: Path) -> None:
    async with RegisterJournal(tmp_path / "journal.sqlite") as journal:
        lanes = [asyncio.create_task(journal.put_receipt(number, b"receipt")) for number in range(3)]
        await asyncio.sleep(0)  # all three wait for the same group to be written
        lanes[0].cancel()
        outcomes = await asyncio.gather(*lanes, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1:] == [None, None]
        assert journal.counts() == (3, 0)
