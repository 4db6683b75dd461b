"""What was scanned, typed or pasted, without what came along unseen: one normaliser for all of it. Pure.

A scanner adds a line end or a tab, frames what it read with control characters, and may say first which kind of code it
saw, as in ``]E04820000000017`` (ISO/IEC 15424). Messengers, web pages and spreadsheets add spaces of many kinds,
characters without a shape, and letters and digits of full width. Nobody sees any of that, so nobody can mend it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_SYMBOLOGY: Final = re.compile(r"(?:\][A-Za-z][0-9A-Za-z])+")
"""How scanners say which kind of code they read; twice, where two devices say it."""

_SPACES: Final = re.compile(r"[\s\u2800]")
_CONTROLS: Final = r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff"
"""What moves no cursor, halves of UTF-16 pairs included; line ends and tabs are spaces."""
_MARKS: Final = r"\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"
"""Without a shape, and without a meaning in a line of text: soft hyphens, marks of direction, byte order marks."""
_JOINERS: Final = (
    r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u3164\ufe00-\ufe0f\uffa0"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Without a shape of their own, but with a meaning in names and emoji: joiners, variation selectors, fillers."""
_UNSEEN_IN_TEXTS: Final = re.compile(f"[{_CONTROLS}{_MARKS}]")
_UNSEEN_IN_CODES: Final = re.compile(f"[{_CONTROLS}{_MARKS}{_JOINERS}]")

_FULL_WIDTH: Final[Mapping[int, str]] = {0xFEE0 + code: chr(code) for code in range(ord("!"), ord("~") + 1)}


def visible_text(text: str) -> str:
    """Return a text of one line as people see it: a name, a note, a cell of a table.

    Every kind of space, tab and line end becomes a space, none is left at the ends, and what has no shape is dropped,
    but for what joins and varies the letters of some scripts. ``visible_text`` of the result is the result.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    return _SPACES.sub(" ", _UNSEEN_IN_TEXTS.sub("", text)).strip()


def ascii_digits(text: str) -> str:
    """Return a text with the decimal digits of every script, such as those of Arabic or Devanagari, as 0 to 9."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(character, character)) for character in text)


def scanned_code(text: str) -> str:
    """Return a code as one word: the number of a card, a phone, a coupon's code, a token, an id.

    Beyond `visible_text`, spaces inside are dropped, and all that has no shape, and the scanner's prefix; letters,
    digits and signs of full width become those of ASCII. Capital and small letters, and dashes, stay as they are.
    ``scanned_code`` of the result is the result.
    """
    if not text.isascii():
        text = text.translate(_FULL_WIDTH)
    elif text.isprintable() and " " not in text and not text.startswith("]"):
        return text
    word = _SPACES.sub("", _UNSEEN_IN_CODES.sub("", text))
    prefix = _SYMBOLOGY.match(word)
    return word[prefix.end() :] if prefix else word
