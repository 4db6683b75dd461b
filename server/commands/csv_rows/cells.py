"""What spreadsheets and other programs do to values of a file: undone where that is sure, else named. Pure.

A spreadsheet takes digits for a number unless its column is formatted as text: it writes 4820000000017 as 4.82E+12 or
4820000000017.0, keeps 15 digits, and cuts zeros in front. Nothing brings back what is lost, so such a value is refused
where a code belongs. Whoever really has codes of such a look reads them as they stand (``Reading.verbatim``).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

import stdnum.ean

from server.base.scanned_text import visible_text

CHANGED: Final = "looks like a number that a spreadsheet has changed: format the column as text and enter it anew"
ZEROS_CUT: Final = "looks like an EAN whose zeros in front a spreadsheet has cut: write all 13 digits, as text"
DAY_NUMBER: Final = "is a day as a spreadsheet counts it: format the column as YYYY-MM-DD, such as 2026-05-17"
DAY_FOR_CODE: Final = "looks like a code that a spreadsheet has taken for a day: format the column as text"
FORMULA: Final = "is a spreadsheet's formula: write its value instead"
LOST_LETTER: Final = "has letters that were lost in another encoding: write it anew, and save the file as UTF-8"
_TRUTH: Final = "is a spreadsheet's word for true or false: format the column as text and enter it anew"
_EMPTY_ELSEWHERE: Final = 'is what another program writes for "nothing": leave it empty, or write the value'

EXACT_DIGITS: Final = 15
"""A spreadsheet keeps so many digits of a number and writes noughts for the others."""
_LEAST_NOUGHTS: Final = 3
"""So many noughts in the places beyond, and nothing else, are no chance: it would be one in a thousand."""
_EAN13: Final = 13
_SHORTEST_CUT: Final = 9


class Kind(Enum):
    """What a column holds, as far as it matters to what a spreadsheet may have done to it."""

    TEXT = "text"
    """Words: a name, a brand."""
    CODE = "code"
    """What programs compare: a coupon, a promotion, a store, a token."""
    ARTICLE = "article"
    """A code that may be an EAN."""
    DIGITS = "digits"
    """A number that nobody counts with: a card, a phone. Blanks in it mean nothing."""
    DAY = "day"
    """A day, YYYY-MM-DD."""
    FIGURE = "figure"
    """A number to count with. Who reads it says what is wrong with it."""


_ERRORS: Final = re.compile(r"#+|#\w[\w/]*[!?]|#\w/\w", re.IGNORECASE)
_NOTHINGS: Final = frozenset({"NULL", "\\N", "NAN", "NONE"})
_TRUTHS: Final = frozenset({"TRUE", "FALSE", "ИСТИНА", "ЛОЖЬ", "ІСТИНА", "ХИБНІСТЬ"})
_NOTHINGS_IN_TEXTS: Final = frozenset({"NULL", "\\N", "NaN"})
_MISTAKEN_FOR_UTF8: Final = ("cp1251", "cp1252")
_LEAST_LETTERS: Final = 2
_QUESTIONS: Final = re.compile(r"\?[^\W\d]|(?:^|\s)\?+(?:\s|$)")
"""Letters that an encoding did not have, and that were saved as question marks."""
_KEPT_AS_TEXT: Final = re.compile(r'="(?P<value>[^"]*)"|\'(?P<rest>[+\d].*)')
"""How a value is kept from being taken for a number: a formula, or an apostrophe before it."""
_CHANGED: Final = re.compile(
    r"[+-]?\d+(?:[.,]\d+)?[eE][+-]\d+"  # 4.82E+12
    r"|[+-]?\d+[.,]\d+[eE]\d+"  # 4.82E12
    r"|[+-]?\d+[.,]0+"  # 4820000000031.0
    r"|\d{1,3}(?:[,.'\u2019]\d{3}){2,}(?:[.,]\d+)?"  # 4,820,000,000,031
)
_GROUPED: Final = re.compile(r"\d{1,3}(?: \d{3}){2,}(?:[.,]\d+)?")
"""4 820 000 000 031; in a card or a phone such blanks mean nothing."""
_DAY: Final = re.compile(
    r"(?:0?[1-9]|[12]\d|3[01])[./-](?:0?[1-9]|1[0-2])[./-](?:19|20)\d\d|(?:19|20)\d\d-(?:0[1-9]|1[0-2])-[0-3]\d"
)
_DAY_NUMBER: Final = re.compile(r"\d{5}(?:[.,]0+)?")
_MIDNIGHT: Final = re.compile(r"(?P<day>\d{4}-\d{2}-\d{2})[T ]0?0:00(?::00(?:\.0+)?)?")


class Cell(NamedTuple):
    """A value as it is meant, and what is wrong with it, if anything."""

    value: str
    fault: str = ""


def read_cell(text: str, kind: Kind, *, verbatim: bool = False) -> Cell:
    """Return a value without what came along unseen, and what a spreadsheet has done to it.

    ``verbatim`` takes codes, numbers and days as they stand.
    """
    value = visible_text(text)
    if not value or (value.isascii() and value.isdigit() and kind is not Kind.DAY):
        return Cell(value)
    if "\ufffd" in value or _in_wrong_letters(text):
        return Cell(value, LOST_LETTER)
    kept = _KEPT_AS_TEXT.fullmatch(value)
    if kept and (kept["value"] is not None or kind is not Kind.TEXT):
        value = visible_text(kept["value"] or kept["rest"] or "")
    elif value[0] == "#" and _ERRORS.fullmatch(value):
        return Cell(value, f"is a spreadsheet's error ({value[:10]}): write the value instead")
    elif value[0] == "=":
        return Cell(value, FORMULA)
    if verbatim or not value:
        return Cell(value)
    return _DAMAGE_OF[kind](value)


def _in_wrong_letters(text: str) -> bool:
    """Say whether UTF-8 was read in an encoding of one byte a letter, and written so: "РћР»РµРЅР°" for "Олена"."""
    if text.isascii():
        return False
    for encoding in _MISTAKEN_FOR_UTF8:
        try:
            meant = text.encode(encoding).decode()
        except UnicodeError:
            continue
        if sum(letter.isalpha() and not letter.isascii() for letter in meant) >= _LEAST_LETTERS:
            return True
    return False


def _words(value: str) -> Cell:
    if value in _NOTHINGS_IN_TEXTS:
        return Cell(value, _EMPTY_ELSEWHERE)
    return Cell(value, LOST_LETTER if _QUESTIONS.search(value) else "")


def _figure(value: str) -> Cell:
    return Cell(value)


def _code(value: str) -> Cell:
    if value.upper() in _NOTHINGS:
        return Cell(value, _EMPTY_ELSEWHERE)
    if value in _TRUTHS:
        return Cell(value, _TRUTH)
    if not value[-1].isdigit():
        return Cell(value)
    if _CHANGED.fullmatch(value):
        return Cell(value, CHANGED)
    return Cell(value, DAY_FOR_CODE if _DAY.fullmatch(value) else "")


def _article(value: str) -> Cell:
    if " " in value and stdnum.ean.is_valid(number := value.replace(" ", "")):
        return Cell(number)
    return Cell(value, CHANGED) if _GROUPED.fullmatch(value) else _code(value)


def _digits(value: str) -> Cell:
    return Cell(value, CHANGED if _CHANGED.fullmatch(value) else "")


def _day(value: str) -> Cell:
    if _DAY_NUMBER.fullmatch(value):
        return Cell(value, DAY_NUMBER)
    midnight = _MIDNIGHT.fullmatch(value)
    return Cell(midnight["day"] if midnight else value)


_DAMAGE_OF: Final = {
    Kind.TEXT: _words,
    Kind.CODE: _code,
    Kind.ARTICLE: _article,
    Kind.DIGITS: _digits,
    Kind.DAY: _day,
    Kind.FIGURE: _figure,
}


class Codes:
    """What the codes of a whole column say about each other; they are told one by one."""

    def __init__(self) -> None:
        """Start with none."""
        self._whole_eans = self._shorter = 0
        self._noughts = self._other_digits = 0

    def add(self, value: str) -> None:
        """Look at one more."""
        if not (value.isascii() and value.isdigit()):
            return
        self._whole_eans += len(value) == _EAN13 and stdnum.ean.is_valid(value)
        self._shorter += _SHORTEST_CUT <= len(value) < _EAN13
        beyond = value[EXACT_DIGITS:]
        self._noughts += beyond.count("0")
        self._other_digits += len(beyond) - beyond.count("0")

    def fault(self, value: str, kind: Kind) -> str:
        """Return what is wrong with one of the values, such as an EAN of 11 digits among whole ones."""
        if not (value.isascii() and value.isdigit()):
            return ""
        if len(value) > EXACT_DIGITS and not self._other_digits and self._noughts >= _LEAST_NOUGHTS:
            return CHANGED
        if kind is not Kind.ARTICLE or not _SHORTEST_CUT <= len(value) < _EAN13 or value[0] == "0":
            return ""
        is_cut = self._whole_eans >= self._shorter and stdnum.ean.is_valid(value.zfill(_EAN13))
        return ZEROS_CUT if is_cut else ""
