"""What the registers reported, in the database: files of Z reports and of single receipts, as they came.

Rows are only ever added. A file is known by its SHA-256 and counts when all its parts are there; of several reports
for a terminal's day, the one of the file that was completed last counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
from google.protobuf.message import Message
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import reconciliation_pb2 as pb

from server.base.errors import Refused
from server.edge.clocks import DAYS_AHEAD, FIRST_BUSINESS_DATE
from server.edge.moments import no_day
from server.reconciliation.model import Amounts, ReceiptKind, RegisterReceipt, TerminalDay, ZReport
from server.reconciliation.receipt_numbers import Run, Runs, covers, joined, parse, size, text_of

if TYPE_CHECKING:
    from server.base.database import Connection

LOAD_LOCK_ID: Final = 0x7461_6C6C_7970_7A72
"""The advisory lock under which files are loaded: they are numbered one after the other."""

AMOUNT_FIELDS: Final = tuple(Amounts._fields)
RETURNS_FIELDS: Final = ("returns_turnover_minor", "returns_money_minor")
Z_COLUMNS: Final = (
    *("file_id", "line", "store_id", "terminal_id", "business_date", "receipts", "first_number", "last_number"),
    *(*AMOUNT_FIELDS, "returns", *RETURNS_FIELDS, "voids", "void_numbers"),
)
RECEIPT_COLUMNS: Final = (
    *("file_id", "part", "ordinal", "line", "store_id", "terminal_id", "business_date", "receipt_number", "kind"),
    *AMOUNT_FIELDS,
)

# Put those who load files in a queue.
LOCK_LOADS: Final = "SELECT pg_advisory_xact_lock($1)"

# Begin a file, unless it was begun before.
PUT_FILE: Final = """
INSERT INTO server.register_file (file_id, sha256, content, file_name, parts, loaded_by, begun_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""

# What is known of a file, and whether it has this part.
READ_FILE: Final = """
SELECT content, parts, number IS NOT NULL AS complete,
       EXISTS (SELECT FROM server.register_file_part p WHERE p.file_id = f.file_id AND p.part = $2) AS has_part
FROM server.register_file f WHERE file_id = $1
"""

# Keep that a part is there.
PUT_PART: Final = "INSERT INTO server.register_file_part (file_id, part, rows) VALUES ($1, $2, $3)"

# Let a file count, if all its parts are there; returns its number then.
COMPLETE_FILE: Final = """
UPDATE server.register_file
SET number = (SELECT coalesce(max(number), 0) + 1 FROM server.register_file), loaded_at = $2
WHERE file_id = $1 AND number IS NULL
  AND parts = (SELECT count(*) FROM server.register_file_part WHERE file_id = $1)
RETURNING number
"""

# How many reports of a list are there already, in other files.
COUNT_EARLIER: Final = """
SELECT count(*) FROM unnest($2::text[], $3::text[], $4::date[]) AS u (store_id, terminal_id, business_date)
WHERE EXISTS (
    SELECT FROM server.z_report z JOIN server.register_file f USING (file_id)
    WHERE z.business_date = u.business_date AND z.store_id = u.store_id AND z.terminal_id = u.terminal_id
      AND f.number IS NOT NULL AND z.file_id <> $1)
"""

# How many terminals' days of a list have receipts in other files, but for those that an earlier part of this file told.
COUNT_EARLIER_DAYS: Final = """
SELECT count(*) FROM unnest($2::text[], $3::text[], $4::date[]) AS u (store_id, terminal_id, business_date)
WHERE EXISTS (
    SELECT FROM server.register_receipt r JOIN server.register_file f USING (file_id)
    WHERE r.business_date = u.business_date AND r.store_id = u.store_id AND r.terminal_id = u.terminal_id
      AND f.number IS NOT NULL AND r.file_id <> $1)
  AND NOT EXISTS (
    SELECT FROM server.register_receipt r
    WHERE r.business_date = u.business_date AND r.store_id = u.store_id AND r.terminal_id = u.terminal_id
      AND r.file_id = $1)
"""

# Which of these stores there are.
KNOWN_STORES: Final = "SELECT store_id FROM server.store WHERE store_id = ANY ($1::text[])"

# The Z reports of a store that count.
READ_REPORTS: Final = """
SELECT DISTINCT ON (z.business_date, z.terminal_id) z.*
FROM server.z_report z JOIN server.register_file f USING (file_id)
WHERE z.store_id = $1 AND z.business_date BETWEEN $2 AND $3 AND f.number IS NOT NULL
ORDER BY z.business_date, z.terminal_id, f.number DESC
"""

# The single receipts of a store that count.
READ_RECEIPTS: Final = """
WITH newest AS (
    SELECT r.business_date, r.terminal_id, max(f.number) AS number
    FROM server.register_receipt r JOIN server.register_file f USING (file_id)
    WHERE r.store_id = $1 AND r.business_date BETWEEN $2 AND $3 AND f.number IS NOT NULL
    GROUP BY r.business_date, r.terminal_id
)
SELECT r.* FROM newest n
JOIN server.register_file f ON f.number = n.number
JOIN server.register_receipt r
  ON r.file_id = f.file_id AND r.store_id = $1 AND r.business_date = n.business_date AND r.terminal_id = n.terminal_id
ORDER BY r.business_date, r.terminal_id, r.part, r.ordinal
"""

Fault = tuple[str, str]
"""The field of a row, and what is wrong with it."""


class Content(IntEnum):
    """What the rows of a file are."""

    Z_REPORTS = 1
    RECEIPTS = 2


# Which terminals never had a key.
READ_UNKNOWN_TERMINALS: Final = """
SELECT n.store_id, n.terminal_id FROM unnest($1::text[], $2::text[]) AS n (store_id, terminal_id)
WHERE NOT EXISTS (
    SELECT FROM server.terminal t WHERE t.store_id = n.store_id AND t.terminal_id = n.terminal_id)
"""


class Loaded(NamedTuple):
    """What became of a part of a file."""

    unchanged: bool
    complete: bool
    superseding: int = 0


# --- checks that no single field shows ---------------------------------------------------------------------


def report_faults(report: pb.ZReport) -> Iterator[Fault]:
    """Yield what is wrong with a Z report by its own figures."""
    yield from _day_faults(report.business_date)
    used = report.receipts + report.returns + max(report.voids, 0)
    if not (report.HasField("first_number") and report.HasField("last_number")):
        if report.HasField("first_number") or report.HasField("last_number"):
            yield "last_number", "must be given together with the first number"
        elif used:
            yield "first_number", f"must be given: {used} numbers were used that day"
        return
    first, last = report.first_number, report.last_number
    if first > last:
        yield "last_number", f"must be at least the first number, {first}"
        return
    runs = _runs(report.void_numbers)
    if any(run.first > run.last for run in runs):
        yield "void_numbers", "must count upwards"
        return
    if not covers([Run(first, last)], runs):
        yield "void_numbers", f"must be within {first} to {last}"
    voids = size(joined(runs))
    if report.HasField("voids") and voids > report.voids:
        yield "voids", f"must be at least {voids}: so many void numbers are named"
    # An exchange, goods back and goods sold, may use one number for both.
    used = max(report.receipts, report.returns) + max(report.voids, voids)
    if last - first + 1 < used:
        yield "last_number", f"leaves room for {last - first + 1} numbers from {first} on, but {used} were used"


def receipt_faults(receipt: pb.RegisterReceipt) -> Iterator[Fault]:
    """Yield what is wrong with a single receipt."""
    yield from _day_faults(receipt.business_date)


def _day_faults(text: str) -> Iterator[Fault]:
    try:
        date.fromisoformat(text)
    except ValueError:
        yield "business_date", no_day(text, optional=False)


def _far_off(text: str, today: date) -> Iterator[Fault]:
    """Yield why a day cannot be that of a report: it would stand for another one, which then seemed to have none."""
    if text < FIRST_BUSINESS_DATE:
        yield "business_date", f"is {text}, before {FIRST_BUSINESS_DATE}"
    elif text > (today + timedelta(days=DAYS_AHEAD)).isoformat():
        yield "business_date", f"is {text}, more than {DAYS_AHEAD} days ahead of today, {today}"


# --- loading -----------------------------------------------------------------------------------------------


async def load_reports(
    conn: Connection, file: pb.SourceFile, reports: Sequence[pb.ZReport], by: str, now: datetime
) -> Loaded:
    """Store a part of a file of Z reports, inside the caller's transaction.

    Raises:
        Refused: INVALID_REQUEST, naming the line: a report contradicts itself, stands twice in its file, or names a
            store that there is not; or the file is being loaded in another number of parts.
    """
    await _check_rows(conn, "reports", reports, report_faults, now)
    file_id = _file_id(file)
    if (known := await _begin(conn, file, Content.Z_REPORTS, by, now)) is not None:
        return known
    records = [
        (
            *(file_id, one.line, one.store_id, one.terminal_id, date.fromisoformat(one.business_date), one.receipts),
            *(_optional_int(one, field) for field in ("first_number", "last_number", *AMOUNT_FIELDS)),
            *(_optional_int(one, field) for field in ("returns", *RETURNS_FIELDS, "voids")),
            text_of(joined(_runs(one.void_numbers))),
        )
        for one in reports
    ]
    places = [(one.store_id, one.terminal_id, date.fromisoformat(one.business_date)) for one in reports]
    superseding = await conn.fetchval(COUNT_EARLIER, file_id, *zip(*places, strict=True))
    try:
        await conn.copy_records_to_table("z_report", schema_name="server", columns=Z_COLUMNS, records=records)
    except asyncpg.UniqueViolationError as error:
        raise invalid_rows("reports", [(0, 0, "terminal_id", f"stands twice in the file: {error.detail}")]) from None
    return Loaded(False, await _end(conn, file, len(records), now), superseding)


async def load_receipts(
    conn: Connection, file: pb.SourceFile, receipts: Sequence[pb.RegisterReceipt], by: str, now: datetime
) -> Loaded:
    """Store a part of a file of single receipts, inside the caller's transaction; Refused as `load_reports`."""
    await _check_rows(conn, "receipts", receipts, receipt_faults, now)
    file_id = _file_id(file)
    if (known := await _begin(conn, file, Content.RECEIPTS, by, now)) is not None:
        return known
    records = [
        (
            *(file_id, file.part, ordinal, one.line, one.store_id, one.terminal_id),
            *(date.fromisoformat(one.business_date), one.receipt_number, one.kind),
            *(_optional_int(one, field) for field in AMOUNT_FIELDS),
        )
        for ordinal, one in enumerate(receipts, start=1)
    ]
    days = {(one.store_id, one.terminal_id, date.fromisoformat(one.business_date)) for one in receipts}
    superseding = await conn.fetchval(COUNT_EARLIER_DAYS, file_id, *zip(*sorted(days), strict=True))
    await conn.copy_records_to_table("register_receipt", schema_name="server", columns=RECEIPT_COLUMNS, records=records)
    return Loaded(False, await _end(conn, file, len(records), now), superseding)


async def unknown_terminals(conn: Connection, rows: Sequence[pb.ZReport] | Sequence[pb.RegisterReceipt]) -> list[str]:
    """Say of terminals of stores that never had a key: probably they are called otherwise in the ledger."""
    places = sorted({(one.store_id, one.terminal_id) for one in rows})
    unknown = await conn.fetch(READ_UNKNOWN_TERMINALS, [store for store, _ in places], [one for _, one in places])
    return [
        f"terminal {terminal} of store {store} never had a key: is it called otherwise at the till?"
        for store, terminal in unknown
    ]


async def _begin(conn: Connection, file: pb.SourceFile, content: Content, by: str, now: datetime) -> Loaded | None:
    """Lock loading and begin the file; return the answer if there is nothing to do."""
    if file.part > file.parts:
        raise _bad_file("file.part", f"must be at most {file.parts}, the number of parts")
    await conn.execute(LOCK_LOADS, LOAD_LOCK_ID)
    file_id = _file_id(file)
    await conn.execute(PUT_FILE, file_id, file.sha256, content, file.name, file.parts, by, now)
    known = await conn.fetchrow(READ_FILE, file_id, file.part)
    assert known is not None, "it was put just now"
    if known["content"] != content:
        raise _bad_file("file.sha256", "was loaded before as another kind of file")
    if known["complete"] or (known["has_part"] and known["parts"] == file.parts):
        return Loaded(unchanged=True, complete=known["complete"])
    if known["parts"] != file.parts:
        raise _bad_file("file.parts", f"must be {known['parts']}, as in the parts that came before")
    return None


async def _end(conn: Connection, file: pb.SourceFile, rows: int, now: datetime) -> bool:
    """Keep that the part is there; return whether the file is complete now."""
    await conn.execute(PUT_PART, _file_id(file), file.part, rows)
    return await conn.fetchval(COMPLETE_FILE, _file_id(file), now) is not None


async def _check_rows(conn: Connection, name: str, rows: Sequence[Any], faults_of: Any, now: datetime) -> None:  # noqa: ANN401 - rows of two types
    faults = [
        (index, row.line, *fault)
        for index, row in enumerate(rows)
        for fault in (*faults_of(row), *_far_off(row.business_date, now.date()))
    ]
    if not faults:
        stores = {row.store_id for row in rows}
        known = {record["store_id"] for record in await conn.fetch(KNOWN_STORES, list(stores))}
        faults = [
            (index, row.line, "store_id", f"is not a store: there is no {row.store_id}")
            for index, row in enumerate(rows)
            if row.store_id not in known
        ]
    if faults:
        raise invalid_rows(name, faults)


def invalid_rows(name: str, faults: Sequence[tuple[int, int, str, str]]) -> Refused:
    """Return the refusal of rows: (index, line, field, what is wrong) each."""
    violations = [
        (f"{name}[{index}].{field}", f"line {line}: {text}" if line else text) for index, line, field, text in faults
    ]
    return Refused(
        api.REFUSAL_REASON_INVALID_REQUEST,
        f"{len(faults)} rows are wrong; nothing of this part was loaded",
        violations=violations,
    )


def _bad_file(field: str, text: str) -> Refused:
    return Refused(api.REFUSAL_REASON_INVALID_REQUEST, f"{field} {text}", violations=[(field, text)])


def _file_id(file: pb.SourceFile) -> uuid.UUID:
    return uuid.UUID(bytes=file.sha256[:16])


def _optional_int(message: Message, field: str) -> int | None:
    return getattr(message, field) if message.HasField(field) else None


def _runs(numbers: Iterable[pb.ReceiptNumbers]) -> Runs:
    return tuple(Run(run.first, run.last) for run in numbers)


# --- reading -----------------------------------------------------------------------------------------------


async def read_reports(conn: Connection, store_id: str, first: date, last: date) -> dict[TerminalDay, ZReport]:
    """Return the Z reports of a store that count."""
    return {
        TerminalDay(store_id, row["terminal_id"], row["business_date"]): ZReport(
            row["receipts"],
            None if row["first_number"] is None else Run(row["first_number"], row["last_number"]),
            Amounts(*(row[field] for field in AMOUNT_FIELDS)),
            row["returns"],
            Amounts(turnover_minor=row["returns_turnover_minor"], money_minor=row["returns_money_minor"]),
            row["voids"],
            parse(row["void_numbers"]),
        )
        for row in await conn.fetch(READ_REPORTS, store_id, first, last)
    }


async def read_receipts(
    conn: Connection, store_id: str, first: date, last: date
) -> dict[TerminalDay, list[RegisterReceipt]]:
    """Return the single receipts of a store that count, for the terminals' days that have some."""
    days: dict[TerminalDay, list[RegisterReceipt]] = {}
    for row in await conn.fetch(READ_RECEIPTS, store_id, first, last):
        receipt = RegisterReceipt(
            row["receipt_number"], ReceiptKind(row["kind"]), Amounts(*(row[field] for field in AMOUNT_FIELDS))
        )
        days.setdefault(TerminalDay(store_id, row["terminal_id"], row["business_date"]), []).append(receipt)
    return days
