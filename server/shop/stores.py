"""Stores, their terminals, and the keys by which callers are known."""

from __future__ import annotations

import base64
import hashlib
import secrets
import zoneinfo
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from tallypoint.v1 import common_pb2 as api

from server.base.database import connection, transaction
from server.base.errors import Refused
from server.base.reload import NEWS_CHANNEL
from server.edge.caller import Identity, Role
from server.members.identifiers import KeyedHash

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

TOPIC: Final = "stores"
"""The topic in `server.config_version` that every write here raises."""
KEY_PREFIX: Final = "tp_"
"""Keys are recognised by it, in logs of others and by scanners for leaked secrets."""
KEY_BYTES: Final = 25
"""200 random bits: 40 letters of base 32, without padding."""
_KEY_PURPOSE: Final = "api_key"
_SEEN_BYTES: Final = 32

# Raise a topic's version, put the topic's writers in a queue, and wake who waits for news once this is committed.
RAISE_VERSION: Final = f"""
UPDATE server.config_version SET version = version + 1 WHERE topic = $1
RETURNING version, pg_notify('{NEWS_CHANNEL}', topic)
"""  # noqa: S608 - a constant

# Make a store or change it.
PUT_STORE: Final = """
INSERT INTO server.store (store_id, name, time_zone, groups, partner) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (store_id) DO UPDATE
SET name = excluded.name, time_zone = excluded.time_zone, groups = excluded.groups, partner = excluded.partner
"""

# All stores, by id.
READ_STORES: Final = "SELECT store_id, name, time_zone, groups, partner FROM server.store ORDER BY store_id"

# Whether there is a store.
HAS_STORE: Final = "SELECT 1 FROM server.store WHERE store_id = $1"

# Make a terminal if it is new.
PUT_TERMINAL: Final = "INSERT INTO server.terminal (store_id, terminal_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"

# Whether there is a terminal.
HAS_TERMINAL: Final = "SELECT 1 FROM server.terminal WHERE store_id = $1 AND terminal_id = $2"

# Whether a terminal has a key that works.
HAS_KEY: Final = "SELECT 1 FROM server.api_key WHERE store_id = $1 AND terminal_id = $2 AND revoked_at IS NULL LIMIT 1"

# Names of back-office callers with how many keys each has.
COUNT_KEYS: Final = """
SELECT name, count(*) FROM server.api_key WHERE store_id IS NULL AND revoked_at IS NULL GROUP BY name
"""

# Take away the key of a terminal.
REVOKE_TERMINAL_KEY: Final = """
UPDATE server.api_key SET revoked_at = $3 WHERE store_id = $1 AND terminal_id = $2 AND revoked_at IS NULL
"""

# Take away the keys of a back-office caller.
REVOKE_KEYS_OF: Final = "UPDATE server.api_key SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL"

# Keep a key that was given out; one that is there stays as it is.
PUT_KEY: Final = """
INSERT INTO server.api_key (key_hash, role, name, store_id, terminal_id, issued_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING
"""

# All keys that work.
READ_KEYS: Final = "SELECT key_hash, role, name, store_id, terminal_id FROM server.api_key WHERE revoked_at IS NULL"


class Store(NamedTuple):
    """A place that sells, and the time zone in which its dates are judged.

    `groups` are names by which promotions choose stores, `partner` the coalition partner that runs it; empty for the
    chain itself.
    """

    store_id: str
    name: str
    time_zone: ZoneInfo
    groups: frozenset[str] = frozenset()
    partner: str = ""


async def raise_version(conn: Connection, topic: str) -> int:
    """Raise a topic's version in the caller's transaction and return it; to be called before the topic is written."""
    return int(await conn.fetchval(RAISE_VERSION, topic))


def new_key() -> str:
    """Return a random key."""
    return KEY_PREFIX + base64.b32encode(secrets.token_bytes(KEY_BYTES)).decode().lower()


