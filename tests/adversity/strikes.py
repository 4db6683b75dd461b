"""What strikes the service, one kind a cycle. A strike returns when the harm is done; then the lanes must go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import asyncpg
import psutil

from server.base.storage import CRM_DATABASE, LEDGER_DATABASE
from tests.adversity.service import Service
from tests.support.clock import SteppedClock
from tests.support.crm import eventually
from tests.support.cutting_proxy import SOCKET_NAME, CuttingProxy
from tests.support.faults import (
    READ_BACKENDS,
    child_of,
    database_away,
    dsn_of,
    end_backends,
    postgres_of,
    until_another_postmaster,
    until_gone,
    until_whole,
)
from tests.support.shop import Shop
from tests.support.small_disk import SmallDisk

HOUR_SECONDS: Final = 3600
MOST_WAL_SWITCHES: Final = 64

# The newest moment that a book knows.
READ_BOOKED_AT = "SELECT max(booked_at) FROM ledger.book_head"

# Let the write-ahead log go on in a new file.
SWITCH_WAL = "SELECT pg_switch_wal()"


class Scene(NamedTuple):
    """What there is to be struck."""

    service: Service
    shop: Shop
    clock: SteppedClock
    disk: SmallDisk | None

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection to the ledger with all rights."""
        conn = await asyncpg.connect(dsn_of(self.service.server, LEDGER_DATABASE))
        try:
            yield conn
        finally:
            conn.terminate()


Strike = Callable[[Scene, random.Random], Awaitable[None]]


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def signal_postmaster(number: signal.Signals) -> Strike:
    """Return the strike that sends this signal to PostgreSQL; starting it again is the supervisor's work."""

    async def strike(scene: Scene, dice: random.Random) -> None:
        pid = postgres_of(scene.service.server).pid
        assert pid is not None
        os.kill(pid, number)
        await until_another_postmaster(scene.service.server, pid)

    return strike


async def kill_helper(scene: Scene, dice: random.Random) -> None:
    """Kill one of PostgreSQL's own processes, such as its writer of the log: all connections are lost with it."""
    helpers = [process for process in _postgres_children(scene) if not _is_backend(process)]
    await _kill_inside_postgres(scene, dice.choice(helpers))


async def kill_backend(scene: Scene, dice: random.Random) -> None:
    """Kill the process of one connection of the service: all the others are lost with it."""
    async with scene.database() as conn:
        pids = [row["pid"] for row in await conn.fetch(READ_BACKENDS)]
    await _kill_inside_postgres(scene, psutil.Process(dice.choice(pids)))


async def _kill_inside_postgres(scene: Scene, victim: psutil.Process) -> None:
    before = _postgres_children(scene)
    victim.kill()
    for process in before:
        await until_gone(process)

    async def answers() -> bool:
        async with scene.database():
            return True

    await eventually(answers, "PostgreSQL has recovered")


def _postgres_children(scene: Scene) -> list[psutil.Process]:
    return psutil.Process(postgres_of(scene.service.server).pid).children()


def _is_backend(process: psutil.Process) -> bool:
    return "tallypoint" in " ".join(process.cmdline())


async def end_connections(scene: Scene, dice: random.Random) -> None:
    """End connections of the service, some at a time."""
    async with scene.database() as conn:
        for _ in range(dice.randint(3, 8)):
            assert await end_backends(conn, dice, most=4)
            await scene.shop.sell(dice.randint(1, 20))


async def cut_connections(scene: Scene, dice: random.Random) -> None:
    """Cut connections after so many bytes, and best of all between COMMIT and its answer."""
    proxy = CuttingProxy(postgres_of(scene.service.server).socket_dir / SOCKET_NAME, dice)
    wanted = dice.randint(10, 30)
    async with scene.database() as conn, proxy.in_place():
        await end_backends(conn, dice, most=1000)

        async def enough() -> bool:
            return proxy.cuts >= wanted

        await eventually(enough, f"{wanted} connections are cut")


