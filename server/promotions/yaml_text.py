"""YAML text -> plain data with the position of everything in it, within bounds and without surprises.

Scalars stay text (None for an empty value or `null`), so `no` is no boolean, 1.10 keeps its digits, and what
a field means is decided by the schema alone. Duplicate keys, anchors, tags and second documents are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

MAX_BYTES = 4 * 1024 * 1024
"""Some 20,000 promotions; reading YAML takes seconds a megabyte."""
MAX_DEPTH = 32
"""Levels of nesting; a programme with nested conditions needs about ten."""
MAX_TEXT_PROBLEMS = 100
"""Problems reported of one text before reading stops."""

Path = tuple[str | int, ...]
Plain = dict[str, "Plain"] | list["Plain"] | str | None


@dataclass(frozen=True, slots=True)
class TextProblem:
    """A fault of the text itself; line and column count from 1."""

    line: int
    column: int
    path: Path
    message: str
    hint: str


@dataclass(slots=True)
class Document:
    """What a text says: `data` is None if it could not be read. `positions` are lines and columns from 1."""

    data: Plain = None
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[TextProblem] = field(default_factory=list)


class _Unreadable(Exception):
    """Reading can't go on; the problem is already noted."""


@dataclass(slots=True)
class _Open:
    """A mapping or list being read; `key` is the mapping's key that waits for its value."""

    value: dict[str, Plain] | list[Plain]
    path: Path
    key: str | None = None
    is_duplicate: bool = False


def read_yaml(text: str | bytes) -> Document:
    """Read one YAML document; every fault is a problem in the result, never an exception."""
    document = Document()
    try:
        if _size(text) > MAX_BYTES:
            raise _stop(document, (1, 1), f"the file has more than {MAX_BYTES} bytes", "split the programme")
        reader = _Reader(document)
        for event in YAML(typ="safe", pure=True).parse(_decoded(text, document)):
            reader.take(event)
    except _Unreadable:
        document.data = None
    except MarkedYAMLError as error:
        document.data = None
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = ", ".join(part for part in (error.context, error.problem) if part)
        _note(document, place, f"not readable as YAML: {said}", "check indentation, quotes and brackets")
    except (YAMLError, ValueError, OverflowError, AttributeError, IndexError, TypeError) as error:
        # The parser's own slips on hostile text (bad escapes, wild directives) surface as these.
        document.data = None
        _note(document, (1, 1), f"not readable as YAML: {str(error).splitlines()[0]}", "check the characters")
    return document


def _size(text: str | bytes) -> int:
    if isinstance(text, bytes) or len(text) > MAX_BYTES:
        return len(text)
    return len(text.encode(errors="replace"))


def _decoded(text: str | bytes, document: Document) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise _stop(document, (line, 1), "not UTF-8 text", "save the file as UTF-8") from error


def _note(document: Document, place: tuple[int, int], message: str, hint: str, path: Path = ()) -> None:
    document.problems.append(TextProblem(place[0], place[1], path, message, hint))


def _stop(document: Document, place: tuple[int, int], message: str, hint: str) -> _Unreadable:
    _note(document, place, message, hint)
    return _Unreadable(message)


class _Reader:
    """Builds plain data from parser events with a stack of its own, so depth can't exhaust Python's."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: list[_Open] = []
        self._documents = 0

    def take(self, event: Event) -> None:
        """Add one parser event; raises _Unreadable when there is no point in going on."""
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _stop(self._document, place, "a second document begins here", "remove the line `---`")
        elif isinstance(event, AliasEvent):
            self._refuse(place, "aliases (`*name`) are not supported", "write the value out")
            self._add(None, place)
        elif isinstance(event, ScalarEvent):
            self._refuse_decorations(event, place)
            self._add(self._scalar(event, place), place)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            self._refuse_decorations(event, place)
            self._begin({} if isinstance(event, MappingStartEvent) else [], place)
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self._open.pop()

    def _refuse(self, place: tuple[int, int], message: str, hint: str) -> None:
        _note(self._document, place, message, hint, self._open[-1].path if self._open else ())
        if len(self._document.problems) >= MAX_TEXT_PROBLEMS:
            raise _stop(self._document, place, "too many problems, stopped reading here", "mend those above")

    def _refuse_decorations(self, event: NodeEvent, place: tuple[int, int]) -> None:
        if event.anchor is not None:
            self._refuse(place, "anchors (`&name`) are not supported", "write the value out where it is used")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            self._refuse(place, "tags (`!name`) are not supported", "remove the tag")

    def _begin(self, value: dict[str, Plain] | list[Plain], place: tuple[int, int]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _stop(self._document, place, f"nested deeper than {MAX_DEPTH} levels", "flatten this part")
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise _stop(self._document, place, "a mapping or list can't be a key", "write a plain word")
        path = self._add(value, place)
        self._open.append(_Open(value, path))

    def _add(self, value: Plain, place: tuple[int, int]) -> Path:
        """Put a value where it belongs; returns its path."""
        positions = self._document.positions
        if not self._open:
            self._document.data = value
            positions[()] = place
            return ()
        top = self._open[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            positions[path] = place
            top.value.append(value)
            return path
        if top.key is None:
            return self._take_key(top, top.value, value, place)
        path = (*top.path, top.key)
        if not top.is_duplicate:
            top.value[top.key] = value
        top.key = None
        return path

    def _take_key(self, top: _Open, mapping: dict[str, Plain], value: Plain, place: tuple[int, int]) -> Path:
        key = value if isinstance(value, str) else ""
        path = (*top.path, key)
        top.key, top.is_duplicate = key, key in mapping
        if top.is_duplicate:
            first = self._document.positions[path][0]
            self._refuse(place, f"`{key}` stands twice, first in line {first}", "keep one of them")
        else:
            self._document.positions[path] = place
        return path

    def _scalar(self, event: ScalarEvent, place: tuple[int, int]) -> str | None:
        is_plain = event.style is None or event.style == ""
        value = str(event.value)
        if is_plain and value in {"", "~", "null"}:
            return None
        try:
            # JSON writes characters beyond the first 65,536 as two escapes; join them.
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._refuse(place, "half a character (a lone `\\ud800`-like escape)", "write the character itself")
            return ""
