"""Members in a CSV file: its columns, and a row as a message.

The first line names the columns, in any order; all may be left out:

| column | holds |
|---|---|
| `card_numbers` | card numbers, separated by spaces or semicolons |
| `phone` | a phone number, international or national |
| `digital_token` | the token of a digital card |
| `member_id` | the id (a UUID) that another system gave |
| `name` | the name as the member writes it |
| `birthday` | YYYY-MM-DD |
| `language` | a language tag such as `uk` or `kk-KZ` |
| `status` | `active`, `earn_only` or `blocked`; empty means active |
| `registered_at` | YYYY-MM-DD, or a time with its zone such as 2024-05-01T10:00:00+03:00; empty means now |

Each row needs a card, a phone, a token or an id. Columns that begin with `error_` are passed over, so that a file
of refused rows can be mended and imported as it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import member_pb2

COLUMNS: Final = (
    "card_numbers", "phone", "digital_token", "member_id", "name", "birthday", "language", "status", "registered_at"
)  # fmt: skip
ERROR_PREFIX: Final = "error_"
_SEPARATORS: Final = re.compile(r"[;\s]+")
_STATUSES: Final[Mapping[str, api.MemberStatus]] = {
    "": api.MEMBER_STATUS_UNSPECIFIED,
    "active": api.MEMBER_STATUS_ACTIVE,
    "earn_only": api.MEMBER_STATUS_EARN_ONLY,
    "blocked": api.MEMBER_STATUS_BLOCKED,
}


class FileError(Exception):
    """A file that cannot be read as members; the message says where and what to do."""


class RowError(Exception):
    """A row that is not a member; `column` is the one at fault."""

    def __init__(self, column: str, message: str) -> None:
        """Say what is wrong with a column."""
        super().__init__(message)
        self.column = column


class Row(NamedTuple):
    """A row as it stands in the file; `line` is where it begins, counted from 1."""

    line: int
    values: dict[str, str]
    surplus: tuple[str, ...]

    def member(self) -> member_pb2.NewMember:
        """Return the row as a message.

        Raises:
            RowError: a column holds what it cannot hold.
        """
        if self.surplus:
            raise RowError("", f"has {len(self.surplus)} values more than the first line has columns")
        value = {column: (self.values.get(column) or "").strip() for column in COLUMNS}
        status = value["status"].lower()
        if status not in _STATUSES:
            raise RowError("status", "must be active, earn_only or blocked, or empty")
        member = member_pb2.NewMember(
            member_id=value["member_id"],
            status=_STATUSES[status],
            profile=member_pb2.Profile(name=value["name"], birthday=value["birthday"], language=value["language"]),
            phone=value["phone"],
            card_numbers=[card for card in _SEPARATORS.split(value["card_numbers"]) if card],
            digital_token=value["digital_token"],
        )
        if value["registered_at"]:
            member.registered_at.FromDatetime(_moment(value["registered_at"]))
        return member


def read_rows(path: Path, delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a file in order; empty lines are passed over.

    Raises:
        FileError: it is not UTF-8, or its first line does not name our columns, or it is no CSV.
    """
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(reader, [])
            _check_columns(path, names)
            line = reader.line_num + 1
            for values in reader:
                if values:
                    yield Row(line, dict(zip(names, values, strict=False)), tuple(values[len(names) :]))
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise FileError(f"{path}:{reader.line_num if reader else 1}: is not CSV: {error}") from None


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if not names:
        raise FileError(f"{path}:1: is empty; its first line must name columns: {', '.join(COLUMNS)}")
    unknown = [name for name in names if name not in COLUMNS and not name.startswith(ERROR_PREFIX)]
    if unknown:
        raise FileError(f"{path}:1: unknown column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise FileError(f"{path}:1: column {twice[0]!r} stands twice")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RowError("registered_at", "must be YYYY-MM-DD or a time such as 2024-05-01T10:00:00+03:00") from None
    if moment.tzinfo is None:
        if moment.time() != datetime.min.time():
            raise RowError("registered_at", "has a time without its zone: add one, such as +03:00 or Z")
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)