async def fill_disk(scene: Scene, dice: random.Random) -> None:
    """Let the write-ahead log run into a full disk, and make room again after a while."""
    assert scene.disk is not None
    scene.disk.fill()
    try:
        async with scene.database() as conn:
            await _write_until_full(conn)
        await asyncio.sleep(dice.uniform(0.1, 1.5))  # the fault's length, not a wait for something
    finally:
        scene.disk.free()
    await until_whole(scene.service.server)


async def _write_until_full(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    for _ in range(MOST_WAL_SWITCHES):
        try:
            await conn.fetchval(SWITCH_WAL)
            await conn.execute("SELECT pg_logical_emit_message(true, 'adversity', 'one more')")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return
    raise AssertionError("the disk is full, and the write-ahead log goes on")


async def crm_away(scene: Scene, dice: random.Random) -> None:
    """Take the CRM database away; registers must not notice."""
    async with scene.database() as conn, database_away(conn, CRM_DATABASE):
        await scene.shop.sell(dice.randint(20, 150))


# --- the service --------------------------------------------------------------------------------------------------


def kill_child(*names: str) -> Strike:
    """Return the strike that kills one of these processes; starting it again is the supervisor's work."""

    async def strike(scene: Scene, dice: random.Random) -> None:
        victim = await child_of(scene.service.server, dice.choice(names))
        victim.kill()
        await until_gone(victim)

    return strike


async def pause_worker(scene: Scene, dice: random.Random) -> None:
    """Let a worker sleep in the middle of whatever it does, while the other one works; then let it go on."""
    victim = await child_of(scene.service.server, dice.choice(("worker-1", "worker-2")))
    victim.suspend()
    try:
        await asyncio.sleep(dice.uniform(0.2, 1.5))  # the fault's length, not a wait for something
    finally:
        victim.resume()


async def kill_service(scene: Scene, dice: random.Random) -> None:
    """Kill the supervisor and all its children, and start the service again."""
    await asyncio.to_thread(scene.service.kill)
    await asyncio.to_thread(scene.service.start)


async def restart_service(scene: Scene, dice: random.Random) -> None:
    """Stop the service as an upgrade does, and start it again."""
    await asyncio.to_thread(scene.service.stop)
    await asyncio.to_thread(scene.service.start)


async def step_clock_back(scene: Scene, dice: random.Random) -> None:
    """Step the service's clock back an hour, and forward again: the books' own time never goes back."""
    async with scene.database() as conn:
        with scene.clock.stepped(-HOUR_SECONDS):
            await scene.shop.go_on()  # what read the clock before the step is booked now
            before = await conn.fetchval(READ_BOOKED_AT)
            await scene.shop.sell(dice.randint(20, 100))
            after = await conn.fetchval(READ_BOOKED_AT)
    assert after > before, "nothing was booked"
    assert (after - before).total_seconds() < 0.1, f"the clock was not stepped: {before} and then {after}"


class Kind(NamedTuple):
    """A kind of cycle: its name, the strike, and how often it comes among the others.

    ``in_short`` says that it belongs into the short run of the tests.
    """

    name: str
    strike: Strike
    weight: int = 3
    needs_disk: bool = False
    in_short: bool = True


KINDS: Final = (
    Kind("PostgreSQL killed", signal_postmaster(signal.SIGKILL)),
    Kind("PostgreSQL stopped at once", signal_postmaster(signal.SIGQUIT)),
    Kind("PostgreSQL stopped in order", signal_postmaster(signal.SIGINT)),
    Kind("a helper of PostgreSQL killed", kill_helper),
    Kind("a backend killed", kill_backend),
    Kind("backends ended", end_connections),
    Kind("connections cut", cut_connections),
    Kind("full disk for the WAL", fill_disk, needs_disk=True),
    Kind("a worker killed", kill_child("worker-1", "worker-2")),
    Kind("a worker paused", pause_worker),
    Kind("the back office killed", kill_child("backoffice")),
    Kind("the CRM stream killed", kill_child("crm-stream")),
    Kind("the CRM database away", crm_away),
    Kind("the clock back an hour", step_clock_back),
    Kind("everything killed", kill_service, weight=1),
    Kind("the service restarted", restart_service, weight=1, in_short=False),
)
