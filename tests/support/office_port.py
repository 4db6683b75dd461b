"""The back office's port over a ledger database, in a thread of this process: the very calls, without a supervisor."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from server.base.clock import utc_now
from server.base.settings import Settings
from server.base.storage import Dsns, writer_connect, writer_pool
from server.edge.caller import Role
from server.process.back_office import backoffice_main
from server.process.child import ChildTask
from server.process.opening import open_hashes
from server.shop.stores import StoreRegistry, new_key

SECRET = "a secret of the back office in tests, 40 bytes"
START_SECONDS = 60


@dataclass
class OfficePort:
    """A running back office: its address, and keys by the names of people with the role finance; `admin` has all."""

    address: str
    keys: dict[str, str] = field(default_factory=dict)

    def environment(self, who: str = "olena") -> dict[str, str]:
        """Return the variables with which a command reaches it."""
        return {"TALLYPOINT_ADMIN_ADDRESS": self.address, "TALLYPOINT_ADMIN_KEY": self.keys[who]}


@contextmanager
def office_port(dsn: str) -> Iterator[OfficePort]:
    """Answer the back office's calls over a ledger that has its books and its programme."""
    settings = Settings(secret_key=SecretStr(SECRET), ledger_dsn=SecretStr(dsn), card_schemes=("ean13:29",))
    with socket.socket() as reserved:  # its number is ours until the server shares it
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = OfficePort(f"127.0.0.1:{reserved.getsockname()[1]}")
        task = ChildTask("backoffice", settings, Dsns(dsn, dsn), "", port.address, Path())
        ready = threading.Event()
        loop, stop = asyncio.new_event_loop(), asyncio.Event()

        async def run() -> None:
            port.keys = await _issue(settings, dsn)
            await backoffice_main(task, ready.set, stop)

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="office port")
        thread.start()
        try:
            assert ready.wait(START_SECONDS), "the back office does not start"
            yield port
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


async def _issue(settings: Settings, dsn: str) -> dict[str, str]:
    hashes = await open_hashes(writer_connect(dsn, "test"), settings)
    people = {"olena": Role.FINANCE, "borys": Role.FINANCE, "admin": Role.ADMIN}
    keys = {name: new_key() for name in people}
    async with writer_pool(dsn, "test") as pool:
        registry = StoreRegistry(pool, hashes)
        for name, role in people.items():
            await registry.put_backoffice_key(keys[name], role, name, utc_now())
    return keys
