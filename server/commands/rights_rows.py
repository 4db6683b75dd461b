"""What the commands of coupons, segments and offers share: members in files, and what a member has on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Column, Table
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2, rights_pb2_grpc

from server.commands.client import BackOfficeClient, back_office
from server.commands.common import load_settings
from server.commands.csv_rows import Column as FileColumn
from server.commands.csv_rows import Kind, Row
from server.commands.csv_rows.sending import EXIT_ROWS_REFUSED

MEMBER_FILE_COLUMNS: Final = (
    FileColumn("member_id", Kind.CODE),
    FileColumn("card_number", Kind.DIGITS, also=("card_numbers",)),
    FileColumn("phone", Kind.DIGITS),
    FileColumn("digital_token", Kind.CODE),
)
"""Members are named in one of these columns, each in its own."""
MEMBER_COLUMNS: Final = tuple(column.name for column in MEMBER_FILE_COLUMNS)
DAY_FILE_COLUMNS: Final = (FileColumn("valid_from", Kind.DAY), FileColumn("valid_until", Kind.DAY))
DAY_OPTIONS: Final = {"valid_from": "--from", "valid_until": "--until"}
"""The options for rows that name no days."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

DataDir = Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")]
MemberName = Annotated[str, typer.Argument(help="The member's id, a card number, or a phone with its +.")]


def member_of(row: Row) -> api.Identifier | None:
    """Return the member that a row names, or None if it names none; naming one twice is a fault."""
    named = [column for column in MEMBER_COLUMNS if row.text(column)]
    if not named:
        return None
    for column in named[1:]:
        row.wrong(column, f"is set beside {named[0]}: name the member once")
    return api.Identifier(**{named[0]: row.text(named[0])})


def present_member_of(row: Row) -> api.Identifier:
    """Return the member that a row names; naming none is a fault."""
    member = member_of(row)
    if member is None:
        row.wrong("", f"names no member: fill one of {', '.join(MEMBER_COLUMNS)}")
    return member or api.Identifier()


def identifier_of(text: str) -> api.Identifier:
    """Return the member that somebody typed: an id, a phone in international form, or else a card number."""
    if text.startswith("+"):
        return api.Identifier(phone=text)
    return api.Identifier(member_id=text) if _UUID.fullmatch(text) else api.Identifier(card_number=text)


def finish(text: str, refused: int) -> None:
    """Print the outcome; raise typer.Exit with code 1 if rows were refused."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)
    if refused:
        raise typer.Exit(EXIT_ROWS_REFUSED)


def state_name(coupon: rights_pb2.Coupon) -> str:
    """Return a coupon's state for people, such as "used"."""
    return rights_pb2.CouponState.Name(coupon.state).removeprefix("COUPON_STATE_").lower()


@contextmanager
def rights_service(
    data_dir: Path | None, address: str | None, key: str | None, tls_ca: Path | None
) -> Iterator[tuple[BackOfficeClient, rights_pb2_grpc.RightsServiceStub]]:
    """Open a channel to RightsService; typer.Exit if there is no key."""
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        yield client, rights_pb2_grpc.RightsServiceStub(client.channel)


def coupon_table() -> Table:
    """Return an empty table of coupons; `coupon_cells` fills it. On a narrow terminal all but codes fold."""
    code = Column("code", no_wrap=True, overflow="fold")
    return Table(code, *(Column(name, overflow="fold") for name in ("series", "state", "uses", "from", "until")))


def coupon_cells(coupon: rights_pb2.Coupon) -> tuple[str, ...]:
    """Return a coupon as a row of the table."""
    uses = f"{coupon.taken_count} of {coupon.uses}"
    return coupon.code, coupon.series, state_name(coupon), uses, coupon.valid_from, coupon.valid_until
