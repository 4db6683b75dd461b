"""`tallypoint members`: commands for administrators, which are clients of the back office."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from uuid import uuid4

import typer
from rich.console import Console
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import correction_pb2, correction_pb2_grpc, member_pb2, member_pb2_grpc

from server.backoffice.client import Address, BackOfficeClient, Key, TlsCa, back_office
from server.command import Yes, confirm, fail, load_settings
from server.errors import reason_name
from server.members.csv_file import COLUMNS, ERROR_PREFIX, FileError, Row, RowError, read_rows
from server.members.identifiers import mask_name
from server.progress import progress

ROWS_PER_CALL: Final = 500
ERRORS_SHOWN: Final = 20
EXIT_ROWS_REFUSED: Final = 1
UUID_LENGTH: Final = 36

app = typer.Typer(no_args_is_help=True, help="Members and their cards.")


@app.callback()
def _members() -> None:
    """Members and their cards."""


class RefusedRow(NamedTuple):
    """A row that was not imported, and why."""

    row: Row
    reason: str
    text: str


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="A CSV file, UTF-8.", exists=True, dir_okay=False)],
    errors: Annotated[Path | None, typer.Option(help="Write the refused rows to this CSV file.")] = None,
    delimiter: Annotated[str, typer.Option(help="What separates values.")] = ",",
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")] = None,
) -> None:
    """Register the members of a CSV file. It may be run again: rows that are there already change nothing.

    The first line names the columns: card_numbers (several: separated by semicolons), phone, digital_token,
    member_id, name, birthday, language, status, registered_at. Exit code 1 means that rows were refused.
    """
    console = Console(highlight=False)
    try:
        total = sum(1 for _ in read_rows(file, delimiter))
        with ExitStack() as stack:
            client = stack.enter_context(back_office(load_settings(data_dir=data_dir), address, key, tls_ca))
            advance = stack.enter_context(progress("Importing members", total, "rows"))
            refused: list[RefusedRow] = []
            for rows in _chunks(read_rows(file, delimiter)):
                refused += import_rows(client, rows)
                advance(len(rows))
    except FileError as error:
        raise fail(str(error)) from None
    _show(console, file, refused)
    if errors is not None:
        write_refused(errors, refused)
    console.print(f"{total:,} rows: {total - len(refused):,} are members, {len(refused):,} were refused")
    if refused:
        raise typer.Exit(EXIT_ROWS_REFUSED)


@app.command()
def merge(
    duplicate: Annotated[str, typer.Argument(help="Who goes: the member's id, a card number, or a phone with its +.")],
    survivor: Annotated[str, typer.Argument(help="Who stays: the id, a card number, or a phone.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    yes: Yes = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")] = None,
) -> None:
    """Make two records of one person one: points, cards and phones go to the second. It cannot be undone."""
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        goes, stays = find_member(client, duplicate), find_member(client, survivor)
        typer.echo(f"goes:  {_line(goes)}\nstays: {_line(stays)}")
        confirm("Merge them?", yes=yes)
        request = correction_pb2.MergeMembersRequest(
            request_id=str(uuid4()), duplicate_id=goes.member_id, survivor_id=stays.member_id, reason=reason
        )
        stub = correction_pb2_grpc.CorrectionServiceStub(client.channel)
        merged = client.call(stub.MergeMembers, request).survivor
    typer.echo(f"is now: {_line(merged)}")


def find_member(client: BackOfficeClient, text: str) -> member_pb2.Member:
    """Return a member's record by id, card number, or phone in international form."""
    identifier = api.Identifier()
    if text.startswith("+"):
        identifier.phone = text
    elif len(text) == UUID_LENGTH and "-" in text:
        identifier.member_id = text
    else:
        identifier.card_number = text
    stub = member_pb2_grpc.MemberServiceStub(client.channel)
    return client.call(stub.GetMember, member_pb2.GetMemberRequest(identifier=identifier)).member


def _line(member: member_pb2.Member) -> str:
    name = mask_name(member.profile.name) or "without a name"
    status = api.MemberStatus.Name(member.status).removeprefix("MEMBER_STATUS_").lower()
    balances = [f"{decimal(one.available_points_minor, one.precision)} {one.unit}" for one in member.balances]
    return ", ".join([member.member_id, name, status, f"cards: {len(member.cards)}", *balances])


def decimal(points_minor: int, precision: int) -> str:
    """Return points as people write them."""
    return f"{Decimal(points_minor).scaleb(-precision):,f}"


def import_rows(client: BackOfficeClient, rows: Sequence[Row]) -> list[RefusedRow]:
    """Register the members of up to `ROWS_PER_CALL` rows; return the rows that were refused."""
    refused: list[RefusedRow] = []
    sound: list[Row] = []
    request = member_pb2.ImportMembersRequest()
    for row in rows:
        try:
            request.members.append(row.member())
            sound.append(row)
        except RowError as error:
            text = _fault(error.column, str(error))
            refused.append(RefusedRow(row, reason_name(api.REFUSAL_REASON_INVALID_REQUEST), text))
    if sound:
        stub = member_pb2_grpc.MemberServiceStub(client.channel)
        response = client.call(stub.ImportMembers, request)
        for row, result in zip(sound, response.results, strict=True):
            if result.HasField("refusal"):
                refused.append(_refused(row, result.refusal))
    return sorted(refused, key=lambda one: one.row.line)


def write_refused(path: Path, refused: Iterable[RefusedRow]) -> None:
    """Write refused rows with three columns more: where they stood, and why. Mended, the file can be imported."""
    names = [*COLUMNS, *(ERROR_PREFIX + name for name in ("line", "reason", "message"))]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        for one in refused:
            why: dict[str, Any] = dict(zip(names[-3:], (one.row.line, one.reason, one.text), strict=True))
            writer.writerow({**one.row.values, **why})


def _refused(row: Row, refusal: api.Refusal) -> RefusedRow:
    faults = [_fault(fault.field, fault.description) for fault in refusal.violations]
    return RefusedRow(row, reason_name(refusal.reason), "; ".join(faults) or refusal.message)


def _fault(field: str, text: str) -> str:
    """Return what is wrong with a field, by the name of its column."""
    column = field.removeprefix("profile.")
    return f"{column}: {text}" if column else text


def _show(console: Console, file: Path, refused: Sequence[RefusedRow]) -> None:
    for one in refused[:ERRORS_SHOWN]:
        console.print(f"{file}:{one.row.line}: {one.reason}: {one.text}", markup=False, soft_wrap=True)
    if len(refused) > ERRORS_SHOWN:
        console.print(f"... and {len(refused) - ERRORS_SHOWN:,} more; --errors FILE writes them all")


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, ROWS_PER_CALL)):
        yield chunk
