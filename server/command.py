"""What every sub-command of `tallypoint` needs: the settings, the databases, and errors that people can read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console

from server.settings import Settings, StartRefusedError

EXIT_CANNOT_RUN: Final = 2
"""The command could not do its work: a setting, a port, a database. What it says is on standard error."""

errors: Final = Console(stderr=True, highlight=False)


def fail(message: str) -> typer.Exit:
    """Print an error and return the exception to raise."""
    errors.print(message, style="red", markup=False, soft_wrap=True)
    return typer.Exit(EXIT_CANNOT_RUN)


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


_IN_WORDS: Final = {
    "extra_forbidden": "there is no such setting; 'tallypoint settings' lists all of them",
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
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            name = ".".join(str(part) for part in problem["loc"])
            variable = f" (TALLYPOINT_{name.upper()})" if name else ""
            message = _IN_WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
            lines.append(f"  {name}{variable}: {message}" if name else f"  {message}")
        raise fail("These settings are wrong:\n" + "\n".join(lines)) from None
    except (SettingsError, OSError, ValueError) as error:
        raise fail(f"The settings cannot be read: {error}") from None


def unknown_variables() -> list[str]:
    """Return the environment's TALLYPOINT_* variables that are no setting: misspelt ones change nothing."""
    known = {f"TALLYPOINT_{name.upper()}" for name in Settings.model_fields} | OTHER_VARIABLES
    return sorted(name for name in os.environ if name.startswith("TALLYPOINT_") and name not in known)


OTHER_VARIABLES: Final = {
    "TALLYPOINT_SETTINGS_FILE",
    "TALLYPOINT_ADMIN_ADDRESS",
    "TALLYPOINT_ADMIN_KEY",
    "TALLYPOINT_ADMIN_TLS_CA",
    "TALLYPOINT_ADMIN_TLS_CERT",
    "TALLYPOINT_ADMIN_TLS_KEY",
}
"""Variables that are read elsewhere."""


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the errors that people can do something about into a message and exit code 2."""
    import asyncpg

    from ledger.migrate import MigrationError
    from server.postgres import PostgresError

    try:
        yield
    except (StartRefusedError, PostgresError, MigrationError) as error:
        raise fail(str(error)) from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise fail(f"A database cannot be reached or refuses: {error}") from None
