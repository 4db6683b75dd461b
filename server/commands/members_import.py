"""`tallypoint members import`: the members of a CSV file, as a client of the back office.

All columns may be left out, but each row needs a card, a phone, a token or an id:

| column | holds |
|---|---|
| `card_numbers` | card numbers, separated by semicolons, or by spaces if each has 8 digits or more |
| `phone` | a phone number, international or national |
| `digital_token` | the token of a digital card |
| `member_id` | the id (a UUID) that another system gave |
| `name` | the name as the member writes it |
| `birthday` | YYYY-MM-DD |
| `language` | a language tag such as `uk` or `kk-KZ` |
| `status` | `active`, `earn_only` or `blocked`; empty means active |
| `registered_at` | YYYY-MM-DD, or a time with its zone such as 2024-05-01T10:00:00+03:00; empty means now |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2, member_pb2_grpc

from server.base.scanned_text import scanned_code
from server.commands.client import Address, Key, TlsCa, back_office
from server.commands.common import load_settings
from server.commands.csv_rows import Column, Kind, Refusal, Row, Table
from server.commands.csv_rows.options import Delimiter, Encoding, Errors, File, Verbatim, reading_of
from server.commands.csv_rows.sending import Batch, send_rows

ROWS_PER_CALL: Final = 500
COLUMNS: Final = (
    Column("card_numbers", Kind.DIGITS, also=("card_number",)),
    Column("phone", Kind.DIGITS),
    Column("digital_token", Kind.CODE),
    Column("member_id", Kind.CODE),
    Column("name"),
    Column("birthday", Kind.DAY),
    Column("language"),
    Column("status"),
    Column("registered_at", Kind.DAY),
)
FIELDS: Final = {"profile": ("name", "birthday", "language")}
_WHOLE_CARD: Final = 8
"""Parts with so many digits are cards by themselves; shorter ones are a card that was written in groups."""
_STATUSES: Final[Mapping[str, api.MemberStatus]] = {
    "": api.MEMBER_STATUS_UNSPECIFIED,
    "active": api.MEMBER_STATUS_ACTIVE,
    "earn_only": api.MEMBER_STATUS_EARN_ONLY,
    "blocked": api.MEMBER_STATUS_BLOCKED,
}


def import_members(  # noqa: PLR0913, PLR0917 - an argument is an option of the command
    file: File,
    errors: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    verbatim: Verbatim = False,
    address: Address = None,
    key: Key = None,
    tls_ca: TlsCa = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a development server keeps its keys.")] = None,
) -> None:
    """Register the members of a CSV file. It may be run again: rows that are there already change nothing.

    The first line names the columns: card_numbers (several: separated by semicolons), phone, digital_token,
    member_id, name, birthday, language, status, registered_at. Who is there already with other data is refused, and
    stays as he is. Exit code 1 means that rows were refused.
    """
    done: Counter[str] = Counter()
    table = Table(file, COLUMNS, reading=reading_of(delimiter, encoding, verbatim=verbatim), fields=FIELDS)
    with back_office(load_settings(data_dir=data_dir), address, key, tls_ca) as client:
        stub = member_pb2_grpc.MemberServiceStub(client.channel)

        def send(batch: Batch[member_pb2.NewMember]) -> Iterable[Refusal]:
            results = client.attempt(
                stub.ImportMembers, member_pb2.ImportMembersRequest(members=batch.messages)
            ).results
            for index, result in enumerate(results):
                if result.HasField("refusal"):
                    done["differing"] += result.refusal.reason == api.REFUSAL_REASON_ALREADY_EXISTS
                    yield batch.refusal(index, result.refusal)
                else:
                    done["unchanged" if result.already_there else "new"] += 1

        sent = send_rows(table, "Importing members", member_of, send, errors, ROWS_PER_CALL)
    differing = f" (other data is there for {done['differing']:,} of them)" if done["differing"] else ""
    sent.finish(
        f"{done['new']:,} members are new, {done['unchanged']:,} were there already, {sent.refused:,} were refused"
        f"{differing}"
    )


def member_of(row: Row) -> member_pb2.NewMember:
    """Return a row as a message; what is wrong with its form is noted in the row."""
    status = row.text("status").lower()
    if status not in _STATUSES:
        row.wrong("status", "must be active, earn_only or blocked, or empty")
    member = member_pb2.NewMember(
        member_id=row.text("member_id"),
        status=_STATUSES.get(status, api.MEMBER_STATUS_UNSPECIFIED),
        profile=member_pb2.Profile(name=row.text("name"), birthday=row.text("birthday"), language=row.text("language")),
        phone=row.text("phone"),
        card_numbers=_cards(row.text("card_numbers")),
        digital_token=row.text("digital_token"),
    )
    registered_at = _moment(row)
    if registered_at:
        member.registered_at.FromDatetime(registered_at)
    return member


def _cards(text: str) -> list[str]:
    """Return the numbers of a cell. Blanks part them only where each part is long enough for a card."""
    cards: list[str] = []
    for piece in re.split(r"[;,|]+", text):
        parts = piece.split()
        cards += parts if all(len(scanned_code(part)) >= _WHOLE_CARD for part in parts) else [" ".join(parts)]
    return cards


def _moment(row: Row) -> datetime | None:
    text = row.text("registered_at")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and moment.time() != datetime.min.time():
            row.wrong("registered_at", "has a time without its zone: add one, such as +03:00 or Z")
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):  # beyond the years 1 to 9999 in UTC
        row.wrong("registered_at", "must be YYYY-MM-DD or a time such as 2024-05-01T10:00:00+03:00")
        return None
