"""Text files that people write: in UTF-8, with or without its mark."""

from __future__ import annotations

from pathlib import Path


class NotTextError(ValueError):
    """A file is in another encoding; the text says where, and what to do."""


def read_utf8(path: Path) -> str:
    """Return the text of a file.

    Raises:
        NotTextError: It is not in UTF-8.
        OSError: It cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise NotTextError(f"{path}:{line}:1: not UTF-8 text (save the file as UTF-8)") from None
