"""What every sub-command of `tallypoint` needs: the settings, the databases, and errors that people can read."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from server.base.settings import Settings, StartRefusedError, unknown_variables, variable_of
from server.base.text_files import NotTextError, read_utf8

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

EXIT_CANNOT_RUN: Final = 2
"""The command could not do its work: a setting, a port, a database. What it says is on standard error."""

OUR_ROLE: Final = 'role "tallypoint_'
"""How PostgreSQL names a role that `tallypoint migrate` makes."""

errors: Final = Console(stderr=True, highlight=False)


def warn(warnings: Iterable[str]) -> None:
    """Print what is allowed and probably not meant, each once."""
    for text in sorted(set(warnings)):
        errors.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def fail(message: str) -> typer.Exit:
    """Print an error and return the exception to raise."""
    errors.print(message, style="red", markup=False, soft_wrap=True)
    return typer.Exit(EXIT_CANNOT_RUN)


DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the embedded databases and development keys are.")
]
Embedded = Annotated[
    bool | None,
    typer.Option("--embedded", help="A database without a DSN is the embedded PostgreSQL's, in --data-dir."),
]
"""The options of commands that open the databases themselves; their values are settings."""

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
"""The option of commands that ask before they do what cannot be undone; its value is for `confirm`."""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone, and return if the answer is yes or was given with the command.

    Raises:
        typer.Exit: Standard input is no terminal, so nobody can be asked.
        typer.Abort: The answer is no.
    """
    if yes:
        return
    if not at_terminal():
        raise fail(f"{question} Nobody can be asked here, so nothing was done: give --yes to go ahead.")
    typer.confirm(question, abort=True, err=True)


def at_terminal() -> bool:
    """Say whether a person can answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_text(path: Path) -> str:
    """Return the text of a file that somebody wrote, in UTF-8 with or without its mark.

    Raises:
        typer.Exit: It cannot be read, or is in another encoding; what to do was printed.
    """
    try:
        return read_utf8(path)
    except OSError as error:
        raise fail(f"{path} cannot be read: {error.strerror or error}") from None
    except NotTextError as error:
        raise fail(str(error)) from None


_IN_WORDS: Final = {
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number, such as 2",
    "float_parsing": "must be a number, such as 0.5",
}
"""What people read in place of pydantic's words for some kinds of errors."""


def load_settings(**from_command_line: Any) -> Settings:  # noqa: ANN401 - whatever types the settings have
    """Read the settings; None means that the command line does not say.

    Raises:
        typer.Exit: A setting is wrong; every one at fault was printed with its name.
    """
    given = {name: value for name, value in from_command_line.items() if value is not None}
    unknown = [f"  {name}: {_no_such_setting(near)}" for name, near in unknown_variables(os.environ).items()]
    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise _wrong_settings([*unknown, *map(_line, problems)]) from None
    except (SettingsError, OSError, ValueError) as error:
        raise fail(f"The settings cannot be read: {error}") from None
    if unknown:
        raise _wrong_settings(unknown)
    return settings


def _wrong_settings(lines: list[str]) -> typer.Exit:
    return fail("\n".join(["These settings are wrong:", *lines]))


def _line(problem: ErrorDetails) -> str:
    """Say which setting is wrong, how it is set, and what is wrong with it."""
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":  # it stands in the file: an unknown variable is not read at all
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"  {name}: {_no_such_setting(next(iter(near), ''))}"
    message = _IN_WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return f"  {name} ({variable_of(name)}): {message}" if name else f"  {message}"


def _no_such_setting(near: str) -> str:
    meant = f"did you mean {near}? " if near else ""
    return f"there is no such setting; {meant}'tallypoint settings' lists all of them"


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the errors that people can do something about into a message and exit code 2."""
    import asyncpg

    from ledger.migrate import MigrationError
    from server.base.postgres import PostgresError

    try:
        yield
    except (StartRefusedError, PostgresError, MigrationError) as error:
        raise fail(str(error)) from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise fail(_fault_outside(error)) from None


def _fault_outside(error: Exception) -> str:
    """Say what a file or a database refused, and what to do."""
    import socket

    import asyncpg

    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    fault, cure = str(error) or type(error).__name__, "look at TALLYPOINT_LEDGER_DSN and TALLYPOINT_CRM_DSN"
    if isinstance(error, socket.gaierror):
        fault, cure = "there is no such host", f"{cure} ({error.strerror})"
    elif isinstance(error, FileNotFoundError):
        fault, cure = "there is no socket in the directory named as its host", f"{cure}, and whether it runs"
    elif isinstance(error, TimeoutError):
        fault = "no answer in time"
    elif isinstance(error, ConnectionRefusedError):
        cure = f"{cure}, and whether it runs"
    elif isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError) or OUR_ROLE in fault:
        cure = "if it is new or was just updated, run 'tallypoint migrate'"
    return f"A database cannot be reached or refuses: {fault}: {cure}"
