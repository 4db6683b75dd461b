"""Lines of text as records of values: CSV that goes on after a stray quotation mark. Pure.

A library's reader ends at the first mark that is out of place, or takes all that follows for one value. Here a record
that is not CSV is told by the line where it begins, with its values as far as they can be told apart, and the line
after it begins the next record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MARK: Final = '"'
MOST_LINES: Final = 50
"""A value in quotation marks that goes on for longer is a mark that nobody closed."""
NOT_CLOSED: Final = "a quotation mark is opened here and not closed: remove it, or close it where the value ends"
INSIDE: Final = 'has a quotation mark inside quotation marks: write two ("") for one that belongs to the value'


class Record(NamedTuple):
    """A record, the line where it begins counted from 1, and its text as it stands in the file.

    With a `fault` it is not CSV: the fault is in the value with the index `fault_at`, and marks stand in the values as
    in the file.
    """

    line: int
    values: list[str]
    text: str
    fault: str = ""
    fault_at: int = 0


class _Broken(NamedTuple):
    fault: str
    at: int


def read_records(lines: Iterable[str], delimiter: str, width: int = 0, first_line: int = 1) -> Iterator[Record]:
    """Yield the records of physical lines; blank ones are passed over.

    With a `width` in values, a value in quotation marks never takes in lines that look like whole records.
    """
    source = _Source(lines, first_line)
    while (line := source.take()) is not None:
        number = source.number
        text = line.rstrip("\r\n")
        if not text.strip(" \t\xa0\x00\x1a\ufeff"):
            continue
        if MARK not in text:
            yield Record(number, text.split(delimiter), text)
            continue
        values = split(text, delimiter)
        if isinstance(values, _Broken) and values.fault is NOT_CLOSED:
            joined = _joined(line, source, delimiter, width)
            if joined is not None:
                values, text = joined
        if isinstance(values, _Broken):
            yield Record(number, text.split(delimiter), text, *values)
        else:
            yield Record(number, values, text)


def split(text: str, delimiter: str) -> list[str] | _Broken:
    """Return the values of a record's text, or what is wrong with it."""
    values: list[str] = []
    blanks = " \xa0" if delimiter == "\t" else " \t\xa0"
    begin = 0
    while True:
        value = text[begin:].lstrip(blanks) if text[begin : begin + 1] in (*blanks, MARK) else ""
        if value.startswith(MARK):
            opened = len(text) - len(value)
            closed = _closing(text, opened + 1)
            if closed < 0:
                return _Broken(NOT_CLOSED, len(values))
            end = text.find(delimiter, closed + 1)
            end = len(text) if end < 0 else end
            if text[closed + 1 : end].strip(blanks):
                return _Broken(INSIDE, len(values))
            values.append(text[opened + 1 : closed].replace(MARK * 2, MARK))
        else:
            end = text.find(delimiter, begin)
            end = len(text) if end < 0 else end
            values.append(text[begin:end])
        if end == len(text):
            return values
        begin = end + 1


def _closing(text: str, begin: int) -> int:
    """Return where the mark stands that closes a value; -1 if there is none."""
    while (at := text.find(MARK, begin)) >= 0 and text[at + 1 : at + 2] == MARK:
        begin = at + 2
    return at


def _joined(line: str, source: _Source, delimiter: str, width: int) -> tuple[list[str], str] | None:
    """Return the values of a record of several lines, with its text; None if the mark in the first is a stray one."""
    text = line
    for count, following in enumerate(source.ahead(MOST_LINES), start=1):
        if width and _is_record(following, line, delimiter, width):
            return None
        text += following
        if MARK not in following:
            continue
        record = text.rstrip("\r\n")
        values = split(record, delimiter)
        if not isinstance(values, _Broken):
            if len(values) != (width or len(values)):
                return None
            source.skip(count)
            return values, record
        if values.fault is not NOT_CLOSED:
            return None
    return None


def _is_record(following: str, line: str, delimiter: str, width: int) -> bool:
    """Say whether a following line is a record of its own, rather than the rest of a value that a line began.

    Within a value every line has its marks in pairs, but for the one that ends it. That one is taken for a record too
    if both lines have delimiters enough.
    """
    if following.count(MARK) % 2 == 0:
        values = split(following.rstrip("\r\n"), delimiter)
        return not isinstance(values, _Broken) and len(values) == width
    return min(line.count(delimiter), following.count(delimiter)) >= width - 1


class _Source:
    """Physical lines that can be looked at before they are taken."""

    def __init__(self, lines: Iterable[str], first_line: int) -> None:
        self._lines = iter(lines)
        self._waiting: deque[str] = deque()
        self.number = first_line - 1
        """The number of the line that was taken last."""

    def take(self) -> str | None:
        self.number += 1
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def ahead(self, most: int) -> Iterator[str]:
        """Yield the following lines without taking them."""
        for index in range(most):
            if index == len(self._waiting):
                line = next(self._lines, None)
                if line is None:
                    return
                self._waiting.append(line)
            yield self._waiting[index]

    def skip(self, count: int) -> None:
        """Take lines that were looked at."""
        for _ in range(count):
            self._waiting.popleft()
        self.number += count
