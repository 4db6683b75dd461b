"""`tallypoint offers`: personal offers, and all that a member has, as a client of the back office."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from tallypoint.v1 import rights_pb2

from server.commands.client import Address, Key, TlsCa
from server.commands.common import warn
from server.commands.csv_rows import Column as FileColumn
from server.commands.csv_rows import Kind, Refusal, Row
from server.commands.csv_rows import Table as FileTable
from server.commands.csv_rows.options import Delimiter, Encoding, Errors, File, Verbatim, reading_of
from server.commands.csv_rows.sending import Batch, send_rows
from server.commands.rights_rows import (
    DAY_FILE_COLUMNS,
    DAY_OPTIONS,
    MEMBER_COLUMNS,
    MEMBER_FILE_COLUMNS,
    DataDir,
    MemberName,
    coupon_cells,
    coupon_table,
    identifier_of,
    present_member_of,
    rights_service,
)

COLUMNS: Final = (
    FileColumn("promotion", Kind.CODE, also=("promotion_id",)),
    *MEMBER_FILE_COLUMNS,
    *DAY_FILE_COLUMNS,
)
_FIELDS: Final = {"promotion_id": ("promotion",), "member": MEMBER_COLUMNS}

app = typer.Typer(no_args_is_help=True, help="Personal offers.")


@app.command()
def load(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    file: File,
    promotion: Annotated[str, typer.Option(help="The promotion of rows that name none.")] = "",
    valid_from: Annotated[str, typer.Option("--from", help="The first day of rows that name none.")] = "",
    valid_until: Annotated[str, typer.Option("--until", help="The last day of rows that name none.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the offers of the file away.")] = False,
    errors: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    verbatim: Verbatim = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Assign promotions to the members of a CSV file. It may be run again: what is there already changes nothing.

    The first line names the columns: promotion, one of member_id, card_number, phone, digital_token; valid_from and
    valid_until as YYYY-MM-DD. Exit code 1 means that rows were refused.
    """
    seen: dict[tuple[str, bytes], tuple[int, str, str]] = {}

    def message_of(row: Row) -> rights_pb2.OfferAssignment:
        promotion_id = row.text("promotion") or promotion
        if not promotion_id:
            row.wrong("promotion", "is empty, and there is no --promotion")
        offer = rights_pb2.OfferAssignment(
            promotion_id=promotion_id,
            member=present_member_of(row),
            valid_from=row.text("valid_from") or valid_from,
            valid_until=row.text("valid_until") or valid_until,
        )
        days = (offer.valid_from, offer.valid_until)
        first = seen.setdefault((promotion_id, offer.member.SerializeToString()), (row.line, *days))
        if first[1:] != days and not remove and not row.faults:
            row.wrong("promotion", f"stands in line {first[0]} already, with other days: leave one of them out")
        return offer

    done, warnings = Counter[str](), set[str]()
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):

        def send(batch: Batch[rights_pb2.OfferAssignment]) -> Iterable[Refusal]:
            request = rights_pb2.PutOffersRequest(offers=batch.messages, remove=remove)
            response = client.attempt(stub.PutOffers, request)
            done["changed"] += response.changed
            warnings.update(response.warnings)
            return batch.refusals(response.refused)

        options = {**DAY_OPTIONS, "promotion": "--promotion"} if promotion else DAY_OPTIONS
        reading = reading_of(delimiter, encoding, verbatim=verbatim)
        table = FileTable(file, COLUMNS, (), reading, _FIELDS, options)
        sent = send_rows(table, "Loading offers", message_of, send, errors)
    warn(warnings)
    # A member whose offers stand in two batches counts twice.
    sent.finish(f"{done['changed']:,} times a member's offers changed, {sent.refused:,} rows were refused")


@app.command()
def show(
    member: MemberName, address: Address = None, key: Key = None, tls_ca: TlsCa = None, data_dir: DataDir = None
) -> None:
    """Show a member's segments, offers and coupons."""
    request = rights_pb2.ListMemberRightsRequest(identifier=identifier_of(member))
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):
        response = client.call(stub.ListMemberRights, request)
    console = Console(highlight=False)
    console.print(f"member {response.member_id}", markup=False)
    console.print(f"segments: {', '.join(response.segments) or 'none'}", markup=False)
    offers = Table("offer", "from", "until")
    for offer in response.offers:
        offers.add_row(offer.promotion_id, offer.valid_from, offer.valid_until)
    coupons = coupon_table()
    for coupon in response.coupons:
        coupons.add_row(*coupon_cells(coupon))
    for table in (offers, coupons):
        if table.rows:
            console.print(table)
