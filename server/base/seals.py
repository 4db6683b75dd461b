"""Seals in files and in the CRM database: the copies that whoever writes the ledger's database cannot reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from ledger.seal import Finding, Seal, SealError, write_new_file

if TYPE_CHECKING:
    from server.base.database import Connection

# Read all seals, oldest first.
READ_SEALS: Final = "SELECT document, signature, public_key FROM crm.seal ORDER BY seal_number"

# Keep a seal.
INSERT_SEAL: Final = """
INSERT INTO crm.seal (seal_number, ledger_id, sealed_at, document, signature, public_key)
VALUES ($1, $2, $3, $4, $5, $6)
"""


def read_seal_file(path: Path) -> Seal:
    """Read a seal file.

    Raises:
        SealError: if it cannot be read or is no seal file.
    """
    try:
        return Seal.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"{path} cannot be read: {error}") from None
    except SealError as error:
        raise SealError(f"{path}: {error}") from None


async def read_crm_seals(crm: Connection) -> list[Seal]:
    """Return the seals in the CRM database, oldest first.

    Raises:
        SealError: if the database has no place for them yet.
    """
    try:
        return [Seal(*row) for row in await crm.fetch(READ_SEALS)]
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        raise SealError("the CRM database has no table for seals yet: run `tallypoint migrate`") from None


async def keep_seal(seal: Seal, path: Path, crm: Connection | None) -> None:
    """Write a new seal to a file and, if there is one, to the CRM database: both or none.

    Raises:
        SealError: if the file exists, or somebody else made a seal at the same moment.
    """
    content = seal.to_json().encode()
    if crm is None:
        write_new_file(path, content)
        return
    statement, written = seal.read(), False
    try:
        async with crm.transaction():
            await crm.execute(
                INSERT_SEAL,
                statement.number,
                statement.ledger_id,
                statement.sealed_at,
                seal.document,
                seal.signature,
                seal.public_key,
            )
            write_new_file(path, content)
            written = True
    except asyncpg.UniqueViolationError:
        raise SealError("another seal was made at this moment: run the command again") from None
    except BaseException:
        if written:
            _remove(path)
        raise


def _remove(path: Path) -> None:
    path.unlink()


def not_kept(files: Sequence[Seal], kept: Sequence[Seal]) -> list[Finding]:
    """Return a finding for every seal of a file that the CRM database does not have: somebody took it away there."""
    known = {seal.document for seal in kept}
    return [
        Finding(None, 0, f"seal {seal.read().number} stands in a file, and is missing in the CRM database")
        for seal in files
        if seal.document not in known
    ]
