"""StoreService: stores, terminals, their keys, and the goods, for administrators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tallypoint.v1 import store_pb2

from server.base.clock import Clock, utc_now
from server.edge.caller import Caller, Role
from server.shop.catalogue import ProductRegistry
from server.shop.stores import StoreRegistry

_ADMIN: Final = frozenset({Role.ADMIN})

ALLOWED: Final[Mapping[str, frozenset[Role]]] = {
    "PutStore": _ADMIN,
    "ListStores": _ADMIN,
    "IssueTerminalKey": _ADMIN,
    "RevokeTerminalKey": _ADMIN,
    "PutProducts": _ADMIN,
    "GetProduct": _ADMIN,
}


class StoreServicer:
    """Answers the calls of StoreService."""

    def __init__(self, stores: StoreRegistry, products: ProductRegistry, clock: Clock = utc_now) -> None:
        """Take what writes stores and goods."""
        self._stores = stores
        self._products = products
        self._clock = clock

    async def put_store(self, request: store_pb2.PutStoreRequest, caller: Caller) -> store_pb2.PutStoreResponse:
        """Make a store or change it."""
        store = request.store
        await self._stores.put_store(store.store_id, store.name, store.time_zone, store.groups, store.partner)
        return store_pb2.PutStoreResponse(store=store)

    async def list_stores(self, request: store_pb2.ListStoresRequest, caller: Caller) -> store_pb2.ListStoresResponse:
        """List all stores."""
        return store_pb2.ListStoresResponse(
            stores=[
                store_pb2.Store(
                    store_id=store.store_id,
                    name=store.name,
                    time_zone=store.time_zone.key,
                    groups=sorted(store.groups),
                    partner=store.partner,
                )
                for store in await self._stores.list_stores()
            ]
        )

    async def issue_terminal_key(
        self, request: store_pb2.IssueTerminalKeyRequest, caller: Caller
    ) -> store_pb2.IssueTerminalKeyResponse:
        """Give a terminal a new key."""
        key = await self._stores.issue_terminal_key(
            request.store_id, request.terminal_id, self._clock(), only_without_key=request.only_without_key
        )
        return store_pb2.IssueTerminalKeyResponse(key=key)

    async def revoke_terminal_key(
        self, request: store_pb2.RevokeTerminalKeyRequest, caller: Caller
    ) -> store_pb2.RevokeTerminalKeyResponse:
        """Take a terminal's key away."""
        await self._stores.revoke_terminal_key(request.store_id, request.terminal_id, self._clock())
        return store_pb2.RevokeTerminalKeyResponse()

    async def put_products(
        self, request: store_pb2.PutProductsRequest, caller: Caller
    ) -> store_pb2.PutProductsResponse:
        """Make or change articles."""
        written = await self._products.put_products(request.products)
        return store_pb2.PutProductsResponse(changed=written.changed, added=written.added)

    async def get_product(self, request: store_pb2.GetProductRequest, caller: Caller) -> store_pb2.GetProductResponse:
        """Show an article."""
        return store_pb2.GetProductResponse(product=await self._products.get_product(request.sku))
