"""What no field can hold, whatever its own limits: texts that PostgreSQL cannot keep, times and numbers that are none.

`server.edge.prover` looks at the same on its fast way; this says which field it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

FIRST_SECOND: Final = -62_135_596_800
LAST_SECOND: Final = 253_402_300_799
"""Of the years 1 to 9999, in seconds since 1970."""
NANOS_PER_SECOND: Final = 10**9
NUL: Final = "\x00"

HAS_NUL: Final = "has the character NUL (U+0000), which no text can hold: leave it out"
NO_NUMBER: Final = "is not a finite number"
NO_TIME: Final = (
    "is not a time between the years 1 and 9999: seconds since 1970, not milliseconds, and nanos up to 10^9 - 1"
)


def unholdable(message: Message) -> Iterator[tuple[str, str]]:
    """Yield the path of each such field and what is wrong with it, but of no items that are checked by themselves."""
    if isinstance(message, Timestamp):
        if not is_in_calendar(message):
            yield "", NO_TIME
        return
    for field, value in message.ListFields():
        rules = rules_of(field)
        if validate_pb2.IGNORE_ALWAYS in (rules.ignore, rules.repeated.items.ignore):
            continue
        for place, item in _items(field, value):
            for path, text in _faults(item):
                yield f"{field.name}{place}.{path}" if path else f"{field.name}{place}", text


def rules_of(field: Any) -> validate_pb2.FieldRules:  # noqa: ANN401 - the stubs of extensions do not say what they are
    """Return the limits written at a field."""
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return rules


def is_in_calendar(timestamp: Timestamp) -> bool:
    """Say whether Python's and PostgreSQL's calendars have a time."""
    return FIRST_SECOND <= timestamp.seconds <= LAST_SECOND and 0 <= timestamp.nanos < NANOS_PER_SECOND


def _items(field: FieldDescriptor, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of any kind of field
    """Yield the values of a field, each with its subscript."""
    if not field.is_repeated:
        yield "", value
    elif isinstance(value, Mapping):
        for key in value:
            yield f"[{key!r}]", value[key]
            if isinstance(key, str) and NUL in key:
                yield f"[{key!r}]", key
    else:
        for index, item in enumerate(value):
            yield f"[{index}]", item


def _faults(item: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - of any kind of field
    if isinstance(item, str):
        if NUL in item:
            yield "", HAS_NUL
    elif isinstance(item, float):
        if not isfinite(item):
            yield "", NO_NUMBER
    elif isinstance(item, Message):
        yield from unholdable(item)
