"""The options of every command that loads a CSV file, alike in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from server.commands.common import fail
from server.commands.csv_rows.layout import Reading

_NAMES: Final = {"tab": "\t", "\\t": "\t"}

File = Annotated[
    Path, typer.Argument(help="A CSV file. Its delimiter and encoding are found.", exists=True, dir_okay=False)
]
Errors = Annotated[
    Path | None, typer.Option("--errors", help="Write the refused rows to this CSV file.", dir_okay=False)
]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", help="What separates values, such as ';' or tab; not given: it is found.")
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="The file's encoding, such as cp1251; not given: it is found.")
]
Verbatim = Annotated[
    bool,
    typer.Option("--verbatim", help="Take values as they stand that a spreadsheet seems to have changed."),
]


def reading_of(delimiter: str | None, encoding: str | None, *, verbatim: bool) -> Reading:
    """Return how a file is to be read by these options; typer.Exit if no file could be."""
    if delimiter is not None:
        delimiter = _NAMES.get(delimiter.lower(), delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n' or delimiter.isalnum():
            raise fail(f"--delimiter {delimiter!r} must be one character, such as ; or , or | or tab")
    return Reading(delimiter, encoding or None, verbatim)
