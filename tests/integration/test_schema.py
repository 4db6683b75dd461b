"""The `schema.sql` beside each set of migrations is what the migrations make, to the last comment and right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from server.base.postgres import EmbeddedPostgres
from server.base.storage import CRM_MIGRATIONS, LEDGER_MIGRATIONS
from tests.support.catalogue import Catalogue, catalogue_of, differences
from tests.support.database import DatabaseFactory

MigrationSets = tuple[tuple[str, Path], ...]
DATABASES = [pytest.param(LEDGER_MIGRATIONS, id="ledger"), pytest.param(CRM_MIGRATIONS, id="crm")]


def schema_texts(migration_sets: MigrationSets) -> list[str]:
    """Return the assembled schemas of the sets of one database, in their order."""
    return [(folder.parent / "schema.sql").read_text(encoding="utf-8") for _, folder in migration_sets]


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    conn = await asyncpg.connect(dsn)
    try:
        yield conn
    finally:
        await conn.close()


async def assembled(dsn: str, texts: list[str]) -> Catalogue:
    """Make an empty database by the schemas' texts; return what it consists of then."""
    async with connected(dsn) as conn:
        for text in texts:
            await conn.execute(text)
        return await catalogue_of(conn)


async def differing(databases: DatabaseFactory, migration_sets: MigrationSets, texts: list[str]) -> list[str]:
    """Compare a database by migrations with one by these texts, both on the session's server."""
    with databases.fresh(migration_sets) as migrated, databases.fresh() as empty:
        async with connected(migrated) as conn:
            by_migrations = await catalogue_of(conn)
        by_schema = await assembled(empty, texts)
    assert by_migrations, "there is nothing to compare"
    return differences(by_migrations, by_schema, "the migrations", "schema.sql")


@pytest.mark.parametrize("migration_sets", DATABASES)
async def test_the_schema_is_what_the_migrations_make(
    databases: DatabaseFactory, migration_sets: MigrationSets
) -> None:
    found = await differing(databases, migration_sets, schema_texts(migration_sets))
    assert not found, "make the same change in schema.sql as in the new migration:\n" + "\n".join(found)


@pytest.fixture(scope="module")
def new_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that has no role of the service yet."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("new") / "postgres")
    server.start()
    yield server
    server.stop()


async def on_a_new_server(
    databases: DatabaseFactory, new_server: EmbeddedPostgres, name: str, migration_sets: MigrationSets
) -> list[str]:
    """Compare a database by migrations with one by the schema's text on a server of its own."""
    new_server.ensure_database(name)
    by_schema = await assembled(new_server.dsn(name), schema_texts(migration_sets))
    with databases.fresh(migration_sets) as migrated:
        async with connected(migrated) as conn:
            return differences(await catalogue_of(conn), by_schema, "the migrations", "schema.sql")


async def test_the_schemas_make_their_roles_too(databases: DatabaseFactory, new_server: EmbeddedPostgres) -> None:
    """The CRM's needs one of the three and is made first; then nothing of the ledger's is lacking."""
    with databases.fresh(LEDGER_MIGRATIONS):
        found = await on_a_new_server(databases, new_server, "crm", CRM_MIGRATIONS)
        assert "role tallypoint_writer is made by the migrations alone" in found, "the server was not new"
        assert all(line.startswith("role ") for line in found), found
        assert not await on_a_new_server(databases, new_server, "ledger", LEDGER_MIGRATIONS)


