"""Text as PostgreSQL can store it."""

from __future__ import annotations


def stored(text: str) -> str:
    """Return text without the NUL character, which PostgreSQL refuses, and which a register may well send."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
