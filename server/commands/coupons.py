"""`tallypoint coupons`: loading, generating, showing and blocking coupons, as a client of the back office."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

import typer
from rich.console import Console
from tallypoint.v1 import rights_pb2, rights_pb2_grpc

from server.commands.client import Address, BackOfficeClient, Key, TlsCa
from server.commands.common import Yes, confirm, fail, warn
from server.commands.csv_rows import Column, Kind, Refusal, Row, Table
from server.commands.csv_rows.options import Delimiter, Encoding, Errors, File, Verbatim, reading_of
from server.commands.csv_rows.sending import Batch, send_rows
from server.commands.output.progress import progress
from server.commands.rights_rows import (
    DAY_FILE_COLUMNS,
    DAY_OPTIONS,
    MEMBER_COLUMNS,
    MEMBER_FILE_COLUMNS,
    DataDir,
    finish,
    identifier_of,
    member_of,
    rights_service,
    state_name,
)

COLUMNS: Final = (
    Column("code", Kind.CODE),
    *MEMBER_FILE_COLUMNS,
    Column("uses", Kind.FIGURE),
    *DAY_FILE_COLUMNS,
)
CODES_PER_CALL: Final = 5000

app = typer.Typer(no_args_is_help=True, help="Coupons.")

Series = Annotated[str, typer.Option(help="The series, as the programme file names it.")]
Uses = Annotated[int, typer.Option(help="How often each can be used.", min=1, max=1000)]
FirstDay = Annotated[str, typer.Option("--from", help="The first day on which they count, YYYY-MM-DD.")]
LastDay = Annotated[str, typer.Option("--until", help="The last day on which they count, YYYY-MM-DD.")]


@app.command()
def load(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    file: File,
    series: Series,
    uses: Uses = 1,
    valid_from: FirstDay = "",
    valid_until: LastDay = "",
    errors: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    verbatim: Verbatim = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Load the codes of a CSV file. It may be run again: what is there already changes nothing.

    The first line names the columns: code; one of member_id, card_number, phone, digital_token for a personal coupon;
    uses, valid_from, valid_until where a row differs from the options. Exit code 1 means that rows were refused.
    """

    def message_of(row: Row) -> rights_pb2.CouponRow:
        return rights_pb2.CouponRow(
            code=row.text("code"),
            member=member_of(row),
            uses=row.number("uses", uses),
            valid_from=row.text("valid_from") or valid_from,
            valid_until=row.text("valid_until") or valid_until,
        )

    done, warnings = Counter[str](), set[str]()
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):

        def send(batch: Batch[rights_pb2.CouponRow]) -> Iterable[Refusal]:
            request = rights_pb2.LoadCouponsRequest(series=series, coupons=batch.messages)
            response = client.attempt(stub.LoadCoupons, request)
            done.update(added=response.added, unchanged=response.unchanged)
            warnings.update(response.warnings)
            return batch.refusals(response.refused)

        reading = reading_of(delimiter, encoding, verbatim=verbatim)
        table = Table(file, COLUMNS, ("code",), reading, {"member": MEMBER_COLUMNS}, DAY_OPTIONS)
        sent = send_rows(table, "Loading coupons", message_of, send, errors)
    there = f"{done['added']:,} coupons are new, {done['unchanged']:,} were there already"
    warn(warnings)
    sent.finish(f"{there}, {sent.refused:,} were refused")


