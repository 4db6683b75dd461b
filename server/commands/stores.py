"""`tallypoint stores`: stores and their terminals' keys, for administrators, as a client of the back office."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.table import Table
from tallypoint.v1 import store_pb2, store_pb2_grpc

from server.commands.client import Address, BackOfficeClient, CallFailed, Key, TlsCa, back_office
from server.commands.common import Yes, confirm, fail, load_settings

app = typer.Typer(no_args_is_help=True, help="Stores and terminals.")

Store = Annotated[str, typer.Argument(help="The store's id, as it stands in receipt keys.")]
Terminal = Annotated[str, typer.Argument(help="The terminal's id inside the store.")]
DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]


@app.command()
def put(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    store_id: Store,
    time_zone: Annotated[str, typer.Option(help='The IANA name of its time zone, such as "Europe/Kyiv".')],
    name: Annotated[str, typer.Option(help="Its name for people.")] = "",
    group: Annotated[list[str] | None, typer.Option(help="A group that it belongs to; may be repeated.")] = None,
    partner: Annotated[str, typer.Option(help="The coalition partner that runs it; empty for the chain.")] = "",
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make a store, or change all that is kept of it: what is not given is empty afterwards."""
    store = store_pb2.Store(store_id=store_id, name=name, time_zone=time_zone, groups=group or [], partner=partner)
    with _stores(data_dir, address, key, tls_ca) as (client, stub):
        client.call(stub.PutStore, store_pb2.PutStoreRequest(store=store))
    typer.echo(f"Store {store_id} is kept.")


@app.command("list")
def list_stores(address: Address = None, key: Key = None, tls_ca: TlsCa = None, data_dir: DataDir = None) -> None:
    """Show all stores."""
    with _stores(data_dir, address, key, tls_ca) as (client, stub):
        response = client.call(stub.ListStores, store_pb2.ListStoresRequest())
    table = Table("store", "name", "time zone", "groups", "partner")
    for store in response.stores:
        table.add_row(store.store_id, store.name, store.time_zone, ", ".join(store.groups), store.partner)
    Console().print(table)


@app.command()
def issue_key(
    store_id: Store,
    terminal_id: Terminal,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
    yes: Yes = False,
) -> None:
    """Give a terminal a new key, print it once; the terminal's key before stops working within a second.

    If it has one, the command asks first: a till may be using it.
    """
    request = store_pb2.IssueTerminalKeyRequest(store_id=store_id, terminal_id=terminal_id, only_without_key=not yes)
    with _stores(data_dir, address, key, tls_ca) as (client, stub):
        try:
            response = client.attempt(stub.IssueTerminalKey, request)
        except CallFailed as failure:
            if failure.code is not grpc.StatusCode.ALREADY_EXISTS:
                raise fail(str(failure)) from None
            confirm(f"{failure.message}. Give it a new one?", yes=yes)
            request.only_without_key = False
            response = client.call(stub.IssueTerminalKey, request)
    typer.echo(f"The key of terminal {terminal_id} of store {store_id}; it cannot be shown again:", err=True)
    typer.echo(response.key)


@app.command()
def revoke_key(
    store_id: Store,
    terminal_id: Terminal,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
    yes: Yes = False,
) -> None:
    """Take a terminal's key away; it stops working within a second. The command asks first."""
    confirm(f"Take the key of terminal {terminal_id} of store {store_id} away, so that it stops working?", yes=yes)
    request = store_pb2.RevokeTerminalKeyRequest(store_id=store_id, terminal_id=terminal_id)
    with _stores(data_dir, address, key, tls_ca) as (client, stub):
        client.call(stub.RevokeTerminalKey, request)
    typer.echo(f"Terminal {terminal_id} of store {store_id} has no key now.")


@contextmanager
def _stores(
    data_dir: Path | None, address: str | None, key: str | None, tls_ca: Path | None
) -> Iterator[tuple[BackOfficeClient, store_pb2_grpc.StoreServiceStub]]:
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        yield client, store_pb2_grpc.StoreServiceStub(client.channel)
