"""A programme file -> Programme, or every fault of it at once, each with its line, column, field and a hint.

Reading goes in three stages: the text (yaml_text, json_text) or plain data (plain_data), each field by itself
(schema), and what concerns several fields (here, in modules named like those of the schema). Faults of one stage
don't hide those of another part of the file.
"""

from __future__ import annotations

from server.promotions.load.faults import Faults, ProgrammeError
from server.promotions.load.json_text import as_yaml, read_json
from server.promotions.load.plain_data import read_plain
from server.promotions.load.programme import changed_defaults, programme_from
from server.promotions.model import Programme
from server.promotions.yaml_text import Document, read_yaml

__all__ = ["CURRENT_SEMANTICS", "ProgrammeError", "changed_defaults", "load_programme", "load_programme_struct"]

CURRENT_SEMANTICS = 1
"""The defaults that a programme has if it is published now. 0: those of versions published before floors spread."""


def load_programme(
    text: str | bytes, file: str = "programme.yaml", *, semantics: int = CURRENT_SEMANTICS
) -> Programme | list[ProgrammeError]:
    """Read a programme from YAML or JSON text; `file` only names it in errors.

    `semantics` is the number stored with a published version: what the file leaves out means what it meant then.
    Returns all errors in the file's order, at most 500.
    """
    quick = read_json(text)
    if quick is None:
        return _load(read_yaml(text), file, semantics)
    loaded = _load(quick, file, semantics)
    if isinstance(loaded, Programme):
        return loaded
    document = read_yaml(as_yaml(text))
    return loaded if document.problems else _load(document, file, semantics)


def load_programme_struct(
    data: object, file: str = "programme", *, semantics: int = CURRENT_SEMANTICS
) -> Programme | list[ProgrammeError]:
    """Read a programme from plain data: what JSON decodes to, or a google.protobuf.Struct.

    Numbers count as they are printed, so 0.1 is exactly a tenth. Errors name the field; their line is 1. `semantics` is
    as for `load_programme`.
    """
    return _load(read_plain(data), file, semantics)


def _load(document: Document, file: str, semantics: int) -> Programme | list[ProgrammeError]:
    faults = Faults(document)
    if document.data is not None or not document.problems:
        programme = programme_from(document.data, faults, semantics)
        if programme is not None and not faults.found and not document.problems:
            return programme
    return faults.errors(file)
