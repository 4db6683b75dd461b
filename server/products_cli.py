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

from server.backoffice.client import Address, Key, TlsCa, back_office
from server.command import load_settings
from server.csv_rows import EXIT_ROWS_REFUSED, Batch, Refusal, Row, send_rows
from server.csv_rows import Table as FileTable

COLUMNS: Final = ("sku", "category", "brand", "supplier", "tags", "name")
_SEPARATORS: Final = re.compile(r"[;\s]+")

app = typer.Typer(no_args_is_help=True, help="The catalogue.")

DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="A CSV file, UTF-8.", exists=True, dir_okay=False)],
    errors: Annotated[Path | None, typer.Option(help="Write the refused rows to this CSV file.")] = None,
    delimiter: Annotated[str, typer.Option(help="What separates values.")] = ",",
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make or change the articles of a CSV file. Registers' receipts meet them within a second.

    The first line names the columns: sku; category as a path such as dairy/milk; brand; supplier; tags, separated by
    semicolons or spaces; name. Articles that are not in the file stay as they are. Exit code 1 means that rows were
    refused.
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
            done["changed"] += client.call(stub.PutProducts, request).changed
            return []

        sent = send_rows(FileTable(file, COLUMNS, ("sku",), delimiter), "Loading articles", message_of, send, errors)
    Console(highlight=False).print(
        f"{sent.rows:,} rows: {done['changed']:,} articles are new or different, {sent.refused:,} were refused"
    )
    if sent.refused:
        raise typer.Exit(EXIT_ROWS_REFUSED)


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
    table = Table(*COLUMNS)
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
