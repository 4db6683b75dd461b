"""`tallypoint segments`: who is in which segment, as a client of the back office."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.table import Table
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2, rights_pb2_grpc

from server.commands.client import Address, BackOfficeClient, Key, TlsCa
from server.commands.common import Yes, confirm, errors, fail, warn
from server.commands.csv_rows import Refusal
from server.commands.csv_rows import Table as FileTable
from server.commands.csv_rows.options import Delimiter, Encoding, Errors, File, Verbatim, reading_of
from server.commands.csv_rows.sending import Batch, send_rows
from server.commands.rights_rows import (
    MEMBER_COLUMNS,
    MEMBER_FILE_COLUMNS,
    DataDir,
    present_member_of,
    rights_service,
)

app = typer.Typer(no_args_is_help=True, help="Segments of members.")


@app.command()
def load(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    file: File,
    segment: Annotated[str, typer.Option(help="The segment, as the programme file names it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Take all others out at the end.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the members of the file out.")] = False,
    yes: Yes = False,
    errors_to: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    verbatim: Verbatim = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: DataDir = None,
) -> None:
    """Put the members of a CSV file into a segment. It may be run again: who is there already stays.

    The first line names the columns: member_id, card_number, phone, digital_token; each row fills one of them. With
    --replace everybody else is taken out when the whole file is there, unless rows were refused or there are none: then
    answer first whether to go on. Exit code 1 means that rows were refused.
    """
    if replace and remove:
        raise fail("--replace and --remove exclude each other")
    action = rights_pb2.SEGMENT_ACTION_REMOVE if remove else rights_pb2.SEGMENT_ACTION_ADD
    load_id = ""
    if replace:
        action, load_id = rights_pb2.SEGMENT_ACTION_REPLACE, str(uuid4())
    done, warnings = Counter[str](), set[str]()
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):

        def send(batch: Batch[api.Identifier]) -> Iterable[Refusal]:
            request = rights_pb2.PutSegmentRequest(
                segment=segment, action=action, load_id=load_id, members=batch.messages
            )
            response = client.attempt(stub.PutSegment, request)
            done["changed"] += response.changed
            warnings.update(response.warnings)
            return batch.refusals(response.refused)

        names = {"members": MEMBER_COLUMNS, "kind": MEMBER_COLUMNS}
        reading = reading_of(delimiter, encoding, verbatim=verbatim)
        table = FileTable(file, MEMBER_FILE_COLUMNS, (), reading, names)
        sent = send_rows(table, f"Segment {segment}", present_member_of, send, errors_to)
        warn(warnings)
        verb = "taken out" if remove else "put in"
        text = f"{done['changed']:,} members were {verb}, {sent.refused:,} rows were refused"
        if replace and not sent.unsent:
            if sent.refused:
                errors.print("Members whose rows were refused are taken out as well, if they are in the segment.")
            if sent.refused or not sent.rows:
                confirm(f"Take out of segment {segment} whoever is not in the file?", yes=yes)
            text += f"; {_finish(client, stub, segment, load_id):,} others were taken out"
    sent.finish(text)


@app.command()
def show(address: Address = None, key: Key = None, tls_ca: TlsCa = None, data_dir: DataDir = None) -> None:
    """Show all segments with the number of their members."""
    with rights_service(data_dir, address, key, tls_ca) as (client, stub):
        response = client.call(stub.CountSegments, rights_pb2.CountSegmentsRequest())
    table = Table("segment", "members")
    for one in response.segments:
        table.add_row(one.segment, f"{one.members:,}")
    Console().print(table)


def _finish(client: BackOfficeClient, stub: rights_pb2_grpc.RightsServiceStub, segment: str, load_id: str) -> int:
    """End a replacement; return how many members were taken out."""
    removed = 0
    request = rights_pb2.FinishSegmentRequest(segment=segment, load_id=load_id)
    while True:
        response = client.call(stub.FinishSegment, request)
        removed += response.removed
        if not response.next_page_token:
            return removed
        request.page_token = response.next_page_token
