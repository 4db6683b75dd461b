"""Opening a ledger database, with no other settings than it was opened with the first time.

With another secret no card, no phone and no access key is found; another number of books would have no effect. Both
are looked at once, by the process that starts the others or is a command: whoever hashes identifiers or keys gets its
`KeyedHash` here, except the children, whose supervisor was here before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from ledger.reading.books import find_book_count, read_book_count
from server.base.settings import Settings, StartRefusedError
from server.base.storage import Connect, Dsns, migrate_all
from server.members.identifiers import KeyedHash
from server.process.development import KEYS_FILE

if TYPE_CHECKING:
    from server.base.database import Connection

_PURPOSE: Final = "fingerprint"
_TEXT: Final = "the secret of this ledger"

# Say whether a database has got a place for the fingerprint yet.
HAS_FINGERPRINT: Final = "SELECT to_regclass('server.secret_fingerprint') IS NOT NULL"

# Keep the fingerprint, if there is none.
KEEP_FINGERPRINT: Final = """
INSERT INTO server.secret_fingerprint (fingerprint) VALUES ($1) ON CONFLICT DO NOTHING
"""

# Read the fingerprint; no row if the database was not opened since it has a place for one.
READ_FINGERPRINT: Final = "SELECT fingerprint FROM server.secret_fingerprint"


async def bring_up_to_date(dsns: Dsns, settings: Settings) -> list[str]:
    """Migrate both databases and open the books of a new ledger, as `migrate_all` does, if the settings fit the ledger.

    Settings that do not fit are refused before anything is changed: a migration cannot be taken back.

    Raises:
        StartRefusedError: The secret, if there is one, or the number of books is not this ledger's.
        MigrationError: The files and a database do not fit together.
    """
    conn = await asyncpg.connect(dsns.ledger)
    try:
        await _check_what_is_there(conn, settings)
    finally:
        await conn.close()
    return await migrate_all(dsns, settings.books)


async def open_hashes(connect: Connect, settings: Settings) -> KeyedHash:
    """Return the hashes of identifiers and access keys for a database; the first to ask makes the secret its own.

    Raises:
        StartRefusedError: The secret or the number of books is not this ledger's, there is no secret, or the database
            lacks migrations.
    """
    hashes = KeyedHash(settings.secret_bytes)
    conn = await connect()
    try:
        _check_books(settings, await _opened_books(conn))
        await conn.execute(KEEP_FINGERPRINT, fingerprint_of(hashes))
        # A statement of its own: it sees the row of whoever was faster, for whom the one above has waited.
        _check_secret(settings, hashes, await conn.fetchval(READ_FINGERPRINT))
    except asyncpg.UndefinedTableError:
        raise StartRefusedError(
            "the ledger database lacks migrations of this version: run `tallypoint migrate`"
        ) from None
    finally:
        await conn.close()
    return hashes


def fingerprint_of(hashes: KeyedHash) -> bytes:
    """Return the 32 bytes that tell one secret from another and do not give it away."""
    return hashes.of_text(_PURPOSE, _TEXT)


async def _opened_books(conn: Connection) -> int:
    try:
        return await read_book_count(conn)
    except LookupError as error:
        raise StartRefusedError(str(error)) from None


async def _check_what_is_there(conn: Connection, settings: Settings) -> None:
    """Check the settings against a database that may be empty or older than this version, reading only."""
    books = await find_book_count(conn)
    if books is not None:
        _check_books(settings, books)
    if settings.secret_key is not None and await conn.fetchval(HAS_FINGERPRINT):
        kept = await conn.fetchval(READ_FINGERPRINT)
        if kept is not None:
            _check_secret(settings, KeyedHash(settings.secret_bytes), kept)


def _check_secret(settings: Settings, hashes: KeyedHash, kept: bytes) -> None:
    if fingerprint_of(hashes) == kept:
        return
    where = f" (in development mode: secret_key in {settings.data_dir / KEYS_FILE})" if settings.development else ""
    raise StartRefusedError(
        "the secret is not the one with which this ledger database was opened first: with it every card and phone "
        f"would be unknown and every access key refused. Set TALLYPOINT_SECRET_KEY{where} to the secret that this "
        "ledger's other machines and its earlier starts have; or, if another database is meant, correct "
        "TALLYPOINT_LEDGER_DSN or TALLYPOINT_DATA_DIR. Nothing was changed"
    )


def _check_books(settings: Settings, books: int) -> None:
    """Refuse a number of books that somebody has set; one that nobody has set is only for new ledgers."""
    if "books" not in settings.model_fields_set or settings.books == books:
        return
    raise StartRefusedError(
        f"the setting books (TALLYPOINT_BOOKS, --books) is {settings.books}, but this ledger has {books}, as it was "
        f"opened with, and that cannot change: remove the setting, or set it to {books}; or, if another database is "
        "meant, correct TALLYPOINT_LEDGER_DSN or TALLYPOINT_DATA_DIR. Nothing was changed"
    )
