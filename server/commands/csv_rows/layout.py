"""How a file is laid out: its encoding, what separates its values, and its columns, all found by itself.

People may name columns in capitals, with blanks around, in quotation marks, or as the API names the field. Spreadsheets
may begin a file with a line such as ``sep=;``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from server.base.scanned_text import visible_text
from server.commands.csv_rows.cells import Kind
from server.commands.csv_rows.encoding import UTF8, EncodingError, check_encoding, find_encoding
from server.commands.csv_rows.records import Record, read_records, split

DELIMITERS: Final = (",", ";", "\t", "|")
"""What may separate values, the likelier first: it is taken where the first line does not tell."""
ERROR_PREFIX: Final = "error_"
LONGEST_LINE: Final = 1 << 22
"""In characters. A longer one is no line of a table; reading on could need any amount of memory."""
_BLANKS: Final = re.compile(r"[\s_-]+")
_SEPARATOR_LINE: Final = re.compile(r'"?sep=(?P<delimiter>[^"\r\n]|\\t)"?\s*', re.IGNORECASE)
_DELIMITER_NAMES: Final = {"\t": "tab", " ": "blank"}
_HEAD_LINES: Final = 100
"""How many blank lines may stand before the column names."""


class FileError(Exception):
    """A file that cannot be read as rows; the message says where and what to do."""


class Column(NamedTuple):
    """A column of a file; `also` are other names that it may have."""

    name: str
    kind: Kind = Kind.TEXT
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """How somebody wants a file to be read; what is not given is found by itself.

    `verbatim` takes values as they stand that a spreadsheet seems to have changed.
    """

    delimiter: str | None = None
    encoding: str | None = None
    verbatim: bool = False


ANYHOW: Final = Reading()
"""Everything is to be found."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is laid out. A name is one of our columns, or begins with `error_`, or is empty for no name at all.

    `header` is the line with the names.
    """

    path: Path
    encoding: str
    delimiter: str
    names: tuple[str, ...]
    header: Record
    found: str
    """What was found by itself and is not the usual, for people; else empty."""

    def records(self) -> Iterator[Record]:
        """Yield the records after the column names."""
        begin = self.header.line
        with _lines(self.path, self.encoding) as lines:
            yield from read_records(islice(lines, begin, None), self.delimiter, len(self.names), begin + 1)


def find_layout(path: Path, columns: Sequence[Column], reading: Reading) -> Layout:
    """Read the first lines of a file.

    Raises:
        FileError: it is no text, or its first line does not name columns of ours, each once.
    """
    if not path.is_file():
        raise FileError(f"{path}: is no file that can be read twice: save it as one first")
    try:
        encoding = check_encoding(reading.encoding) if reading.encoding else find_encoding(path)
    except EncodingError as error:
        raise FileError(f"{path}: {error}") from None
    known = {_plain(name): column.name for column in columns for name in (column.name, *column.also)}
    with _lines(path, encoding) as lines:
        line, text, separator = _first_line(lines)
    listed = ", ".join(column.name for column in columns)
    if not text:
        raise FileError(f"{path}:1: is empty; its first line must name columns: {listed}")
    delimiter = reading.delimiter or separator or _delimiter_of(text, known)
    values = split(text, delimiter)
    if not isinstance(values, list):
        fault, values = values.fault, text.split(delimiter)  # no name of ours has a delimiter inside
        if not all(_is_known(name, known) for name in values if name.strip()):
            raise FileError(f"{path}:{line}: the column names cannot be read: {fault}")
    names = _names(values, known)
    layout = Layout(
        path, encoding, delimiter, names, Record(line, values, text), _reading_in_words(encoding, delimiter, reading)
    )
    _refuse_unknown(layout, known, listed)
    return layout


def delimiter_name(delimiter: str) -> str:
    """Return a delimiter for people, such as ';' or tab."""
    return _DELIMITER_NAMES.get(delimiter, f"'{delimiter}'")


@contextmanager
def _lines(path: Path, encoding: str) -> Iterator[Iterator[str]]:
    """Open a file as physical lines, whatever ends them; bytes that are no text become U+FFFD."""
    try:
        with path.open(encoding=encoding, errors="replace", newline="") as file:
            yield iter(lambda: _line(file, path), "")
    except UnicodeError as error:
        raise FileError(f"{path}: cannot be read as {encoding}: {error}") from None


def _line(file: TextIO, path: Path) -> str:
    line = file.readline(LONGEST_LINE)
    if len(line) == LONGEST_LINE:
        raise FileError(f"{path}: has a line of more than {LONGEST_LINE:,} characters: it is no table of ours")
    return line


def _first_line(lines: Iterator[str]) -> tuple[int, str, str]:
    """Return number and text of the line with the column names, and the delimiter that a line before it says."""
    separator = ""
    for number, line in enumerate(islice(lines, _HEAD_LINES), start=1):
        text = line.lstrip("\ufeff").rstrip("\r\n\x1a")
        said = _SEPARATOR_LINE.fullmatch(text)
        if said and not separator:
            separator = said["delimiter"].replace("\\t", "\t")
        elif text.strip():
            return number, text, separator
    return 1, "", separator


def _delimiter_of(text: str, known: dict[str, str]) -> str:
    """Return what separates the values of a first line: that by which it names most of our columns, or most at all."""

    def count(delimiter: str) -> tuple[int, int]:
        values = split(text, delimiter)
        names = values if isinstance(values, list) else text.split(delimiter)
        return sum(_plain(name) in known for name in names), len(names)

    return max(DELIMITERS, key=count)


def _plain(name: str) -> str:
    """Return a column's name in the form in which names are compared."""
    return _BLANKS.sub("_", visible_text(name).strip('"').strip().casefold())


