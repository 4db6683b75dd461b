"""What everything that reads or writes PostgreSQL shares: the connection's type, and its loss as a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar, cast

import asyncpg
from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

T = TypeVar("T")

ATTEMPTS: Final = 20
"""How often work is decided anew because somebody else wrote the same rows at the same moment."""

RETRY_AFTER_SECONDS: Final = 1.0
"""A restart of PostgreSQL takes a second or two; a fail-over longer, and callers come again."""

CONNECTION_LOST: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that dies in the middle of a statement can leave this behind
    asyncpg.OperatorInterventionError,  # shutting down, starting up, or ended by an administrator
    asyncpg.TooManyConnectionsError,
    TimeoutError,
)
"""What asyncpg raises when the database, and not the statement, is at fault."""


@contextmanager
def lost_connection_refused() -> Iterator[None]:
    """Turn the loss of the database inside the block into a refusal that callers may send again.

    Raises:
        Refused: LEDGER_UNAVAILABLE with a delay. If the block was committing, the outcome is unknown.
    """
    try:
        yield
    except CONNECTION_LOST as error:
        raise ledger_unavailable(error) from error


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection of the pool; its loss is Refused as LEDGER_UNAVAILABLE."""
    with lost_connection_refused():
        async with pool.acquire() as conn:
            yield cast("Connection", conn)  # the pool's proxy does all that a connection does


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Lend a connection of the pool inside a transaction, which is rolled back if the block raises."""
    async with connection(pool) as conn, conn.transaction():
        yield conn


class Raced(Exception):
    """Somebody else wrote the same request meanwhile: decide again, with what they wrote."""


async def in_transaction(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do work in one transaction, again if it met others in the middle of theirs; what it refuses is rolled back.

    Raises:
        Refused: what the work refuses; LEDGER_UNAVAILABLE, after which sending the same request again is safe.
    """
    for _ in range(ATTEMPTS):
        try:
            async with transaction(pool) as conn:
                return await work(conn)
        except (Raced, asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            continue
    raise Refused(
        api.REFUSAL_REASON_OVERLOADED,
        f"others were at the same correction {ATTEMPTS} times in a row; send the request again",
        retry_after_seconds=1.0,
    )


def ledger_unavailable(error: BaseException) -> Refused:
    """Return the refusal for a database that cannot be reached."""
    return Refused(
        api.REFUSAL_REASON_LEDGER_UNAVAILABLE,
        f"the database cannot be reached ({type(error).__name__}); send the same message again",
        cashier_text="The loyalty service does not answer at the moment. Try again, or sell without the card.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
