"""Development mode: a secret, access keys, a store and a terminal, made by the server for trying things out.

They are kept in ``development-keys.json`` in the data directory, readable by its owner only, so that they stay the
same from one start to the next.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from server.base.clock import utc_now
from server.base.database import connection
from server.base.settings import Settings, StartRefusedError
from server.base.storage import Dsns
from server.edge.caller import Role
from server.members.identifiers import KeyedHash
from server.shop.stores import KeyRing, StoreRegistry, new_key

KEYS_FILE: Final = "development-keys.json"
STORE_ID: Final = "dev"
TERMINAL_ID: Final = "dev-1"
TIME_ZONE: Final = "Europe/Kyiv"
_BACKOFFICE_ROLES: Final = {"admin": Role.ADMIN, "finance": Role.FINANCE, "crm": Role.CRM}


@dataclass(frozen=True)
class DevelopmentKeys:
    """The file with the keys, by name: secret_key, admin, finance, crm, terminal, store_id, terminal_id."""

    path: Path
    values: dict[str, str]

    def __repr__(self) -> str:
        """Hide the keys."""
        return f"DevelopmentKeys({self.path})"

    def apply_to(self, settings: Settings) -> Settings:
        """Return the settings with the secret."""
        return settings.model_copy(update={"secret_key": SecretStr(self.values["secret_key"])})

    def write(self) -> None:
        """Write the file anew, readable by its owner only."""
        new = self.path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(self.values, file, indent=2)
            file.write("\n")
        new.replace(self.path)


def development_keys(settings: Settings) -> DevelopmentKeys | None:
    """Read or make the keys of development mode; None outside of it.

    A secret that is set stays as it is. Over another one in the file it is written by `install_development_keys` only,
    when the database has been found to be its own.
    """
    if not settings.development:
        return None
    path = settings.data_dir / KEYS_FILE
    values = _read_keys(path) if path.exists() else {}
    given = "" if settings.secret_key is None else settings.secret_key.get_secret_value()
    made = {
        "secret_key": given or secrets.token_hex(32),
        **{name: new_key() for name in _BACKOFFICE_ROLES},
        "terminal": "",  # the server gives it out when the store exists
        "store_id": STORE_ID,
        "terminal_id": TERMINAL_ID,
    }
    keys = DevelopmentKeys(path, {**made, **values})
    if keys.values != values:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        keys.write()
    if given:
        keys.values["secret_key"] = given
    return keys


def with_development_secret(settings: Settings) -> Settings:
    """Return the settings of a command that runs beside a development server, with that server's secret."""
    path = settings.data_dir / KEYS_FILE
    if settings.secret_key is not None or not path.exists():
        return settings
    keys = DevelopmentKeys(path, _read_keys(path))
    return keys.apply_to(settings) if "secret_key" in keys.values else settings


def _read_keys(path: Path) -> dict[str, str]:
    try:
        values = json.loads(path.read_bytes())
        if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
            return values
        fault = "it is no object of texts"
    except (OSError, ValueError) as error:
        fault = str(error)
    raise StartRefusedError(
        f"{path} has no keys of a development server: {fault}; put it back from a copy, since the ledger's identifiers "
        "are hashed with its secret, or remove it with a ledger that is of no use"
    )


async def install_development_keys(dsns: Dsns, keys: DevelopmentKeys, hashes: KeyedHash) -> None:
    """Make the store, the terminal and the callers of development mode known to the database, and keep its secret."""
    keys.write()
    ring = KeyRing(hashes)
    now = utc_now()
    async with asyncpg.create_pool(dsns.ledger, min_size=1, max_size=1) as pool:
        registry = StoreRegistry(pool, hashes)
        async with connection(pool) as conn:
            await ring.load(conn)
        for name, role in _BACKOFFICE_ROLES.items():
            if ring.authenticate(keys.values[name]) is None:
                await registry.put_backoffice_key(keys.values[name], role, f"development-{name}", now)
        if ring.authenticate(keys.values["terminal"]) is None:
            if all(store.store_id != STORE_ID for store in await registry.list_stores()):
                await registry.put_store(STORE_ID, "Development store", TIME_ZONE)
            keys.values["terminal"] = await registry.issue_terminal_key(STORE_ID, TERMINAL_ID, now)
            keys.write()
