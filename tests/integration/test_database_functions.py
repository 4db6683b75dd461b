"""What workers call in the database has a version in its name, and what a release called stays as it was."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import pytest

from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from tests.last_release.kept import migrated_databases, old_databases
from tests.support.database import DatabaseFactory

ROOT = Path(__file__).resolve().parents[2]
RELEASED = Path(__file__).parent / "released_functions.json"
"""SHA-256 of the definitions by the release that came with them, and the release with which a retired one went."""
LAST_RELEASE = "0.4"
"""The one whose databases are kept."""
CALL = re.compile(r"\b((?:ledger|server|crm)\.[a-z0-9_]+)\s*\(")
VERSIONED = re.compile(r"_v[1-9][0-9]*")
CANNOT_WRITE = {"server.programme_version.semantics"}
"""Columns that release 0.4 does not know and that it must fill: what writes their tables waits for the end of the
upgrade. (They came with migrations of before the rule.)"""

# Functions that may be called (those of triggers cannot), row types and domains, with what they are.
READ_DEFINITIONS = """
SELECT 'function ' || p.oid::regprocedure, pg_get_functiondef(p.oid)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('ledger', 'server', 'crm') AND p.prorettype <> 'trigger'::regtype
UNION ALL
SELECT format('row type %s.%s', n.nspname, c.relname),
       (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('ledger', 'server', 'crm') AND c.relkind = 'c'
UNION ALL
SELECT format('domain %s.%s', n.nspname, t.typname),
       concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
                 (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname)
                  FROM pg_constraint k WHERE k.contypid = t.oid))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname IN ('ledger', 'server', 'crm') AND t.typtype = 'd'
"""

# Columns of tables with their types, and whether whoever adds a row must fill them.
READ_COLUMNS = """
SELECT format('%s.%s.%s', table_schema, table_name, column_name) AS name, data_type AS type,
       is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AS must
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema IN ('ledger', 'server', 'crm') AND table_type = 'BASE TABLE'
"""


async def digests(conn: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    """Return what may be called in a database, with the SHA-256 of each definition."""
    await conn.execute("SET search_path = pg_catalog")  # so that every definition names its schemas
    rows = await conn.fetch(READ_DEFINITIONS)
    return {name: hashlib.sha256(definition.encode()).hexdigest() for name, definition in rows}


async def digests_of(dsn: str) -> dict[str, str]:
    conn = await asyncpg.connect(dsn)
    try:
        return await digests(conn)
    finally:
        await conn.close()


def broken(released: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what of the released definitions is not there any more as it was."""
    return [
        f"{name} {'was changed' if name in now else 'is gone'}: make a new one with the next number beside it"
        for name, digest in sorted(released.items())
        if now.get(name) != digest
    ]


def kept_definitions() -> dict[str, str]:
    """Return the definitions of all releases but those that are retired."""
    file = json.loads(RELEASED.read_text(encoding="utf-8"))
    of_releases = {name: digest for release in file["released"].values() for name, digest in release.items()}
    assert set(file["retired"]) <= set(of_releases), "only what was released can be retired"
    return {name: digest for name, digest in of_releases.items() if name not in file["retired"]}


async def test_released_functions_are_as_they_were(databases: DatabaseFactory) -> None:
    now: dict[str, str] = {}
    for migration_sets in (LEDGER_MIGRATIONS, CRM_MIGRATIONS):
        with databases.fresh(migration_sets) as dsn:
            now |= await digests_of(dsn)
    kept = kept_definitions()
    found = broken(kept, now)
    assert not found, "\n".join(found)
    new = {name: digest for name, digest in now.items() if name not in kept}
    assert not new, f"add these to {RELEASED.name}, under the release that brings them: {json.dumps(new, indent=4)}"


async def test_the_last_release_finds_all_that_it_calls(databases: DatabaseFactory) -> None:
    """In its own databases, once they are brought up to date, and in new ones."""
    with old_databases(databases) as dsns:
        before = await digests_of(dsns.ledger) | await digests_of(dsns.crm)
    assert "function ledger.write_uses(integer,jsonb)" in before
    with migrated_databases(databases) as dsns:
        after = await digests_of(dsns.ledger) | await digests_of(dsns.crm)
    kept = kept_definitions()
    found = broken({name: digest for name, digest in before.items() if name in kept}, after)
    assert not found, "\n".join(found)
    released = json.loads(RELEASED.read_text(encoding="utf-8"))["released"]
    of_the_last = released[LAST_RELEASE]
    assert of_the_last.items() <= before.items(), "the file and that release's own databases differ"
    assert broken(kept, after) == [], "a database of that release gets other functions than a new one"


