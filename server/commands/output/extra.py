"""The libraries of the extra `finance`, imported when they are wanted: the service itself runs without them."""

from __future__ import annotations

import importlib
from typing import Any


class CannotWriteError(Exception):
    """The report cannot be written to such a file; the message says what to do."""


def library(name: str, wanted_for: str) -> Any:  # noqa: ANN401 - a module
    """Import a library of the extra `finance`.

    Raises:
        CannotWriteError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise CannotWriteError(
            f"{wanted_for} needs the library {package}, which is not installed: pip install {package} "
            "(it is part of the wheel's extra `finance`)"
        ) from error
