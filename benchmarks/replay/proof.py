"""The proofs that need the databases themselves: the ledger verified, the CRM compared with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg
from rich.console import Console

from benchmarks.replay.control import Bought, Keys, differences, summed
from benchmarks.replay.report import Check, money
from ledger.reading.journal import read_heads
from ledger.verify import verify
from server.base.storage import Dsns, open_databases
from server.commands.common import load_settings
from server.commands.output.progress import progress
from server.crm.compare import compare

NOT_FROM_HERE: Final = "set TALLYPOINT_LEDGER_DSN and TALLYPOINT_CRM_DSN to have it checked"
CRM_PATIENCE_SECONDS: Final = 300.0
"""How long the CRM stream may take to catch up after a replay."""
_READER: Final = {"role": "tallypoint_reader"}
_MAX_SHOWN: Final = 3

# What each member bought, in the CRM's words.
CRM_BOUGHT: Final = """
SELECT member_id::text, count(*), sum(line_count)::bigint, sum(gross_amount_minor)::bigint
FROM crm.receipt
JOIN unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS wanted (store_id, terminal_id, day, receipt_number)
    USING (store_id, terminal_id, receipt_number)
WHERE business_date = wanted.day::date GROUP BY member_id
"""


@contextmanager
def databases(data_dir: Path | None) -> Iterator[Dsns | None]:
    """The server's databases: in its data directory or named by the environment; None if neither is known."""
    settings = load_settings() if data_dir is None else load_settings(data_dir=data_dir, embedded=True)
    if data_dir is None and (settings.ledger_dsn is None or settings.crm_dsn is None):
        yield None
        return
    with open_databases(settings) as opened:
        yield opened.dsns


async def prove(dsns: Dsns, keys: Keys, expected: dict[str, Bought], console: Console) -> list[Check]:
    """Verify the ledger, compare the CRM with it line by line, and its receipts with the data set."""
    ledger = await asyncpg.connect(dsns.ledger, server_settings=_READER)
    crm = await asyncpg.connect(dsns.crm, server_settings=_READER)
    try:
        entries = sum(head.number for head in (await read_heads(ledger)).values())
        return [
            await _ledger_verified(ledger, entries, console),
            await _crm_equals_ledger(ledger, crm, entries, console),
            await _crm_equals_data_set(crm, keys, expected),
        ]
    finally:
        await ledger.close()
        await crm.close()


async def _ledger_verified(ledger: asyncpg.Connection, entries: int, console: Console) -> Check:
    with progress("Verifying the ledger", entries, "entries", console) as advance:
        reports = await verify(ledger, advance)
    problems = [str(report.problem) for report in reports if report.problem is not None]
    postings = sum(report.postings for report in reports)
    detail = f"{len(reports)} books, {entries:,} entries, {postings:,} postings"
    return Check("ledger verified: chains, sums and caches", not problems, "; ".join(problems) or detail)


async def _crm_equals_ledger(
    ledger: asyncpg.Connection, crm: asyncpg.Connection, entries: int, console: Console
) -> Check:
    done = 0
    with progress("Comparing the CRM", entries, "entries", console) as advance:

        def compared(so_far: int, _total: int) -> None:
            nonlocal done
            advance(so_far - done)
            done = so_far

        result = await compare(ledger, crm, compared, patience_seconds=CRM_PATIENCE_SECONDS)
    detail = f"{result.receipts:,} receipts, {result.lines:,} lines, {result.movements:,} movements"
    if not result.equal:
        shown = (f"book {d.book} entry {d.number} {d.field}" for d in result.differences[:_MAX_SHOWN])
        detail = f"{result.difference_count:,} differences: {'; '.join(shown)}"
    return Check("CRM = ledger, line by line", result.equal, detail)


async def _crm_equals_data_set(crm: asyncpg.Connection, keys: Keys, expected: dict[str, Bought]) -> Check:
    rows = await crm.fetch(CRM_BOUGHT, *zip(*keys, strict=True))
    found = {str(member): Bought(receipts, lines, turnover) for member, receipts, lines, turnover in rows}
    wrong, total = differences(expected, found), summed(found)
    detail = f"{total.receipts:,} receipts, {total.lines:,} lines, {money(total.turnover_minor)}"
    return Check("CRM = data set, member by member", not wrong, "; ".join(wrong) or detail)