async def test_the_last_release_can_read_and_write_its_columns(databases: DatabaseFactory) -> None:
    """None is gone or has another type, and a new one needs not be filled by who does not know it."""
    with old_databases(databases) as dsns:
        before = await _columns(dsns.ledger, dsns.crm)
    with migrated_databases(databases) as dsns:
        after = await _columns(dsns.ledger, dsns.crm)
    assert {name: after.get(name, ("gone",))[0] for name in before} == {
        name: kind for name, (kind, _) in before.items()
    }
    tables_before = {name.rpartition(".")[0] for name in before}
    must = {
        name
        for name, (_, must) in after.items()
        if must and not before.get(name, ("", False))[1] and name.rpartition(".")[0] in tables_before
    }
    assert must == CANNOT_WRITE


async def _columns(*dsns: str) -> dict[str, tuple[str, bool]]:
    found: dict[str, tuple[str, bool]] = {}
    for dsn in dsns:
        conn = await asyncpg.connect(dsn)
        found |= {row["name"]: (row["type"], row["must"]) for row in await conn.fetch(READ_COLUMNS)}
        await conn.close()
    return found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param("DROP FUNCTION ledger.read_batch", "function ledger.read_batch(", id="gone"),
        pytest.param(
            "CREATE OR REPLACE FUNCTION ledger.write_more(p_book integer, p_more jsonb) RETURNS void LANGUAGE plpgsql "
            "AS $$ BEGIN NULL; END $$",
            "function ledger.write_more(",
            id="other body",
        ),
        pytest.param("ALTER FUNCTION ledger.write_batch RESET ALL", "function ledger.write_batch(", id="no setting"),
        pytest.param("ALTER TYPE ledger.lot_row ADD ATTRIBUTE origin text", "row type ledger.lot_row", id="wider row"),
        pytest.param(
            "ALTER DOMAIN ledger.points ADD CHECK (VALUE < 1000000)", "domain ledger.points", id="narrower domain"
        ),
    ],
)
async def test_a_change_of_what_was_released_is_found(ledger_dsn: str, change: str, named: str) -> None:
    conn = await asyncpg.connect(ledger_dsn)
    await conn.execute(change)
    (found,) = broken(kept_definitions(), await digests(conn))
    assert found.startswith(named)
    await conn.close()


def calls_without_version(source: str, functions: set[str]) -> list[str]:
    """Return the functions of the database that the texts of a module call and that have no version in their name."""
    texts = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    called = {name for text in texts if isinstance(text, str) for name in CALL.findall(text)} & functions
    return sorted(name for name in called if not VERSIONED.search(name))


async def _function_names(dsn: str) -> set[str]:
    named = (name.partition("(")[0].split() for name in await digests_of(dsn))
    return {parts[1] for parts in named if parts[0] == "function"}


async def test_code_calls_functions_with_a_version(ledger_dsn: str) -> None:
    functions = await _function_names(ledger_dsn)
    assert "ledger.write_batch_v1" in functions
    sources = [path for folder in ("ledger", "server") for path in (ROOT / folder).rglob("*.py")]
    found = {
        str(path.relative_to(ROOT)): names
        for path in sources
        if (names := calls_without_version(path.read_text(encoding="utf-8"), functions))
    }
    assert not found, f"{found}: a worker of the next release could not change them; give them a version (_v1)"


async def test_a_call_without_version_is_found() -> None:
    names = {"ledger.write_batch", "ledger.write_batch_v1"}
    assert calls_without_version('A = "SELECT ledger.write_batch_v1($1)"', names) == []
    assert calls_without_version('A = "SELECT * FROM ledger.write_batch ($1)"', names) == ["ledger.write_batch"]
    assert calls_without_version('A = f"SELECT ledger.write_batch({x})"', names) == ["ledger.write_batch"]
    assert calls_without_version('"INSERT INTO ledger.entry (book) VALUES (1)"', names) == []


async def test_the_first_versions_are_what_was_called_before(ledger_dsn: str) -> None:
    """Word for word, with the same settings and rights, until those are retired."""
    conn = await asyncpg.connect(ledger_dsn)
    for name in ("read_batch", "write_batch"):
        one, other = await conn.fetch(
            "SELECT prosrc, proconfig, proargtypes::text, proallargtypes::text, proargnames, prorettype::text, "
            "provolatile, proisstrict, proparallel, procost, prosecdef, proacl::text "
            "FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace AND proname = ANY ($1)",
            [name, f"{name}_v1"],
        )
        assert tuple(one) == tuple(other)
    await conn.close()