FAULTS = [
    pytest.param(
        "ledger",
        "    series      text NOT NULL,\n    valid_from  date NOT NULL,\n",
        "    valid_from  date NOT NULL,\n",
        "column ledger.coupon_issued.series",
        id="a column is missing",
    ),
    pytest.param(
        "ledger",
        "    debit        smallint NOT NULL,\n    credit       smallint NOT NULL,\n    lot_ordinal",
        "    credit       smallint NOT NULL,\n    debit        smallint NOT NULL,\n    lot_ordinal",
        "column ledger.posting.credit",
        id="columns in another order",
    ),
    pytest.param(
        "ledger",
        "purchase_number bigint NOT NULL,\n    last",
        "purchase_number integer NOT NULL,\n    last",
        "column ledger.purchase_return.purchase_number",
        id="another type",
    ),
    pytest.param(
        "ledger",
        "payload      bytea NOT NULL",
        "payload      bytea",
        "column ledger.entry.payload",
        id="may be null",
    ),
    pytest.param(
        "ledger",
        "held_minor      bigint NOT NULL DEFAULT 0",
        "held_minor      bigint NOT NULL",
        "column ledger.lot.held_minor",
        id="no default",
    ),
    pytest.param(
        "ledger",
        "CHECK (breakage_ppm BETWEEN 0 AND 1000000)",
        "CHECK (breakage_ppm BETWEEN 0 AND 100)",
        "constraint point_value_breakage_ppm_check of ledger.point_value",
        id="a check changed",
    ),
    pytest.param(
        "ledger",
        ",\n    CHECK (debit <> credit)",
        "",
        "constraint posting_check of ledger.posting",
        id="a check missing",
    ),
    pytest.param(
        "ledger",
        "    UNIQUE (book, unit, close_number)\n",
        "    CHECK (true)\n",
        "constraint close_mark_book_unit_close_number_key of ledger.close_mark",
        id="a unique key missing",
    ),
    pytest.param(
        "ledger",
        "CREATE INDEX hold_open ON ledger.hold (book, member_id) WHERE how IS NULL;",
        "",
        "index ledger.hold_open",
        id="an index missing",
    ),
    pytest.param(
        "ledger",
        "next_change_at) WHERE next_change_at IS NOT NULL",
        "next_change_at)",
        "index ledger.balance_next_change",
        id="an index changed",
    ),
    pytest.param(
        "ledger",
        " WITH (toast_tuple_target = 8160)",
        "",
        "table ledger.entry",
        id="an option missing",
    ),
    pytest.param(
        "ledger",
        "found_lots <> cardinality(p_lots) +",
        "found_lots < cardinality(p_lots) +",
        "function ledger.write_batch_v1(",
        id="a function's body changed",
    ),
    pytest.param(
        "ledger",
        " SET plan_cache_mode = force_generic_plan",
        "",
        "function ledger.write_batch_v1(",
        id="a function's setting missing",
    ),
    pytest.param(
        "ledger",
        "ARRAY['ledger.read_batch', 'ledger.write_batch']",
        "ARRAY['ledger.write_batch']",
        "function ledger.read_batch(",
        id="a function missing",
    ),
    pytest.param(
        "ledger",
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.entry",
        "BEFORE UPDATE ON ledger.entry",
        "trigger entry_is_append_only of ledger.entry",
        id="a trigger on less",
    ),
    pytest.param(
        "ledger",
        "ledger.some_points AS bigint CHECK (VALUE > 0)",
        "ledger.some_points AS bigint CHECK (VALUE > 1)",
        "constraint some_points_check of ledger.some_points",
        id="a domain changed",
    ),
    pytest.param(
        "ledger",
        "(member_id uuid, counters bytea)",
        "(member_id uuid, counters text)",
        "column ledger.counters_row.counters",
        id="a row type changed",
    ),
    pytest.param(
        "ledger",
        "member_id, -points_minor AS",
        "member_id, points_minor AS",
        "view ledger.posting_side",
        id="a view changed",
    ),
    pytest.param(
        "ledger",
        "GRANT UPDATE ON ledger.book_head TO tallypoint_writer;",
        "",
        "table ledger.book_head",
        id="a right missing",
    ),
    pytest.param(
        "ledger",
        "GRANT INSERT ON ledger.entry,",
        "GRANT INSERT, UPDATE ON ledger.entry,",
        "table ledger.entry",
        id="a right too many",
    ),
    pytest.param(
        "ledger",
        "SCHEMA ledger TO tallypoint_owner, tallypoint_writer, tallypoint_reader;\nGRANT ALL",
        "SCHEMA ledger TO tallypoint_owner, tallypoint_writer;\nGRANT ALL",
        "schema ledger",
        id="a right to a schema missing",
    ),
    pytest.param(
        "ledger",
        "CREATE SCHEMA ledger;",
        "CREATE SCHEMA ledger; CREATE TABLE ledger.spare ();",
        "table ledger.spare",
        id="a table too many",
    ),
    pytest.param(
        "server",
        "GRANT UPDATE (number, loaded_at)",
        "GRANT UPDATE (number)",
        "column server.register_file.loaded_at",
        id="a right to columns",
    ),
    pytest.param(
        "server",
        ", ('audience', 0)",
        "",
        "rows of server.config_version",
        id="a row missing",
    ),
    pytest.param(
        "server",
        'break_id      text COLLATE "C" PRIMARY KEY',
        "break_id      text PRIMARY KEY",
        "column server.reconciliation_break.break_id",
        id="a collation missing",
    ),
    pytest.param(
        "server",
        "bigint GENERATED ALWAYS AS IDENTITY",
        "bigint",
        "column server.rules_rollout.rollout",
        id="an identity missing",
    ),
    pytest.param(
        "server",
        "version          integer NOT NULL REFERENCES server.programme_version",
        "version          integer NOT NULL",
        "constraint rules_rollout_version_fkey of server.rules_rollout",
        id="a foreign key missing",
    ),
    pytest.param(
        "crm",
        "'Such as merge or family.'",
        "'Such as merge.'",
        "column crm.transfer.reason_code",
        id="a comment changed",
    ),
    pytest.param(
        "crm",
        "COMMENT ON VIEW crm.line_after_returns IS 'The positions of receipts, less what came back of them.';",
        "",
        "view crm.line_after_returns",
        id="a comment on a view missing",
    ),
]
"""Faults put into a schema: which, the text that is changed, to what, and the beginning of what must be named."""


@pytest.mark.parametrize(("which", "old", "new", "named"), FAULTS)
async def test_every_difference_is_named(
    databases: DatabaseFactory, which: str, old: str, new: str, named: str
) -> None:
    """A fault put into a text is found, and the message names the object."""
    migration_sets = CRM_MIGRATIONS if which == "crm" else LEDGER_MIGRATIONS
    texts = schema_texts(migration_sets)
    index = [name for name, _ in migration_sets].index(which)
    assert texts[index].count(old) == 1, "no such place, or several"
    texts[index] = texts[index].replace(old, new)
    found = await differing(databases, migration_sets, texts)
    assert [line for line in found if line.startswith(named)], found
