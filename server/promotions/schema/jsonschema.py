"""The JSON Schema of a programme file, for editors that complete and check while typing."""

from __future__ import annotations

import json
from typing import Any

from server.promotions.schema.sections import ProgrammeSection

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The dialect that editors' YAML plugins know best."""
_NULL = {"type": "null"}


def json_schema() -> dict[str, Any]:
    """The schema as plain data. It knows each field by itself; `load_programme` alone knows what goes together."""
    plain = _tidied(ProgrammeSection.model_json_schema(by_alias=True))
    return {"$schema": DIALECT, **plain, "title": "Tallypoint programme"}


def json_schema_text() -> str:
    """The schema as the text of its published file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidied(node: Any) -> Any:  # noqa: ANN401 - any JSON
    """Drop what only machines want: made-up titles, and `null` where a field may be left out."""
    if isinstance(node, list):
        return [_tidied(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    kept = {name: _tidied(value) for name, value in node.items() if not _is_noise(name, value)}
    for name in {"properties", "$defs"} & set(node):
        kept[name] = {field: _tidied(inner) for field, inner in node[name].items()}
    choices = [choice for choice in kept.pop("anyOf", []) if choice != _NULL]
    if len(choices) == 1:
        return {**choices[0], **kept}
    return {**kept, "anyOf": choices} if choices else kept


def _is_noise(name: str, value: object) -> bool:
    """Say whether a keyword is a made-up title, or a default that is an empty section."""
    return (name == "title" and isinstance(value, str)) or (
        name == "default" and (value is None or isinstance(value, dict | list))
    )
