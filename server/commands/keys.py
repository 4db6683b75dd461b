"""`tallypoint keys`: the first keys of a deployment, written straight into the ledger database.

Every call of the API needs a key, so the first ones cannot come from the API. Who runs this has the database and the
service's secret, and so has more already than any key gives.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Annotated, Final, TypeVar

import typer

from server.base.clock import utc_now
from server.base.settings import Settings
from server.base.storage import open_ledger, writer_connect, writer_pool
from server.commands.common import DataDir, Embedded, Yes, confirm, fail, load_settings, readable_errors
from server.edge.caller import Role
from server.process.development import with_development_secret
from server.process.opening import open_hashes
from server.shop.stores import StoreRegistry, new_key

APPLICATION: Final = "tallypoint keys"

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Keys of the back office.")


class BackOfficeRole(Enum):
    """The roles that a key may have; a terminal's key belongs to a store and is issued by StoreService."""

    ADMIN = "admin"
    CRM = "crm"
    FINANCE = "finance"


Name = Annotated[str, typer.Argument(help="Who calls, for the logs: a system or a person.")]
ROLE_OF: Final = {role: Role[role.name] for role in BackOfficeRole}


@app.command()
def issue(
    name: Name,
    role: Annotated[BackOfficeRole, typer.Option(help="What the key reaches.")],
    data_dir: DataDir = None,
    embedded: Embedded = None,
) -> None:
    """Make a key, print it once, and keep only its keyed hash. It works within a second; older ones stay."""
    key = new_key()
    settings = load_settings(data_dir=data_dir, embedded=embedded)
    _with_registry(settings, lambda registry: registry.put_backoffice_key(key, ROLE_OF[role], name, utc_now()))
    typer.echo(f"The key of {name} with the role {role.value}; it cannot be shown again:", err=True)
    typer.echo(key)


@app.command()
def revoke(name: Name, yes: Yes = False, data_dir: DataDir = None, embedded: Embedded = None) -> None:
    """Take all keys of a caller away. They stop working within a second; the command asks first."""
    settings = load_settings(data_dir=data_dir, embedded=embedded)
    keys = _with_registry(settings, lambda registry: registry.count_backoffice_keys())
    if name not in keys:
        near = difflib.get_close_matches(name, keys, n=1)
        raise fail(f"nobody called {name} has a key" + (f"; did you mean {near[0]}?" if near else ""))
    what = "the key" if keys[name] == 1 else f"all {keys[name]} keys"
    confirm(f"Take {what} of {name} away, so that nothing with it can call any more?", yes=yes)
    _with_registry(settings, lambda registry: registry.revoke_backoffice_keys(name, utc_now()))
    typer.echo(f"{name} has no key now.")


def _with_registry(settings: Settings, work: Callable[[StoreRegistry], Awaitable[T]]) -> T:
    settings = with_development_secret(settings)

    async def run(dsn: str) -> T:
        hashes = await open_hashes(writer_connect(dsn, APPLICATION), settings)
        async with writer_pool(dsn, APPLICATION) as pool:
            return await work(StoreRegistry(pool, hashes))

    with readable_errors(), open_ledger(settings) as dsn:
        return asyncio.run(run(dsn))
