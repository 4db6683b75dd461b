"""`tallypoint corrections`: adjustments and transfers by people, as a client of the back office."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from textwrap import fill
from typing import Annotated, Final, NamedTuple
from uuid import UUID, uuid4

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from tallypoint.v1 import (
    common_pb2,
    correction_pb2,
    correction_pb2_grpc,
    programme_pb2,
    programme_pb2_grpc,
)

from ledger.finance.table import Column, Table
from server.base.clock import utc_now
from server.commands.client import Address, BackOfficeClient, Key, TlsCa, back_office
from server.commands.common import fail, load_settings
from server.commands.members import find_member
from server.commands.members_shown import decimal
from server.commands.output.terminal import report_console, show
from server.promotions import Programme, load_programme

PAGE_SIZE: Final = 1000
ID_WIDTH: Final = 36
_MOST_POINTS: Final = 10**12

app = typer.Typer(no_args_is_help=True, help="Points granted, taken or moved by hand.")


class State(Enum):
    """How far an adjustment got, as people type it."""

    WAITING = "waiting"
    BOOKED = "booked"
    REJECTED = "rejected"


_STATES: Final = {
    State.WAITING: correction_pb2.ADJUSTMENT_STATE_WAITING,
    State.BOOKED: correction_pb2.ADJUSTMENT_STATE_BOOKED,
    State.REJECTED: correction_pb2.ADJUSTMENT_STATE_REJECTED,
}

MemberName = Annotated[
    str,
    typer.Argument(
        help="A member: the id, a card number, or a phone with its +; with a key of the role finance only the id."
    ),
]
Points = Annotated[str, typer.Option(help="Points, such as 50 or 12.5; with a minus they are taken.")]
Reason = Annotated[str, typer.Option(help="The reason's code, such as goodwill.")]
RequestId = Annotated[UUID, typer.Argument(help="The id of the request, as `list` shows it.")]
Repeat = Annotated[UUID | None, typer.Option("--request-id", help="Send an earlier request again, with its id.")]
DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]


class PointUnit(NamedTuple):
    """A point unit's code and the decimal places of a point."""

    code: str
    precision: int


