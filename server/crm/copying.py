"""Rows as the text that PostgreSQL's COPY reads: one line a row, columns between tabs."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, Final

_NULL: Final = "\\N"


def text_of(values: Iterable[Any]) -> str:
    """Return values as columns of one row, without the end of the line.

    Raises:
        KeyError: A value is of a type that no column has.
    """
    return "\t".join([str(value) if type(value) is int else _TEXTS[type(value)](value) for value in values])


def _str(value: str) -> str:
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if value.isprintable():
        return value
    return value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _list(values: list[str]) -> str:
    if not values:
        return "{}"
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return _str("{" + ",".join([f'"{value}"' for value in quoted]) + "}")


class _Texts(dict[type, Callable[[Any], str]]):
    """How values of each type are written; a subclass is written as its parent."""

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        for parent in kind.__mro__[1:]:
            if parent in self:
                self[kind] = self[parent]
                return self[parent]
        raise KeyError(f"no column holds a {kind.__name__}")


_TEXTS: Final = _Texts(
    {
        type(None): lambda _: _NULL,
        bool: lambda value: "t" if value else "f",
        int: str,
        str: _str,
        bytes: lambda value: f"\\\\x{value.hex()}",
        date: date.isoformat,
        datetime: datetime.isoformat,
        uuid.UUID: str,
        list: _list,
    }
)
