"""The goods: written by administrators, kept in the memory of every worker for looking up receipt lines.

A chain has some hundred thousand articles, but few distinct combinations of category, brand, supplier and tags: an
article in memory is its SKU and a reference to its combination.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import store_pb2

from server.base.database import connection, transaction
from server.base.errors import Refused
from server.shop.stores import raise_version

if TYPE_CHECKING:
    from server.base.database import Connection, Pool

TOPIC: Final = "products"
"""The topic in `server.config_version` that every write here raises."""
ROWS_PER_FETCH: Final = 5000

# Make articles or change them. Those that are as they were keep their version, and are not counted.
PUT_PRODUCTS: Final = """
INSERT INTO server.product AS p (sku, category, brand, supplier, tags, name, version)
SELECT n.sku, n.category, n.brand, n.supplier, string_to_array(n.tags, E'\\n'), n.name, $7
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
     AS n (sku, category, brand, supplier, tags, name)
ON CONFLICT (sku) DO UPDATE
SET category = excluded.category, brand = excluded.brand, supplier = excluded.supplier, tags = excluded.tags,
    name = excluded.name, version = excluded.version
WHERE (p.category, p.brand, p.supplier, p.tags, p.name)
      IS DISTINCT FROM (excluded.category, excluded.brand, excluded.supplier, excluded.tags, excluded.name)
"""

# How many of these articles there are.
COUNT_PRESENT: Final = "SELECT count(*) FROM server.product WHERE sku = ANY ($1::text[])"

# One article.
READ_PRODUCT: Final = "SELECT sku, category, brand, supplier, tags, name FROM server.product WHERE sku = $1"

# Articles that changed after a version.
READ_CHANGED: Final = "SELECT sku, category, brand, supplier, tags, version FROM server.product WHERE version > $1"


class Product(NamedTuple):
    """What promotions look at in an article; the tags are sorted."""

    category: str
    brand: str
    tags: tuple[str, ...]
    supplier: str = ""


class Written(NamedTuple):
    """How many articles are new or different from before, and how many of these are new."""

    changed: int
    added: int


class ProductRegistry:
    """Writes and shows articles."""

    def __init__(self, pool: Pool) -> None:
        """Work over a pool whose connections have the writer's role."""
        self._pool = pool

    async def put_products(self, products: Sequence[store_pb2.Product]) -> Written:
        """Make or change all of these articles, or none; return how many are new or different.

        Raises:
            Refused: INVALID_REQUEST if an article is named twice or a tag is broken into lines.
        """
        _check_products(products)
        async with transaction(self._pool) as conn:
            version = await raise_version(conn, TOPIC)
            skus = [product.sku for product in products]
            present = await conn.fetchval(COUNT_PRESENT, skus)
            status = await conn.execute(
                PUT_PRODUCTS,
                skus,
                [product.category for product in products],
                [product.brand for product in products],
                [product.supplier for product in products],
                ["\n".join(sorted(set(product.tags))) for product in products],
                [product.name for product in products],
                version,
            )
        return Written(int(status.split()[-1]), len(skus) - present)

    async def get_product(self, sku: str) -> store_pb2.Product:
        """Return an article; Refused NOT_FOUND if there is none."""
        async with connection(self._pool) as conn:
            record = await conn.fetchrow(READ_PRODUCT, sku)
        if record is None:
            raise Refused(
                api.REFUSAL_REASON_NOT_FOUND,
                f"there is no article {sku}",
                violations=[("sku", "is not in the catalogue")],
            )
        return store_pb2.Product(**dict(record))


class Catalogue:
    """All articles, in memory; `load` brings them up to date by reading only those that changed."""

    def __init__(self) -> None:
        """Start empty."""
        self._products: dict[str, Product] = {}
        self._combinations: dict[Product, Product] = {}
        self._version = 0

    def __len__(self) -> int:
        """Return the number of articles."""
        return len(self._products)

    def get(self, sku: str) -> Product | None:
        """Return an article, or None if the catalogue does not have it."""
        return self._products.get(sku)

    async def load(self, conn: Connection) -> None:
        """Read the articles that changed since the last time."""
        newest = self._version
        async with conn.transaction():  # a cursor needs one
            async for record in conn.cursor(READ_CHANGED, self._version, prefetch=ROWS_PER_FETCH):
                product = Product(record["category"], record["brand"], tuple(record["tags"]), record["supplier"])
                self._keep_product(record["sku"], product)
                newest = max(newest, record["version"])
        self._version = newest

    def _keep_product(self, sku: str, product: Product) -> None:
        kept = self._combinations.get(product)
        if kept is None:
            tags = tuple(map(sys.intern, product.tags))
            supplier = sys.intern(product.supplier)
            kept = Product(sys.intern(product.category), sys.intern(product.brand), tags, supplier)
            self._combinations[kept] = kept
        self._products[sku] = kept


def _check_products(products: Sequence[store_pb2.Product]) -> None:
    first_index: dict[str, int] = {}
    violations: list[tuple[str, str]] = []
    for index, product in enumerate(products):
        earlier = first_index.setdefault(product.sku, index)
        if earlier != index:
            violations.append((f"products[{index}].sku", f"is the same as products[{earlier}].sku"))
        if any("\n" in tag for tag in product.tags):
            violations.append((f"products[{index}].tags", "must not have line breaks"))
    if violations:
        raise Refused(
            api.REFUSAL_REASON_INVALID_REQUEST,
            "articles are named twice, or tags have line breaks: nothing was stored",
            violations=violations,
        )
