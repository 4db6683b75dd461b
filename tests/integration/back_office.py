"""A back office over a fresh ledger, for tests: everything that its calls use, put together without a port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import journal_pb2, member_pb2

from ledger.booking.opening import open_books
from ledger.reading.journal import read_entries
from server.base.database import connection
from server.members.directory import Directory
from server.members.identifiers import IdentifierReader, KeyedHash
from server.members.records import MemberRow
from server.members.registry import AdminMessage, Registry

Connect = Callable[[], "Awaitable[asyncpg.Connection[asyncpg.Record]]"]

BOOKS = 4
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HASHES = KeyedHash(b"a secret for tests, of 32 bytes.")
READER = IdentifierReader.of_settings(["none8:5", "ean13:22"], "UA")

OLENA = member_pb2.NewMember(
    profile=member_pb2.Profile(name="Olena Koval", birthday="1990-02-28", language="uk"),
    phone="050 123 45 67",
    card_numbers=["51000001"],
    digital_token="wallet:olena",
)
"""Somebody with one identifier of each kind."""


@dataclass(frozen=True)
class BackOffice:
    """A ledger's database with what reads and writes members."""

    dsn: str
    pool: asyncpg.Pool[asyncpg.Record]
    registry: Registry

    async def register(self, person: member_pb2.NewMember, message_id: str = "") -> MemberRow:
        """Register somebody with a message of its own."""
        request = member_pb2.RegisterMemberRequest(message_id=message_id or str(uuid4()), member=person)
        return await self.registry.register(AdminMessage.of(request.message_id, request), person, NOW)

    async def set_status(self, row: MemberRow, status: api.MemberStatus) -> MemberRow:
        """Change a member's status with a message of its own."""
        request = member_pb2.SetMemberStatusRequest(
            message_id=str(uuid4()), member_id=str(row.member_id), status=status, reason="test"
        )
        message = AdminMessage.of(request.message_id, request)
        return await self.registry.set_status(message, row.member_id, status, "test", NOW)

    async def replace_card(self, row: MemberRow, old: str, new: str) -> MemberRow:
        """Replace a member's card with a message of its own."""
        request = member_pb2.ReplaceCardRequest(
            message_id=str(uuid4()), member_id=str(row.member_id), old_card_number=old, new_card_number=new
        )
        message = AdminMessage.of(request.message_id, request)
        return await self.registry.replace_card(message, row.member_id, old, new, NOW)

    async def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(await self.pool.fetchval(f"SELECT count(*) FROM {table}"))

    async def changes(self) -> dict[str, list[int]]:
        """Return the versions that the ledger tells of, by member, in the order of the books."""
        versions: dict[str, list[int]] = {}
        async with connection(self.pool) as conn:
            for book in range(BOOKS):
                for entry in await read_entries(conn, book, 0, 100_000):
                    versions.setdefault(str(entry.member_id), []).append(_version(entry.payload))
        return versions

    @asynccontextmanager
    async def directory(self, connect: Connect | None = None) -> AsyncIterator[Directory]:
        """Open a directory as a worker does, perhaps with another way to connect."""
        directory = Directory(connect or (lambda: connect_writer(self.dsn)), READER, HASHES, BOOKS)
        try:
            yield directory
        finally:
            await directory.close()


async def connect_writer(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    """Connect as the server's processes do."""
    return await asyncpg.connect(dsn, server_settings={"role": "tallypoint_writer"})


@asynccontextmanager
async def back_office_over(dsn: str) -> AsyncIterator[BackOffice]:
    """Open the books of a fresh ledger, and a back office over it."""
    owner = await asyncpg.connect(dsn)
    await open_books(owner, BOOKS)
    await owner.close()
    async with asyncpg.create_pool(dsn, min_size=0, max_size=16, server_settings={"role": "tallypoint_writer"}) as pool:
        yield BackOffice(dsn, pool, Registry(pool, READER, HASHES, BOOKS))


def _version(payload: bytes) -> int:
    return journal_pb2.Event.FromString(payload).member_change.version
