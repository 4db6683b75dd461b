"""Stores, terminals, keys and goods over a real database, and how workers hear of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tallypoint.v1 import store_pb2

from server.base.database import connection
from server.base.errors import Refused
from server.base.reload import Reloader
from server.edge.caller import Role
from server.shop.catalogue import Catalogue, Product, ProductRegistry
from server.shop.stores import KeyRing, StoreRegistry, Stores, new_key
from tests.integration.back_office import HASHES, NOW, BackOffice, back_office_over, connect_writer


@pytest.fixture
async def office(ledger_dsn: str) -> AsyncIterator[BackOffice]:
    async with back_office_over(ledger_dsn) as office:
        yield office


@pytest.fixture
async def stores(office: BackOffice) -> StoreRegistry:
    """A chain with one store."""
    registry = StoreRegistry(office.pool, HASHES)
    await registry.put_store("kyiv-1", "Khreshchatyk", "Europe/Kyiv")
    return registry


async def loaded_keys(office: BackOffice) -> KeyRing:
    """Return the keys as a worker that starts now knows them."""
    ring = KeyRing(HASHES)
    async with connection(office.pool) as conn:
        await ring.load(conn)
    return ring


async def test_put_store_is_listed_and_changed(stores: StoreRegistry, office: BackOffice) -> None:
    await stores.put_store("almaty-1", "Abay", "Asia/Almaty", ["south", "hyper", "south"], "pharmacy")
    await stores.put_store("kyiv-1", "Khreshchatyk 2", "Europe/Kyiv")
    listed = [(store.store_id, store.name, store.time_zone.key) for store in await stores.list_stores()]
    assert listed == [("almaty-1", "Abay", "Asia/Almaty"), ("kyiv-1", "Khreshchatyk 2", "Europe/Kyiv")]
    in_memory = Stores()
    async with connection(office.pool) as conn:
        await in_memory.load(conn)
    assert str(in_memory.time_zone("almaty-1")) == "Asia/Almaty"
    assert (in_memory.groups("almaty-1"), in_memory.partner("almaty-1")) == (frozenset({"south", "hyper"}), "pharmacy")
    assert (in_memory.groups("kyiv-1"), in_memory.partner("kyiv-1")) == (frozenset(), "")
    assert in_memory.time_zone("nowhere") is None
    assert (in_memory.groups("nowhere"), in_memory.partner("nowhere")) == (frozenset(), "")


@pytest.mark.parametrize("time_zone", ["Europe/Kiev/2", "Mars/Olympus", "", "../etc/passwd", "UTC+3"])
async def test_unknown_time_zone_is_refused(stores: StoreRegistry, time_zone: str) -> None:
    with pytest.raises(Refused, match="IANA") as refused:
        await stores.put_store("kyiv-2", "Podil", time_zone)
    assert refused.value.violations[0][0] == "store.time_zone"
    assert len(await stores.list_stores()) == 1


async def test_key_of_a_terminal_is_bound_to_it(stores: StoreRegistry, office: BackOffice) -> None:
    key = await stores.issue_terminal_key("kyiv-1", "7", NOW)
    identity = (await loaded_keys(office)).authenticate(key)
    assert identity is not None
    assert (identity.role, identity.store_id, identity.terminal_id) == (Role.TERMINAL, "kyiv-1", "7")
    assert key.startswith("tp_")
    assert len(key) > 40


async def test_new_key_of_a_terminal_ends_the_old_one(stores: StoreRegistry, office: BackOffice) -> None:
    old = await stores.issue_terminal_key("kyiv-1", "7", NOW)
    other = await stores.issue_terminal_key("kyiv-1", "8", NOW)
    new = await stores.issue_terminal_key("kyiv-1", "7", NOW)
    ring = await loaded_keys(office)
    assert [ring.authenticate(key) is not None for key in (old, new, other)] == [False, True, True]


async def test_revoked_key_ends_and_may_be_revoked_again(stores: StoreRegistry, office: BackOffice) -> None:
    key = await stores.issue_terminal_key("kyiv-1", "7", NOW)
    await stores.revoke_terminal_key("kyiv-1", "7", NOW)
    await stores.revoke_terminal_key("kyiv-1", "7", NOW)
    assert (await loaded_keys(office)).authenticate(key) is None


async def test_many_keys_for_one_terminal_at_once_leave_one(stores: StoreRegistry, office: BackOffice) -> None:
    keys = await asyncio.gather(*(stores.issue_terminal_key("kyiv-1", "7", NOW) for _ in range(8)))
    ring = await loaded_keys(office)
    assert sum(ring.authenticate(key) is not None for key in keys) == 1


async def test_no_key_without_a_store(stores: StoreRegistry) -> None:
    with pytest.raises(Refused, match="there is no store lviv-1"):
        await stores.issue_terminal_key("lviv-1", "7", NOW)
    with pytest.raises(Refused, match="there is no terminal 9"):
        await stores.revoke_terminal_key("kyiv-1", "9", NOW)


async def test_back_office_keys_have_their_role_until_revoked(stores: StoreRegistry, office: BackOffice) -> None:
    finance, crm = new_key(), new_key()
    await stores.put_backoffice_key(finance, Role.FINANCE, "ledger reports", NOW)
    await stores.put_backoffice_key(crm, Role.CRM, "crm system", NOW)
    await stores.put_backoffice_key(crm, Role.CRM, "crm system", NOW)
    ring = await loaded_keys(office)
    assert [getattr(ring.authenticate(key), "role", None) for key in (finance, crm)] == [Role.FINANCE, Role.CRM]
    await stores.revoke_backoffice_keys("crm system", NOW)
    ring = await loaded_keys(office)
    assert [ring.authenticate(key) is not None for key in (finance, crm)] == [True, False]


async def test_database_holds_no_key(stores: StoreRegistry, office: BackOffice) -> None:
    key = await stores.issue_terminal_key("kyiv-1", "7", NOW)
    rows = await office.pool.fetch("SELECT k::text AS line, k.key_hash FROM server.api_key k")
    assert all(key not in row["line"] and key.encode() not in row["key_hash"] for row in rows)
    assert len(rows) == 1


# --- goods ------------------------------------------------------------------------------------------------

MILK = store_pb2.Product(sku="1", category="dairy/milk", brand="Own", tags=["fresh", "eco"], name="Milk 1 l")
BEER = store_pb2.Product(sku="2", category="drinks/beer", brand="Lvivske", tags=["alcohol"], name="Beer 0.5 l")
BREAD = store_pb2.Product(sku="3", category="bakery", supplier="Kyivkhlib", name="Bread")


async def test_put_products_counts_what_changed(office: BackOffice) -> None:
    products = ProductRegistry(office.pool)
    assert await products.put_products([MILK, BEER]) == (2, 2)
    same_milk = store_pb2.Product(sku="1", category="dairy/milk", brand="Own", tags=["eco", "fresh"], name="Milk 1 l")
    strong_beer = store_pb2.Product(sku="2", category="drinks/beer", brand="Lvivske", tags=["alcohol", "strong"])
    assert await products.put_products([same_milk, strong_beer, BREAD]) == (2, 1)
    assert await products.put_products([same_milk, strong_beer, BREAD]) == (0, 0)
    other_bread = store_pb2.Product(sku="3", category="bakery", supplier="Tsar-Khlib", name="Bread")
    assert await products.put_products([other_bread]) == (1, 0)
    assert await products.put_products([BREAD]) == (1, 0)
    assert await products.get_product("2") == strong_beer
    assert await products.get_product("3") == BREAD
    with pytest.raises(Refused, match="no article 4"):
        await products.get_product("4")


async def test_article_named_twice_stores_nothing(office: BackOffice) -> None:
    products = ProductRegistry(office.pool)
    with pytest.raises(Refused) as refused:
        await products.put_products([MILK, BEER, MILK])
    assert refused.value.violations == (("products[2].sku", "is the same as products[0].sku"),)
    assert await office.count("server.product") == 0


async def test_catalogue_reads_only_what_changed(office: BackOffice) -> None:
    products, catalogue = ProductRegistry(office.pool), Catalogue()
    await products.put_products([MILK, BEER])
    async with connection(office.pool) as conn:
        await catalogue.load(conn)
        assert catalogue.get("1") == Product("dairy/milk", "Own", ("eco", "fresh"))
        await conn.execute("UPDATE server.product SET brand = 'behind our back' WHERE sku = '2'")
        await products.put_products([BREAD, MILK])
        await catalogue.load(conn)
    assert (len(catalogue), catalogue.get("3")) == (3, Product("bakery", "", (), "Kyivkhlib"))
    assert catalogue.get("2") == Product("drinks/beer", "Lvivske", ("alcohol",))
    assert catalogue.get("4") is None


async def test_alike_articles_share_their_memory(office: BackOffice) -> None:
    catalogue = Catalogue()
    alike = [store_pb2.Product(sku=str(n), category="dairy/milk", brand="Own", tags=["fresh"]) for n in range(50)]
    await ProductRegistry(office.pool).put_products(alike)
    async with connection(office.pool) as conn:
        await catalogue.load(conn)
    assert len({id(catalogue.get(str(n))) for n in range(50)}) == 1


# --- hearing of changes -----------------------------------------------------------------------------------


async def test_running_worker_hears_of_a_new_key_without_looking(stores: StoreRegistry, office: BackOffice) -> None:
    ring = KeyRing(HASHES)
    reloader = Reloader(lambda: connect_writer(office.dsn), {"stores": (ring.load,)}, interval_seconds=3600)
    await reloader.start()
    try:
        key = await stores.issue_terminal_key("kyiv-1", "7", NOW)
        version = await office.pool.fetchval("SELECT version FROM server.config_version WHERE topic = 'stores'")
        async with asyncio.timeout(30):
            await reloader.wait_for("stores", version)
        assert ring.authenticate(key) is not None
    finally:
        await reloader.stop()


async def test_reload_survives_the_loss_of_the_database(stores: StoreRegistry, office: BackOffice) -> None:
    ring = KeyRing(HASHES)
    attempts = 0

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        nonlocal attempts
        attempts += 1
        if attempts in (2, 3):
            raise OSError("away")
        return await connect_writer(office.dsn)

    reloader = Reloader(connect, {"stores": (ring.load,)}, interval_seconds=0.01)
    await reloader.start()
    try:
        owner = await asyncpg.connect(office.dsn)
        await owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await owner.close()
        before = reloader.version("stores")
        key = await StoreRegistry(office.pool, HASHES).issue_terminal_key("kyiv-1", "7", NOW)
        async with asyncio.timeout(30):
            await reloader.wait_for("stores", before + 1)
        assert ring.authenticate(key) is not None
        assert attempts > 3
    finally:
        await reloader.stop()


async def test_failing_loader_is_tried_again_and_keeps_the_version_back(
    stores: StoreRegistry, office: BackOffice
) -> None:
    calls: list[str] = []

    async def load(conn: object) -> None:
        calls.append("failed" if len(calls) < 2 else "loaded")
        if calls[-1] == "failed":
            raise RuntimeError("not this time")

    reloader = Reloader(lambda: connect_writer(office.dsn), {"stores": (load,)}, interval_seconds=0.01)
    with pytest.raises(RuntimeError, match="not this time"):
        await reloader.start()
    assert reloader.version("stores") == -1
    with pytest.raises(RuntimeError, match="not this time"):
        await reloader.poll()
    await reloader.poll()
    await reloader.poll()
    assert calls == ["failed", "failed", "loaded"]
    assert reloader.version("stores") == 1
    await reloader.stop()


async def test_a_key_that_was_seen_stops_working_when_it_is_revoked(stores: StoreRegistry, office: BackOffice) -> None:
    """A right key is remembered by a faster hash; not beyond the next reading of the keys."""
    ring = KeyRing(HASHES)
    key = await stores.issue_terminal_key("kyiv-1", "7", NOW)
    conn = await asyncpg.connect(office.dsn)
    await ring.load(conn)
    first = ring.authenticate(key)
    assert first is not None
    assert ring.authenticate(key) == first
    assert ring.authenticate(f"{key}x") is None
    await stores.revoke_terminal_key("kyiv-1", "7", NOW)
    await ring.load(conn)
    assert ring.authenticate(key) is None
    await conn.close()
