"""Rows of a file, sent to the back office in batches.

A bad row never stops a file. What the service says of single rows is their refusal; where it cannot answer a whole
batch, the batch is halved until the guilty rows stand alone. If it is not there at all, nothing more is sent, and what
was not is told: any file may be loaded again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import grpc
import typer
from google.protobuf.message import Message
from rich.console import Console
from tallypoint.v1 import common_pb2 as api
from tallypoint.v1 import rights_pb2

from server.base.errors import Refused, reason_name
from server.commands.client import CallFailed
from server.commands.common import fail
from server.commands.csv_rows.layout import FileError
from server.commands.csv_rows.report import ERRORS_SHOWN, Refusal, Report
from server.commands.csv_rows.table import Fault, Row, Table
from server.commands.output.progress import progress
from server.edge.validation import check

ROWS_PER_CALL: Final = 5000
EXIT_ROWS_REFUSED: Final = 1
MOST_FAILED_CALLS: Final = {
    grpc.StatusCode.INTERNAL: 100,
    grpc.StatusCode.UNKNOWN: 100,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 6,
    grpc.StatusCode.DEADLINE_EXCEEDED: 4,
}
"""How many calls of a batch may fail before the rest of it is given up; other failures are not the rows' fault.

Calls that fail for want of room or time are repeated by gRPC itself before that.
"""
_ROW_OF_BATCH: Final = re.compile(r"\brow (\d+) of this batch")
"""How the service names another row of a call; people count the lines of their file."""
_ITEM: Final = re.compile(r"\w+\[(\d+)\]\.?(.*)")
"""How the service names a row of a call that it refuses as a whole."""

M = TypeVar("M", bound=Message)


class Batch(NamedTuple, Generic[M]):
    """Rows that go in one call, with their messages."""

    table: Table
    rows: list[Row]
    messages: list[M]

    def refusals(self, answers: Iterable[rights_pb2.RefusedRow]) -> list[Refusal]:
        """Return the refusals of an answer, with the rows that they are of."""
        return [self.refusal(answer.index, answer.refusal) for answer in answers]

    def refusal(self, index: int, refusal: api.Refusal) -> Refusal:
        """Return the refusal of one row, counted from 0."""
        faults = [(fault.field, fault.description) for fault in refusal.violations]
        return self._refusal(index, reason_name(refusal.reason), faults, refusal.message)

    def blamed(self, failure: CallFailed) -> dict[int, Refusal]:
        """Return the refusals of those rows that a call's failure names."""
        faults: dict[int, list[tuple[str, str]]] = {}
        for field, text in failure.violations:
            item = _ITEM.fullmatch(field)
            if item and int(item[1]) < len(self.rows):
                faults.setdefault(int(item[1]), []).append((item[2], text))
        return {index: self._refusal(index, failure.reason, named, "") for index, named in faults.items()}

    def part(self, indexes: Iterable[int]) -> Batch[M]:
        """Return some of the rows as a batch."""
        chosen = list(indexes)
        return Batch(self.table, [self.rows[index] for index in chosen], [self.messages[index] for index in chosen])

    def _refusal(self, index: int, reason: str, faults: Iterable[tuple[str, str]], message: str) -> Refusal:
        row = self.rows[index]
        named = [Fault(self.table.column_of(row, field), _ROW_OF_BATCH.sub(self._line, text)) for field, text in faults]
        return Refusal(row, reason, _words(named) or message)

    def _line(self, found: re.Match[str]) -> str:
        return f"line {self.rows[int(found[1])].line}"


Send = Callable[[Batch[M]], Iterable[Refusal]]
"""Sends a batch and returns its refusals; raises CallFailed."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How many rows a file had, how many of them were refused, and how many were not sent, for which failure."""

    rows: int
    refused: int
    unsent: int = 0
    failure: str = ""

    def finish(self, text: str) -> None:
        """Print what was done, and end the command if that was not everything.

        Raises:
            typer.Exit: with code 1 if rows were refused, with 2 if rows were not sent.
        """
        unsent = f", {self.unsent:,} were not loaded" if self.unsent else ""
        Console(highlight=False).print(f"{self.rows:,} rows: {text}{unsent}", markup=False, soft_wrap=True)
        if self.failure:
            raise fail(f"{self.failure}\nLoad the file once more later: what is there already changes nothing.")
        if self.refused:
            raise typer.Exit(EXIT_ROWS_REFUSED)


