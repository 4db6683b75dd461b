"""Faults of a programme file: collecting them by path, and saying pydantic's in an author's words."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.promotions.yaml_text import Document, Path, Plain

MAX_ERRORS = 500
"""Errors reported of one file."""
MAX_FAULTS = 5 * MAX_ERRORS
"""Faults looked for before the rest of them is left for the next try."""
MAX_SHOWN = 40
MAX_PLACES = 3

_PLAIN_WORDS = {
    "missing": ("is missing", "add it"),
    "dict_type": ("has to be a mapping", "write `name: value` lines below it, indented"),
    "list_type": ("has to be a list", "write one `- item` a line below it"),
    "too_short": ("is empty", "name something, or leave the field out"),
}
_DEFAULT_LANGUAGE = ""


@dataclass(frozen=True, slots=True)
class ProgrammeError:
    """One fault of a programme file. Lines and columns count from 1; `field` is like promotions[2].id."""

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str

    def __str__(self) -> str:
        """One line as compilers print them, so that editors can jump to it."""
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.field + ': ' if self.field else ''}{self.message} ({self.hint})"


@dataclass(slots=True)
class Faults:
    """Collects faults by path, at most MAX_FAULTS."""

    document: Document
    found: list[tuple[Path, str, str]] = field(default_factory=list)

    def add(self, path: Path, message: str, hint: str) -> None:
        """Note a fault: where, what is wrong, what to do."""
        if len(self.found) < MAX_FAULTS:
            self.found.append((path, message, hint))

    def line_of(self, path: Path) -> int:
        """The line of a field, or of the nearest part around it that the text has."""
        return self._position(path)[0]

    def errors(self, file: str) -> list[ProgrammeError]:
        """All faults of the text and of its fields in the file's order, at most MAX_ERRORS."""
        errors = {
            ProgrammeError(file, problem.line, problem.column, _dotted(problem.path), problem.message, problem.hint)
            for problem in self.document.problems
        }
        for path, message, hint in self.found:
            errors.add(ProgrammeError(file, *self._position(path), _dotted(path), message, hint))
        return sorted(errors, key=lambda e: (e.line, e.column, e.field, e.message))[:MAX_ERRORS]

    def _position(self, path: Path) -> tuple[int, int]:
        positions = self.document.positions
        while path and path not in positions:
            path = path[:-1]
        return positions.get(path, (1, 1))


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step[:MAX_SHOWN]}" if text else step[:MAX_SHOWN]
    return text


def closest(name: str, known: list[str], otherwise: str) -> str:
    """A hint that names the most similar of the known words, if there is one."""
    close = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1)
    return f"did you mean `{close[0]}`?" if close else otherwise


_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], data: Plain, path: Path, faults: Faults) -> _M | None:
    """The section at `path`, or None after noting what is wrong with its fields."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for detail in islice(error.errors(include_url=False, include_context=True), MAX_FAULTS):
            _add_detail(model, path, _location(detail), detail, faults)
        return None


def _location(detail: ErrorDetails) -> Path:
    """Where a fault is, in the file's own steps: a text without a language has no step for it."""
    if detail["type"] == "extra_forbidden":
        return detail["loc"]
    return tuple(step for step in detail["loc"] if step not in {"[key]", _DEFAULT_LANGUAGE})


def _add_detail(model: type[BaseModel], path: Path, location: Path, detail: ErrorDetails, faults: Faults) -> None:
    kind = detail["type"]
    if kind == "extra_forbidden":
        name = str(location[-1])
        hint = _hint_for_field(name, _section_at(model, location[:-1]))
        faults.add(path + location, f"`{name[:MAX_SHOWN]}` is no field known here", hint)
    elif kind == "model_type":
        known = ", ".join(_fields(_section_at(model, location)))
        faults.add(path + location, "has to be a mapping of fields", f"write `field: value` lines below it: {known}")
    elif kind == "programme_value":
        faults.add(path + location, str(detail["msg"]), str(detail["ctx"]["hint"]))
    elif kind == "too_long":
        most = detail["ctx"]["max_length"]
        faults.add(path + location, "has too many entries", f"at most {most}; split the programme")
    elif kind in _PLAIN_WORDS:
        faults.add(path + location, *_PLAIN_WORDS[kind])
    elif kind in {"enum", "literal_error"}:
        _add_choice(path + location, detail, faults)
    else:
        faults.add(path + location, str(detail["msg"]).removeprefix("Input "), "correct the value")


def _add_choice(path: Path, detail: ErrorDetails, faults: Faults) -> None:
    choices = str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
    given = str(detail["input"])[:MAX_SHOWN]
    faults.add(path, f"`{given}` is none of {', '.join(choices)}", closest(given, choices, "use one of these"))


def _hint_for_field(name: str, section: type[BaseModel]) -> str:
    """Where a field belongs that is not known in a section: one level deeper, or under a similar name."""
    deeper = [
        field
        for field, annotation in _fields(section).items()
        if any(name in _fields(inner) for inner in _models_in(annotation))
    ]
    if deeper:
        return f"it stands inside {' or '.join(f'`{field}`' for field in deeper[:MAX_PLACES])}"
    if name.isdecimal():
        return "numbers have a point: write 1.5, not 1,5"
    known = list(_fields(section))
    return closest(name, known, f"known here: {', '.join(known)}")


def _section_at(model: type[BaseModel], location: Path) -> type[BaseModel]:
    """The section that the schema has at a location."""
    current = model
    for step in location:
        if isinstance(step, str):
            current = next(_models_in(_fields(current).get(step)), current)
    return current


def _fields(section: type[BaseModel]) -> dict[str, object]:
    """The fields of a section by their names in the file, with what they hold."""
    return {info.alias or name: info.annotation for name, info in section.model_fields.items()}


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
