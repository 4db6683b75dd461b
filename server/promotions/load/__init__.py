"""A programme file -> Programme, or every fault of it at once, each with its line, column, field and a hint.

Reading goes in three stages: the text (yaml_text, json_text) or plain data (plain_data), each field by itself
(schema), and what concerns several fields (here, in modules named like those of the schema). Faults of one stage
don't hide those of another part of the file.
"""

from __future__ import annotations

from server.promotions.load.faults import Faults, ProgrammeError
from server.promotions.load.json_text import as_yaml, read_json
from server.promotions.load.plain_data import read_plain
from server.promotions.load.programme import programme_from
from server.promotions.model import Programme
from server.promotions.yaml_text import Document, read_yaml

__all__ = ["ProgrammeError", "load_programme", "load_programme_struct"]


def load_programme(text: str | bytes, file: str = "programme.yaml") -> Programme | list[ProgrammeError]:
    """Read a programme from YAML or JSON text; `file` only names it in errors.

    Returns all errors in the file's order, at most 500.
    """
    quick = read_json(text)
    if quick is None:
        return _load(read_yaml(text), file)
    loaded = _load(quick, file)
    if isinstance(loaded, Programme):
        return loaded
    document = read_yaml(as_yaml(text))
    return loaded if document.problems else _load(document, file)


def load_programme_struct(data: object, file: str = "programme") -> Programme | list[ProgrammeError]:
    """Read a programme from plain data: what JSON decodes to, or a google.protobuf.Struct.

    Numbers count as they are printed, so 0.1 is exactly a tenth. Errors name the field; their line is 1.
    """
    return _load(read_plain(data), file)


def _load(document: Document, file: str) -> Programme | list[ProgrammeError]:
    faults = Faults(document)
    if document.data is not None or not document.problems:
        programme = programme_from(document.data, faults)
        if programme is not None and not faults.found and not document.problems:
            return programme
    return faults.errors(file)
