"""The `schema.sql` beside each set of migrations is what the migrations make, to the last comment and right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
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


def once(old: str, new: str) -> Callable[[str], str]:
    """Return a fault: one place of the text is changed."""

    def change(text: str) -> str:
        assert text.count(old) == 1, f"{old!r} stands there {text.count(old)} times"
        return text.replace(old, new)

    return change


FAULTS = {
    "a column is missing": (once("    series      text NOT NULL,\n    valid_from  date NOT NULL,\n", "    valid_from  date NOT NULL,\n"),
                            "column ledger.coupon_issued.series"),
    "columns in another order": (
        once("    debit        smallint NOT NULL,\n    credit       smallint NOT NULL,\n    lot_ordinal",
             "    credit       smallint NOT NULL,\n    debit        smallint NOT NULL,\n    lot_ordinal"),
        "column ledger.posting.credit",
    ),
    "another type": (once("purchase_number bigint NOT NULL,\n    last", "purchase_number integer NOT NULL,\n    last"),
                     "column ledger.purchase_return.purchase_number"),
    "may be null": (once("payload      bytea NOT NULL", "payload      bytea"), "column ledger.entry.payload"),
    "no default": (once("held_minor      bigint NOT NULL DEFAULT 0", "held_minor      bigint NOT NULL"),
                   "column ledger.lot.held_minor"),
    "a check changed": (once("CHECK (breakage_ppm BETWEEN 0 AND 1000000)", "CHECK (breakage_ppm BETWEEN 0 AND 100)"),
                        "constraint point_value_breakage_ppm_check of ledger.point_value"),
    "a check missing": (once(",\n    CHECK (debit <> credit)", ""), "constraint posting_check of ledger.posting"),
    "a unique key missing": (once("    UNIQUE (book, unit, close_number)\n", "    CHECK (true)\n"),
                             "constraint close_mark_book_unit_close_number_key of ledger.close_mark"),
    "an index missing": (once("CREATE INDEX hold_open ON ledger.hold (book, member_id) WHERE how IS NULL;", ""),
                         "index ledger.hold_open"),
    "an index changed": (once("next_change_at) WHERE next_change_at IS NOT NULL", "next_change_at)"),
                         "index ledger.balance_next_change"),
    "an option missing": (once(" WITH (toast_tuple_target = 8160)", ""), "table ledger.entry"),
    "a function's body changed": (once("found_lots <> cardinality(p_lots) +", "found_lots < cardinality(p_lots) +"),
                                  "function ledger.write_batch_v1("),
    "a function's setting missing": (once(" SET plan_cache_mode = force_generic_plan", ""),
                                     "function ledger.write_batch_v1("),
    "a function missing": (once("ARRAY['ledger.read_batch', 'ledger.write_batch']", "ARRAY['ledger.write_batch']"),
                           "function ledger.read_batch("),
    "a trigger on less": (once("BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.entry", "BEFORE UPDATE ON ledger.entry"),
                          "trigger entry_is_append_only of ledger.entry"),
    "a domain changed": (once("ledger.some_points AS bigint CHECK (VALUE > 0)", "ledger.some_points AS bigint CHECK (VALUE > 1)"),
                         "constraint some_points_check of ledger.some_points"),
    "a row type changed": (once("(member_id uuid, counters bytea)", "(member_id uuid, counters text)"),
                           "column ledger.counters_row.counters"),
    "a view changed": (once("member_id, -points_minor AS", "member_id, points_minor AS"), "view ledger.posting_side"),
    "a right missing": (once("GRANT UPDATE ON ledger.book_head TO tallypoint_writer;", ""), "table ledger.book_head"),
    "a right too many": (once("GRANT INSERT ON ledger.entry,", "GRANT INSERT, UPDATE ON ledger.entry,"),
                         "table ledger.entry"),
    "a right to a schema missing": (
        once("SCHEMA ledger TO tallypoint_owner, tallypoint_writer, tallypoint_reader;\nGRANT ALL",
             "SCHEMA ledger TO tallypoint_owner, tallypoint_writer;\nGRANT ALL"),
        "schema ledger",
    ),
    "a table too many": (lambda text: text + "CREATE TABLE ledger.spare ();", "table ledger.spare"),
}  # fmt: skip
"""Faults of the ledger's text, with the beginning of what must be named."""
FURTHER_FAULTS = {
    "a right to columns": ("server", once("GRANT UPDATE (number, loaded_at)", "GRANT UPDATE (number)"),
                           "column server.register_file.loaded_at"),
    "a row missing": ("server", once(", ('audience', 0)", ""), "rows of server.config_version"),
    "a collation missing": ("server", once('break_id      text COLLATE "C" PRIMARY KEY', "break_id      text PRIMARY KEY"),
                            "column server.reconciliation_break.break_id"),
    "an identity missing": ("server", once("bigint GENERATED ALWAYS AS IDENTITY", "bigint"),
                            "column server.rules_rollout.rollout"),
    "a foreign key missing": ("server", once("version          integer NOT NULL REFERENCES server.programme_version",
                                             "version          integer NOT NULL"),
                              "constraint rules_rollout_version_fkey of server.rules_rollout"),
    "a comment changed": ("crm", once("'Such as merge or family.'", "'Such as merge.'"), "column crm.transfer.reason_code"),
    "a comment on a view missing": (
        "crm", once("COMMENT ON VIEW crm.line_after_returns IS 'The positions of receipts, less what came back of them.';", ""),
        "view crm.line_after_returns"),
}  # fmt: skip
"""Faults of the other two texts, whose kinds of objects the ledger does not have."""
ALL_FAULTS = [pytest.param("ledger", *fault, id=name) for name, fault in FAULTS.items()] + [
    pytest.param(*fault, id=name) for name, fault in FURTHER_FAULTS.items()
]


@pytest.mark.parametrize(("which", "fault", "named"), ALL_FAULTS)
async def test_every_difference_is_named(
    databases: DatabaseFactory, which: str, fault: Callable[[str], str], named: str
) -> None:
    """A fault put into a text is found, and the message names the object."""
    migration_sets = CRM_MIGRATIONS if which == "crm" else LEDGER_MIGRATIONS
    names = [name for name, _ in migration_sets]
    texts = schema_texts(migration_sets)
    texts[names.index(which)] = fault(texts[names.index(which)])
    found = await differing(databases, migration_sets, texts)
    assert [line for line in found if line.startswith(named)], found
