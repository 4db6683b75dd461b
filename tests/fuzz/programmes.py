"""Programme files: the showcase, which has every field, with some of its words changed."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

SHOWCASE: Final = Path(__file__).parents[2] / "server/promotions/examples/showcase.yaml"
VALUES: Final = (
    *(
        "0",
        "1",
        "-1",
        "0.01",
        "0.000001",
        "100",
        "1000",
        "999999999",
        "1000000000",
        "1000000000000",
        "1e9",
        ".inf",
        ".nan",
    ),
    *(
        "true",
        "no",
        "null",
        "~",
        "''",
        '"\\0"',
        '"\\ud800"',
        '"\\x07"',
        '"\u200b"',
        "[]",
        "{}",
        "[[[[]]]]",
        "&a *a",
        "*b",
    ),
    *(
        "0001-01-01",
        "9999-12-31",
        "2026-02-30",
        "1900-01-01",
        "2026-11-30",
        '"24:00"',
        '"00:00"',
        "!!binary aGk=",
        "!x y",
    ),
    *(
        "day",
        "year",
        "ever",
        "receipt",
        "member",
        "all",
        "count",
        "money",
        "points",
        "lost",
        "spread",
        "line",
        "compound",
    ),
)
BIG: Final = ("1000000000000", "999999999", "1000", "6", "100000000")
_WORD: Final = re.compile(r"(?<=[:\[,] )[\w.\"/-]+")


@cache
def showcase() -> str:
    """Return the file as it is."""
    return SHOWCASE.read_text(encoding="utf-8")


@cache
def _document() -> Any:
    return YAML(typ="safe", pure=True).load(showcase())


def a_text(dice: random.Random) -> str:
    """Return a programme file, most often one that is taken."""
    text = showcase()
    changes = dice.choice((0, 1, 1, 2, 5))
    for _ in range(changes):
        words = list(_WORD.finditer(text))
        word = dice.choice(words)
        if dice.random() < 0.3:  # a number becomes another one, so that more files are taken
            words = [one for one in words if one[0].replace(".", "").isdigit()]
            word = dice.choice(words)
            value = dice.choice((*BIG, "0.01", "1", "50"))
        else:
            value = dice.choice((*VALUES, dice.choice(words)[0]))
        text = text[: word.start()] + value + text[word.end() :]
    if dice.random() < 0.1:
        at = dice.randrange(len(text))
        text = (
            text[:at]
            + dice.choice(("\x00", "\t", "\x85", "\ufeff", "- ", "\n", "  ", "{", "]", "'", "|", "%", "[" * 300))
            + text[at:]
        )
    return text[: dice.randrange(len(text))] if dice.random() < 0.03 else text


def a_document(dice: random.Random) -> dict[str, Any]:
    """Return the same as a document of JSON, with a few values changed."""
    document = _plain(_document())
    for _ in range(dice.choice((0, 1, 2))):
        at: Any = document
        while isinstance(at, dict | list) and at:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = dice.choice(keys)
            if not isinstance(at[key], dict | list) or dice.random() < 0.2:
                at[key] = dice.choice(
                    (0, -1, 1e308, float("inf"), float("nan"), 0.1, True, None, "\x00", "x" * 500, [], {})
                )
                break
            at = at[key]
    assert isinstance(document, dict)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)
