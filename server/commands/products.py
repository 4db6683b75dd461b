"""`tallypoint products`: the catalogue, for administrators, as a client of the back office."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from tallypoint.v1 import store_pb2, store_pb2_grpc

from server.commands.client import Address, Key, TlsCa, back_office
from server.commands.common import load_settings
from server.commands.csv_rows import Column, Kind, Refusal, Row
from server.commands.csv_rows import Table as FileTable
from server.commands.csv_rows.options import Delimiter, Encoding, Errors, File, Verbatim, reading_of
from server.commands.csv_rows.sending import Batch, send_rows

COLUMNS: Final = (
    Column("sku", Kind.ARTICLE),
    Column("category"),
    Column("brand"),
    Column("supplier"),
    Column("tags", also=("tag",)),
    Column("name"),
)
_SEPARATORS: Final = re.compile(r"[;,|\s]+")

app = typer.Typer(no_args_is_help=True, help="The catalogue.")

DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]


@app.command()
def load(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    file: File,
    errors: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    verbatim: Verbatim = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make or change the articles of a CSV file. Registers' receipts meet them within a second.

    The first line names the columns: sku; category as a path such as dairy/milk; brand; supplier; tags, separated by
    semicolons, commas or spaces; name. Articles that are not in the file stay as they are. Exit code 1 means that rows
    were refused.
    """
    lines: dict[str, int] = {}

    def message_of(row: Row) -> store_pb2.Product:
        product = _product(row)
        first = lines.setdefault(product.sku, row.line)
        if product.sku and first != row.line:
            row.wrong("sku", f"stands in line {first} already")
        return product

    done: Counter[str] = Counter()
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        stub = store_pb2_grpc.StoreServiceStub(client.channel)

        def send(batch: Batch[store_pb2.Product]) -> Iterable[Refusal]:
            request = store_pb2.PutProductsRequest(products=batch.messages)
            response = client.attempt(stub.PutProducts, request)
            unchanged = len(batch.rows) - response.changed
            done.update(new=response.added, changed=response.changed - response.added, unchanged=unchanged)
            return []

        table = FileTable(file, COLUMNS, ("sku",), reading_of(delimiter, encoding, verbatim=verbatim))
        sent = send_rows(table, "Loading articles", message_of, send, errors)
    sent.finish(
        f"{done['new']:,} articles are new, {done['changed']:,} were changed, "
        f"{done['unchanged']:,} were there already, {sent.refused:,} were refused"
    )


@app.command()
def show(
    sku: Annotated[str, typer.Argument(help="The article's number.")],
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show an article."""
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        stub = store_pb2_grpc.StoreServiceStub(client.channel)
        product = client.call(stub.GetProduct, store_pb2.GetProductRequest(sku=sku)).product
    table = Table(*(column.name for column in COLUMNS))
    tags = "; ".join(product.tags)
    table.add_row(product.sku, product.category, product.brand, product.supplier, tags, product.name)
    Console().print(table)


def _product(row: Row) -> store_pb2.Product:
    return store_pb2.Product(
        sku=row.text("sku"),
        category=row.text("category"),
        brand=row.text("brand"),
        supplier=row.text("supplier"),
        tags=[tag for tag in _SEPARATORS.split(row.text("tags")) if tag],
        name=row.text("name"),
    )
