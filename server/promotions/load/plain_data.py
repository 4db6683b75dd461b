"""Plain data, as JSON or protobuf decode it, brought into the form in which YAML text is read: all scalars as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from server.promotions.yaml_text import MAX_BYTES, MAX_DEPTH, Document, Path, Plain, TextProblem

MAX_VALUES = MAX_BYTES // 4
"""Fields and entries in all: more than a text of MAX_BYTES can hold of use."""
WHOLE_DIGITS = 15
"""Doubles hold whole numbers exactly up to so many digits."""


class _TooMuch(Exception):
    """Reading can't go on; the problem is already noted."""


def read_plain(data: object) -> Document:
    """Bring plain data into the form of a document; every fault is a problem in the result, never an exception."""
    reader = _Reader()
    try:
        reader.document.data = reader.read(data, ())
    except _TooMuch:
        reader.document.data = None
    return reader.document


class _Reader:
    def __init__(self) -> None:
        self.document = Document()
        self._left = MAX_VALUES

    def read(self, value: object, path: Path) -> Plain:
        """The value with its scalars as text; raises _TooMuch beyond bounds."""
        self._left -= 1
        if self._left < 0:
            raise self._stop((), f"has more than {MAX_VALUES} values", "split the programme")
        if len(path) > MAX_DEPTH:
            raise self._stop(path, f"nested deeper than {MAX_DEPTH} levels", "flatten this part")
        if isinstance(value, str) or value is None:
            return value
        if isinstance(value, Mapping):
            return {self._key(key, path): self.read(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, bytes):
            return [self.read(inner, (*path, number)) for number, inner in enumerate(value)]
        return self._scalar(value, path)

    def _key(self, key: object, path: Path) -> str:
        if not isinstance(key, str):
            self._note(path, f"the key {key!r:.40} is no text", "write a word")
        return str(key)

    def _scalar(self, value: object, path: Path) -> str | None:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value) if abs(value) < 10**WHOLE_DIGITS else f"{Decimal(value):e}"
        if isinstance(value, float):
            return str(int(value)) if value.is_integer() and abs(value) < 10**WHOLE_DIGITS else _decimal_text(value)
        self._note(path, f"{type(value).__name__} is no value of a programme", "use text, numbers, true and false")
        return None

    def _note(self, path: Path, message: str, hint: str) -> None:
        self.document.problems.append(TextProblem(1, 1, path, message, hint))

    def _stop(self, path: Path, message: str, hint: str) -> _TooMuch:
        self._note(path, message, hint)
        return _TooMuch(message)


def _decimal_text(value: float) -> str:
    """The shortest digits that mean the same double: what was typed."""
    shown = repr(value)
    return f"{Decimal(shown):f}" if value == value and abs(value) < 10**WHOLE_DIGITS else shown  # noqa: PLR0124 - nan