def send_rows(
    table: Table,
    title: str,
    message_of: Callable[[Row], M],
    send: Send[M],
    errors: Path | None = None,
    rows_per_call: int = ROWS_PER_CALL,
) -> Sent:
    """Send a file in batches, with progress; print the first refused rows, and write all of them to `errors`.

    While a batch is under way the next one is read. `message_of` makes a row's message, and notes in the row what is
    wrong with it; a message that breaks limits of the API is not sent either.

    Raises:
        typer.Exit: the file cannot be read.
    """
    try:
        total = table.survey.rows
        with Report(table, errors) as report:
            tell(table)
            with progress(title, total, "rows") as advance:
                failure = _send_batches(_batches(table, message_of, rows_per_call), send, report, advance)
            report.show()
        return Sent(total, report.refused, report.unsent, failure)
    except FileError as error:
        raise fail(str(error)) from None


def tell(table: Table) -> None:
    """Print how a file was read, where that was found by itself, and which of its lines are no rows."""
    console = Console(highlight=False)
    if table.layout.found:
        console.print(f"{table.path}: {table.layout.found}", markup=False, soft_wrap=True)
    passed_over = table.survey.passed_over
    for text in passed_over[:ERRORS_SHOWN]:
        console.print(text, markup=False, soft_wrap=True)
    if len(passed_over) > ERRORS_SHOWN:
        console.print(f"... and {len(passed_over) - ERRORS_SHOWN:,} more lines were passed over")


class Outcome(NamedTuple):
    """What became of a batch: rows that were refused, and rows that were not sent, for which failure."""

    refused: list[Refusal]
    unsent: list[Row]
    failure: str


def deliver(batch: Batch[M], send: Send[M], refused_before: Iterable[Refusal] = ()) -> Outcome:
    """Send a batch; where a call fails as a whole, find the rows that are to blame, so that the others come through.

    `refused_before` are rows of the same part of the file that are not in the batch.
    """
    refused = list(refused_before)
    waiting = [batch] if batch.rows else []
    failed_calls = 0
    while waiting:
        part = waiting.pop()
        try:
            refused += send(part)
        except CallFailed as failure:
            failed_calls += 1
            blamed = part.blamed(failure)
            count = len(part.rows)
            if blamed:
                refused += blamed.values()
                rest = part.part(index for index in range(count) if index not in blamed)
                waiting += [rest] if rest.rows else []
            elif failed_calls > MOST_FAILED_CALLS.get(failure.code, 0):
                rows = [row for one in (part, *reversed(waiting)) for row in one.rows]
                return Outcome(refused, rows, str(failure))
            elif count > 1:
                waiting += [part.part(range(count // 2, count)), part.part(range(count // 2))]
            else:
                refused.append(Refusal(part.rows[0], failure.reason, failure.message))
    return Outcome(refused, [], "")


def _send_batches(
    batches: Iterable[tuple[Batch[M], list[Refusal]]], send: Send[M], report: Report, advance: Callable[[int], None]
) -> str:
    """Send batches one after the other; return the failure that ended it, or an empty text."""
    failure = ""
    with ThreadPoolExecutor(1) as pool:
        under_way: Future[Outcome] | None = None
        for batch, refused in batches:
            failure = failure or _noted(under_way, report)
            under_way = None if failure else pool.submit(deliver, batch, send, refused)
            if failure:
                report.add(refused)
                report.add_unsent(batch.rows, failure)
            else:
                advance(len(batch.rows) + len(refused))
        return failure or _noted(under_way, report)


def _noted(under_way: Future[Outcome] | None, report: Report) -> str:
    if under_way is None:
        return ""
    outcome = under_way.result()
    report.add(outcome.refused)
    report.add_unsent(outcome.unsent, outcome.failure)
    return outcome.failure


def _batches(
    table: Table, message_of: Callable[[Row], M], rows_per_call: int
) -> Iterator[tuple[Batch[M], list[Refusal]]]:
    rows = table.rows()
    while chunk := list(islice(rows, rows_per_call)):
        batch: Batch[M] = Batch(table, [], [])
        refused: list[Refusal] = []
        for row in chunk:
            message = _message(table, row, message_of)
            if message is None:
                refused.append(Refusal(row, reason_name(api.REFUSAL_REASON_INVALID_REQUEST), _words(row.faults)))
            else:
                batch.messages.append(message)
                batch.rows.append(row)
        yield batch, refused


def _message(table: Table, row: Row, message_of: Callable[[Row], M]) -> M | None:
    """Return a row's message, or None after noting all that is wrong with its form."""
    if row.faults and not row.meant:
        return None
    message = message_of(row)
    known = {fault.column for fault in row.faults}
    try:
        check(message)
    except Refused as refusal:
        faults = [Fault(table.column_of(row, field), text) for field, text in refusal.violations]
        row.faults.extend(fault for fault in faults if fault.column not in known)
    return None if row.faults else message


def _words(faults: Iterable[Fault]) -> str:
    return "; ".join(map(str, faults))