class StoreRegistry:
    """Writes stores, terminals and keys."""

    def __init__(self, pool: Pool, hashes: KeyedHash) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool
        self._hashes = hashes

    async def put_store(
        self, store_id: str, name: str, time_zone: str, groups: Iterable[str] = (), partner: str = ""
    ) -> None:
        """Make a store or change it; Refused INVALID_REQUEST for an unknown time zone."""
        if time_zone not in zoneinfo.available_timezones():
            raise Refused(
                api.REFUSAL_REASON_INVALID_REQUEST,
                f'there is no time zone {time_zone!r}: give an IANA name such as "Europe/Kyiv"',
                violations=[("store.time_zone", 'is not an IANA time zone such as "Europe/Kyiv"')],
            )
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            await conn.execute(PUT_STORE, store_id, name, time_zone, sorted(set(groups)), partner)

    async def list_stores(self) -> list[Store]:
        """Return all stores in the order of their ids."""
        async with connection(self._pool) as conn:
            return await read_stores(conn)

    async def issue_terminal_key(
        self, store_id: str, terminal_id: str, now: datetime, *, only_without_key: bool = False
    ) -> str:
        """Return a new key of a terminal, which is made if it is new; its key before stops working.

        Raises:
            Refused: NOT_FOUND if there is no such store; ALREADY_EXISTS, if ``only_without_key``, for one with a key.
        """
        key = new_key()
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            if not await conn.fetchval(HAS_STORE, store_id):
                raise _no_store(store_id)
            if only_without_key and await conn.fetchval(HAS_KEY, store_id, terminal_id):
                raise Refused(
                    api.REFUSAL_REASON_ALREADY_EXISTS,
                    f"terminal {terminal_id} of store {store_id} has a key, which would stop working",
                    violations=[("terminal_id", "has a key that works")],
                )
            await conn.execute(PUT_TERMINAL, store_id, terminal_id)
            await conn.execute(REVOKE_TERMINAL_KEY, store_id, terminal_id, now)
            name = f"{store_id}/{terminal_id}"
            await conn.execute(PUT_KEY, self._hash(key), Role.TERMINAL.value, name, store_id, terminal_id, now)
        return key

    async def revoke_terminal_key(self, store_id: str, terminal_id: str, now: datetime) -> None:
        """Take a terminal's key away, if it has one; Refused NOT_FOUND if there is no such terminal."""
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            if not await conn.fetchval(HAS_TERMINAL, store_id, terminal_id):
                raise Refused(
                    api.REFUSAL_REASON_NOT_FOUND,
                    f"there is no terminal {terminal_id} in store {store_id}",
                    violations=[("terminal_id", "is not a terminal of this store")],
                )
            await conn.execute(REVOKE_TERMINAL_KEY, store_id, terminal_id, now)

    async def put_backoffice_key(self, key: str, role: Role, name: str, now: datetime) -> None:
        """Keep a key for a back-office caller, if it is not kept yet; a caller may have several."""
        if role is Role.TERMINAL:
            raise ValueError("a terminal's key belongs to a store: use issue_terminal_key")
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            await conn.execute(PUT_KEY, self._hash(key), role.value, name, None, None, now)

    async def count_backoffice_keys(self) -> dict[str, int]:
        """Return how many keys each back-office caller has."""
        async with connection(self._pool) as conn:
            return {row["name"]: row["count"] for row in await conn.fetch(COUNT_KEYS)}

    async def revoke_backoffice_keys(self, name: str, now: datetime) -> None:
        """Take all keys of a back-office caller away."""
        async with transaction(self._pool) as conn:
            await raise_version(conn, TOPIC)
            await conn.execute(REVOKE_KEYS_OF, name, now)

    def _hash(self, key: str) -> bytes:
        return self._hashes.of_text(_KEY_PURPOSE, key)


class KeyRing:
    """Knows callers by their keys, in memory; `load` brings it up to date.

    No key stays in memory: one that was right is known again by a faster hash (6 µs in a busy worker, for the 30 of an
    HMAC), under a secret of this process.
    """

    def __init__(self, hashes: KeyedHash) -> None:
        """Start empty: nobody is known before the first `load`."""
        self._hashes = hashes
        self._identities: Mapping[bytes, Identity] = {}
        self._secret = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._seen: dict[bytes, Identity] = {}

    def authenticate(self, bearer_key: str) -> Identity | None:
        """Return whom a key stands for, or None."""
        digest = hashlib.blake2b(bearer_key.encode(), key=self._secret, digest_size=_SEEN_BYTES).digest()
        identity = self._seen.get(digest)
        if identity is None:
            identity = self._identities.get(self._hashes.of_text(_KEY_PURPOSE, bearer_key))
            if identity is not None:
                self._seen[digest] = identity
        return identity

    async def load(self, conn: Connection) -> None:
        """Read all keys that work."""
        self._identities = {
            record["key_hash"]: Identity(
                Role(record["role"]), record["name"], record["store_id"] or "", record["terminal_id"] or ""
            )
            for record in await conn.fetch(READ_KEYS)
        }
        self._seen = {}  # some of them may have been revoked


class Stores:
    """The stores, in memory; `load` brings them up to date."""

    def __init__(self) -> None:
        """Start empty."""
        self._stores: Mapping[str, Store] = {}

    def time_zone(self, store_id: str) -> ZoneInfo | None:
        """Return the time zone of a store, or None if there is no such store."""
        store = self._stores.get(store_id)
        return None if store is None else store.time_zone

    def groups(self, store_id: str) -> frozenset[str]:
        """Return the groups of a store; none if there is no such store."""
        store = self._stores.get(store_id)
        return frozenset() if store is None else store.groups

    def partner(self, store_id: str) -> str:
        """Return the coalition partner that runs a store; empty for the chain itself, or if there is no such store."""
        store = self._stores.get(store_id)
        return "" if store is None else store.partner

    async def load(self, conn: Connection) -> None:
        """Read all stores."""
        self._stores = {store.store_id: store for store in await read_stores(conn)}


async def read_stores(conn: Connection) -> list[Store]:
    """Return all stores in the order of their ids."""
    return [
        Store(r["store_id"], r["name"], ZoneInfo(r["time_zone"]), frozenset(r["groups"]), r["partner"])
        for r in await conn.fetch(READ_STORES)
    ]


def _no_store(store_id: str) -> Refused:
    return Refused(
        api.REFUSAL_REASON_NOT_FOUND,
        f"there is no store {store_id}: put it first",
        violations=[("store_id", "is not a store")],
    )
