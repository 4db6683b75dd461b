"""JSON text -> plain data, quickly: what programs write is read more than ten times faster than as YAML.

No positions are kept. A file with faults is read once more as YAML, which JSON is, to say where they are.
"""

from __future__ import annotations

import json
from typing import NoReturn

from server.promotions.load.plain_data import read_plain
from server.promotions.yaml_text import MAX_BYTES, Document


class _NotPlainJson(ValueError):
    """The text is better read as YAML."""


def read_json(text: str | bytes) -> Document | None:
    """Read an object of JSON; None for anything that is not plainly one, or too big."""
    if len(text) > MAX_BYTES or text.lstrip()[:1] not in {"{", b"{"}:
        return None
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        if len(decoded.encode()) > MAX_BYTES:
            return None
        data = json.loads(
            decoded, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_without_duplicates
        )
    except (ValueError, RecursionError):
        return None
    document = read_plain(data)
    return None if document.problems else document


def as_yaml(text: str | bytes) -> str | bytes:
    """The same JSON for a reader of YAML, which allows no tabs between words; columns stay as they are."""
    return text.replace("\t", " ") if isinstance(text, str) else text.replace(b"\t", b" ")


def _refuse(constant: str) -> NoReturn:
    raise _NotPlainJson(constant)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _NotPlainJson("a key stands twice")
    return fields