@app.command()
def generate(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    series: Series,
    count: Annotated[int, typer.Option(help="How many.", min=1)] = 1,
    member: Annotated[str, typer.Option(help="Whose they are: the id, a card number, or a phone with its +.")] = "",
    uses: Uses = 1,
    valid_from: FirstDay = "",
    valid_until: LastDay = "",
    output: Annotated[Path | None, typer.Option(help="Write the codes to this new file.", dir_okay=False)] = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make random codes, store them, and print them, one a line; with --output as a CSV file with the column `code`."""
    if output is not None and output.exists():
        raise fail(f"{output} exists already: name a new file")
    if output is not None and not output.parent.is_dir():
        raise fail(f"{output}: there is no folder {output.parent}")
    terms = rights_pb2.GenerateCouponsRequest(
        series=series,
        member=identifier_of(member) if member else None,
        uses=uses,
        valid_from=valid_from,
        valid_until=valid_until,
    )
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):
        batches = _generated(client, stub, terms, count)
        if output is None:
            for codes in batches:
                typer.echo("\n".join(codes))
            return
        with (
            output.open("x", encoding="utf-8", newline="") as file,
            progress("Making coupons", count, "codes") as advance,
        ):
            writer = csv.writer(file, lineterminator="\n")  # for shells: a code is a line
            writer.writerow(["code"])
            for codes in batches:
                writer.writerows([code] for code in codes)
                advance(len(codes))
    typer.echo(f"{count:,} codes of series {series} are in {output}", err=True)


@app.command()
def show(
    code: Annotated[str, typer.Argument(help="The code, as it is printed.")],
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show a coupon, whether it can still be used, and which receipts used it."""
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):
        coupon = client.call(stub.GetCoupon, rights_pb2.GetCouponRequest(code=code)).coupon
    console = Console(highlight=False)
    for line in (*_lines(coupon), *map(_use, coupon.taken)):
        console.print(line, markup=False, soft_wrap=True)


@app.command()
def block(
    codes: Annotated[list[str] | None, typer.Argument(help="Codes.")] = None,
    series: Annotated[str, typer.Option(help="A whole series instead.")] = "",
    unblock: Annotated[bool, typer.Option("--unblock", help="Make them good again.")] = False,
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Make codes, or a whole series, worthless from the next call of a register on."""
    if bool(codes) == bool(series):
        raise fail("name either codes or --series")
    verb = "Unblock" if unblock else "Block"
    if series:
        confirm(f"{verb} all coupons of series {series}?", yes=yes)
    request = rights_pb2.BlockCouponsRequest(codes=codes or [], series=series, unblock=unblock)
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):
        response = client.call(stub.BlockCoupons, request)
    for refused in response.refused:
        typer.echo(f"{request.codes[refused.index]}: {refused.refusal.message}", err=True)
    finish(f"{response.changed} changed, {len(response.refused)} refused", len(response.refused))


def _generated(
    client: BackOfficeClient,
    stub: rights_pb2_grpc.RightsServiceStub,
    terms: rights_pb2.GenerateCouponsRequest,
    count: int,
) -> Iterator[list[str]]:
    for begun in range(0, count, CODES_PER_CALL):
        terms.request_id, terms.count = str(uuid4()), min(CODES_PER_CALL, count - begun)
        response = client.call(stub.GenerateCoupons, terms)
        if not begun:
            warn(response.warnings)
        yield list(response.codes)


def _lines(coupon: rights_pb2.Coupon) -> Iterator[str]:
    origin = "given by a receipt" if coupon.issued else "loaded or generated"
    yield f"{coupon.code}: coupon of series {coupon.series}, {origin}"
    yield f"belongs to member {coupon.member_id}" if coupon.member_id else "belongs to whoever brings it"
    yield f"counts from {coupon.valid_from or 'the beginning'} until {coupon.valid_until or 'it is used up'}"
    yield f"{state_name(coupon)}: {coupon.taken_count} of {coupon.uses} uses taken"


def _use(use: rights_pb2.TakenUse) -> str:
    if use.held:
        return f"held by a checkout at terminal {use.terminal_id} of store {use.store_id}"
    key = use.receipt_key
    receipt = f"receipt {key.receipt_number} of {key.business_date}, terminal {key.terminal_id} of store {key.store_id}"
    member = f", member {use.member_id}" if use.member_id else ""
    return f"used by {receipt}{member} (entry {use.entry.book}/{use.entry.number})"