def _is_known(name: str, known: dict[str, str]) -> bool:
    return _plain(name) in known or _plain(name).startswith(ERROR_PREFIX)


def _names(values: Iterable[str], known: dict[str, str]) -> tuple[str, ...]:
    plain = [_plain(value) for value in values]
    return tuple(known.get(name, name) for name in plain)


def _reading_in_words(encoding: str, delimiter: str, reading: Reading) -> str:
    """Return what was found and people may not expect, such as "read as cp1251, delimiter ';'"."""
    unusual_encoding = reading.encoding is None and encoding not in {UTF8, "utf-8-sig"}
    unusual_delimiter = reading.delimiter is None and delimiter != DELIMITERS[0]
    if not unusual_encoding and not unusual_delimiter:
        return ""
    name = UTF8 if encoding == "utf-8-sig" else encoding
    return f"read as {name.upper() if name.startswith('utf') else name}, delimiter {delimiter_name(delimiter)}"


def _refuse_unknown(layout: Layout, known: dict[str, str], listed: str) -> None:
    place = f"{layout.path}:{layout.header.line}"
    ours = set(known.values())
    for name, value in zip(layout.names, layout.header.values, strict=True):
        if name and name not in ours and not name.startswith(ERROR_PREFIX):
            hint = _advice(layout, known)
            raise FileError(f"{place}: unknown column {visible_text(value)!r}; the columns are {listed}{hint}")
        if name and layout.names.count(name) > 1:
            raise FileError(f"{place}: column {name!r} stands twice")


def _advice(layout: Layout, known: dict[str, str]) -> str:
    """Return what else may be wrong with a first line that has an unknown name."""
    better = _delimiter_of(layout.header.text, known)
    if better != layout.delimiter:
        given, other = delimiter_name(layout.delimiter), delimiter_name(better)
        return f". Is the delimiter really {given}? The line looks like {other}"
    if any(name in known.values() for name in layout.names):
        return ""
    inside = layout.header.values[0]
    if len(layout.names) == 1 and any(_plain(name) in known for name in inside.split(_delimiter_of(inside, known))):
        return ". Each line stands in quotation marks as a whole: split it into columns where it was made"
    return ". The first line must name them"
