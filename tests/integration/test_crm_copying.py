"""What is copied into the CRM database is read back as it was, and what was copied before is kept."""

from __future__ import annotations

import shutil
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ledger.migrate import migrate
from server.base.storage import CRM_MIGRATIONS
from server.crm.copying import text_of

TEXTS = (
    "",
    "plain",
    "tab\tnew\nline\rback\\slash",
    "\\N",
    "\\.",
    '"{quoted, NULL}"',
    "Сир «Лавка»",
    "\u00a0",
    "\x01\x7f",
)
VALUES: list[tuple[str, Any]] = [
    *(("text", text) for text in (*TEXTS, None)),
    *(("text[]", list(texts)) for texts in ((), ("",), ("NULL",), TEXTS)),
    *(("bigint", number) for number in (0, -1, 2**63 - 1, None)),
    *(("boolean", value) for value in (True, False)),
    ("date", date(2024, 2, 29)),
    ("timestamptz", datetime(2026, 3, 1, 9, 0, 0, 7, tzinfo=UTC)),
    ("timestamptz", datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))),
    ("uuid", uuid.UUID(int=7)),
    ("bytea", b"\x00\\\xff"),
]


async def test_values_are_read_back_as_they_were(empty_dsn: str) -> None:
    """Each value in a column of its type, all in one row."""
    conn = await asyncpg.connect(empty_dsn)
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _) in enumerate(VALUES))
    await conn.execute(f"CREATE TABLE copied ({columns})")
    row = await conn.fetchrow(
        f"SELECT {', '.join(f'${n}::{kind}' for n, (kind, _) in enumerate(VALUES, 1))}", *_values()
    )
    assert row is not None

    async def data() -> Any:
        yield f"{text_of(_values())}\n{text_of(row)}\n".encode()

    await conn.copy_to_table("copied", source=data())
    for copied in await conn.fetch("SELECT * FROM copied"):
        assert list(copied) == _values()
    await conn.close()


def _values() -> list[Any]:
    return [value for _, value in VALUES]


def test_a_type_that_no_column_has_is_refused() -> None:
    """A float is a mistake of ours."""
    with pytest.raises(KeyError, match="float"):
        text_of([1.5])


OLD_LINE = """
INSERT INTO crm.receipt_line VALUES (1, 7, $1, 'milk', '', '', '{}', 1000, false, 900, 0, 0, 0, $2)
"""
SPRING = '{"promotion_id": "spring \\"sale\\"", "discount_minor": 100}'
BASE = '{"base_minor": 800, "points_minor": 8, "promotion_id": "base"}'
GIFT = '{"unit": "gift", "base_minor": 1, "points_minor": 4, "promotion_id": "gift"}'
DRUG = '{"partner": "pharmacy", "base_minor": 800, "points_minor": 3, "promotion_id": "drug"}'
OLD_PROMOTIONS = ("[]", f"[{SPRING}, {BASE}]", f"[{GIFT}, {DRUG}]")
ALL_PARTS = "SELECT * FROM crm.line_promotion ORDER BY book, number, line_number, ordinal"


async def test_what_promotions_did_is_told_as_before_the_migration(empty_dsn: str, tmp_path: Path) -> None:
    """Lines that were written as objects become the arrays of today; the view tells the same of them."""
    ((name, folder),) = CRM_MIGRATIONS
    for file in sorted(folder.glob("*.sql"))[:3]:
        shutil.copy(file, tmp_path)
    conn = await asyncpg.connect(empty_dsn)
    await migrate(conn, name, tmp_path)
    for line_number, promotions in enumerate(OLD_PROMOTIONS, start=1):
        await conn.execute(OLD_LINE, line_number, promotions)
    before = await conn.fetch(ALL_PARTS)
    assert len(before) == 4
    await migrate(conn, name, folder)
    assert await conn.fetch(ALL_PARTS) == before
    arrays = await conn.fetch("SELECT promotions::jsonb::text FROM crm.receipt_line ORDER BY line_number")
    assert [row[0] for row in arrays] == [
        "[]",
        '[["spring \\"sale\\"", 100], ["base", 0, 8, 800]]',
        '[["gift", 0, 4, 1, "gift", null], ["drug", 0, 3, 800, null, "pharmacy"]]',
    ]
    await conn.close()