@app.command()
def request(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    member: MemberName,
    points: Points,
    reason: Reason,
    note: Annotated[str, typer.Option(help="What happened; it stays for ever, so no personal data.")],
    expires_on: Annotated[str, typer.Option(help="The last good day, YYYY-MM-DD; not given means the usual.")] = "",
    request_id: Repeat = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Grant points to a member, or take some. Above your limit a day a second person must approve it."""
    with _corrections(data_dir, address, key, tls_ca) as (client, stub):
        unit = _unit(client)
        order = correction_pb2.RequestAdjustmentRequest(
            request_id=str(request_id or uuid4()),
            member_id=member_id_of(client, member),
            points_minor=minor(points, unit),
            unit=unit.code,
            reason_code=reason,
            note=note,
            expires_on=expires_on,
        )
        _show(client.call(stub.RequestAdjustment, order).adjustment)


@app.command()
def approve(
    request_id: RequestId,
    note: Annotated[str, typer.Option(help="Your words for the record.")] = "",
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Book an adjustment that somebody else requested."""
    with _corrections(data_dir, address, key, tls_ca) as (client, stub):
        order = correction_pb2.ApproveAdjustmentRequest(request_id=str(request_id), note=note)
        _show(client.call(stub.ApproveAdjustment, order).adjustment)


@app.command()
def reject(
    request_id: RequestId,
    note: Annotated[str, typer.Option(help="Why.")],
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """End an adjustment that waits, or withdraw one's own."""
    with _corrections(data_dir, address, key, tls_ca) as (client, stub):
        order = correction_pb2.RejectAdjustmentRequest(request_id=str(request_id), note=note)
        _show(client.call(stub.RejectAdjustment, order).adjustment)


@app.command()
def transfer(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    giver: MemberName,
    taker: MemberName,
    points: Points,
    reason: Reason,
    request_id: Repeat = None,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Move points from one member to another; they keep their expiry."""
    with _corrections(data_dir, address, key, tls_ca) as (client, stub):
        unit = _unit(client)
        order = correction_pb2.TransferPointsRequest(
            request_id=str(request_id or uuid4()),
            from_member_id=member_id_of(client, giver),
            to_member_id=member_id_of(client, taker),
            points_minor=minor(points, unit),
            unit=unit.code,
            reason_code=reason,
        )
        moved = client.call(stub.TransferPoints, order).moved
    typer.echo(
        f"{decimal(moved.available_points_minor, moved.precision)} {moved.unit} moved: "
        f"out with {_place(moved.out_entry)}, in with {_place(moved.in_entry)}, request {order.request_id}"
    )


@app.command("list")
def list_adjustments(
    state: Annotated[State | None, typer.Option(help="Only those that got so far.")] = None,
    member: Annotated[str, typer.Option(help="Only those of a member: the id, a card number, or a phone.")] = "",
    older_than_days: Annotated[int, typer.Option(min=0, help="Only those requested at least so long ago.")] = 0,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Show adjustments, oldest first."""
    now = utc_now()
    order = correction_pb2.ListAdjustmentsRequest(page_size=PAGE_SIZE)
    if state is not None:
        order.state = _STATES[state]
    if older_than_days:
        order.requested_before.FromDatetime(now - timedelta(days=older_than_days))
    with _corrections(data_dir, address, key, tls_ca) as (client, stub):
        if member:
            order.member_id = member_id_of(client, member)
        found = list(_pages(client, stub, order))
    show_adjustments(found, now, report_console())


def show_adjustments(found: Sequence[correction_pb2.ManualAdjustment], now: datetime, console: Console) -> None:
    """Print adjustments as a table in which the ids stand whole, as `approve` takes them."""
    if found:
        show(_table(found, now), console, whole=["request_id"])
    else:
        console.print("No adjustments.")


def member_id_of(client: BackOfficeClient, text: str) -> str:
    """Return a member's id, looked up if the text is a card number or a phone."""
    try:
        return str(UUID(text))
    except ValueError:
        pass
    return find_member(client, text).member_id


def minor(text: str, unit: PointUnit) -> int:
    """Return points as people write them in the unit's smallest fraction."""
    try:
        scaled = Decimal(text).scaleb(unit.precision)
        if scaled == scaled.to_integral_value() and abs(scaled) <= _MOST_POINTS:
            return int(scaled)
    except (InvalidOperation, OverflowError):
        pass
    if "," in text:
        raise fail(f"{text!r} has a comma: write points with a point and nothing between thousands, such as 1050.5")
    raise fail(f"{text!r} is no number of points: {unit.code} has {unit.precision} decimal places")


def _unit(client: BackOfficeClient) -> PointUnit:
    """Return the point unit of the programme in effect; it is sent along, so that nothing else is booked."""
    stub = programme_pb2_grpc.ProgrammeServiceStub(client.channel)
    versions = client.call(stub.ListProgrammeVersions, programme_pb2.ListProgrammeVersionsRequest()).versions
    begun = [(one.effective_at.ToNanoseconds(), one.version) for one in versions]
    in_effect = max((one for one in begun if one[0] <= _nanoseconds(utc_now())), default=None)
    if in_effect is None:
        raise fail("no programme is in effect: publish one first")
    request = programme_pb2.GetProgrammeVersionRequest(version=in_effect[1])
    programme = load_programme(client.call(stub.GetProgrammeVersion, request).text)
    if not isinstance(programme, Programme):
        raise fail("the programme in effect cannot be read by this version of the command")
    return PointUnit(programme.point.unit, programme.point.precision)


def _nanoseconds(moment: datetime) -> int:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp.ToNanoseconds()


def _pages(
    client: BackOfficeClient,
    stub: correction_pb2_grpc.CorrectionServiceStub,
    order: correction_pb2.ListAdjustmentsRequest,
) -> Iterator[correction_pb2.ManualAdjustment]:
    while True:
        page = client.call(stub.ListAdjustments, order)
        yield from page.adjustments
        if not page.next_page_token:
            return
        order.page_token = page.next_page_token


def _table(found: Sequence[correction_pb2.ManualAdjustment], now: datetime) -> Table:
    """Return adjustments as few columns with several lines a row: an id takes half of a narrow terminal."""
    columns = (
        Column("request_id", "Request", "text"),
        Column("points", "Points", "text"),  # each row has the unit and the decimals of its own programme
        Column("why", "Reason and note", "text"),
    )
    rows = (
        (f"{one.request_id}\n{_progress(one, now)}", _points(one), f"{one.reason_code}: {one.note}") for one in found
    )
    return Table("Adjustments, oldest first", columns, tuple(rows))


def _progress(one: correction_pb2.ManualAdjustment, now: datetime) -> str:
    age = now - one.requested_at.ToDatetime(tzinfo=UTC)
    ago = f"{age.days} d" if age.days else f"{age.seconds // 60} min"
    decided = f" by {one.decided_by}" if one.decided_by else ""
    lines = [f"{_state(one)}{decided}", f"asked {ago} ago by {one.requested_by}"]
    if one.HasField("entry"):
        lines.insert(1, _place(one.entry))
    return "\n".join(fill(line, ID_WIDTH) for line in lines)


def _points(one: correction_pb2.ManualAdjustment) -> str:
    return f"{decimal(one.points_minor, one.precision)} {one.unit}"


def _show(one: correction_pb2.ManualAdjustment) -> None:
    points = _points(one)
    if one.state == correction_pb2.ADJUSTMENT_STATE_BOOKED:
        typer.echo(f"{points} booked with {_place(one.entry)}, request {one.request_id}")
    elif one.state == correction_pb2.ADJUSTMENT_STATE_WAITING:
        limit = decimal(one.limit_points_minor, one.precision)
        typer.echo(
            f"{points} wait for a second person: {one.requested_by} may book {limit} a day alone. "
            f"Approve with: tallypoint corrections approve {one.request_id}"
        )
    else:
        typer.echo(f"{points} rejected by {one.decided_by}, request {one.request_id}")


def _state(one: correction_pb2.ManualAdjustment) -> str:
    return correction_pb2.AdjustmentState.Name(one.state).removeprefix("ADJUSTMENT_STATE_").lower()


def _place(entry: common_pb2.EntryRef) -> str:
    return f"entry {entry.number} of book {entry.book}"


@contextmanager
def _corrections(
    data_dir: Path | None, address: str | None, key: str | None, tls_ca: Path | None
) -> Iterator[tuple[BackOfficeClient, correction_pb2_grpc.CorrectionServiceStub]]:
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        yield client, correction_pb2_grpc.CorrectionServiceStub(client.channel)
