"""In which encoding a file of text is, found by reading it.

A byte order mark says it, and UTF-8 proves itself: another line is valid UTF-8 by chance only. Among the encodings of
one byte a letter nothing proves anything, so words are judged: in the right one they have letters of one alphabet, and
no capital after a small letter. Libraries that guess by the frequency of letters were tried: of files with one short
Cyrillic name, which is what clerks have, charset-normalizer read a quarter.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
HEAD_BYTES: Final = 256
MOST_WORDS: Final = 20_000
LEAST_SHARE_PLAUSIBLE: Final = 0.8
"""So many of the words must be words in an encoding."""
MOST_SHARE_DAMAGED: Final = 0.05
"""So many lines may be no text at all: each is refused by itself, and the others are read."""
UTF8: Final = "utf-8"

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""UTF-32 first: its mark begins with that of UTF-16."""
_OTHER_FILES: Final = (
    (b"PK\x03\x04", "a workbook or another archive (.xlsx, .ods, .zip)"),
    (b"\xd0\xcf\x11\xe0", "a workbook (.xls)"),
    (b"\x1f\x8b", "a compressed file (.gz)"),
    (b"%PDF", "a PDF"),
)
_LINE_END: Final = re.compile(rb"[\r\n]+")
_WORD: Final = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")

_RUSSIAN: Final = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
_UKRAINIAN_TOO: Final = frozenset(_RUSSIAN + "ґєії")
_KAZAKH: Final = frozenset(_RUSSIAN + "әғқңөұүһі")
_WESTERN: Final = frozenset("abcdefghijklmnopqrstuvwxyzàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœšž")
_SIGNS: Final = r"[\xa0\u2010-\u2026\u2039\u203a\u2116\u20ac\u2122«»·§°©®]"
"""What stands beside words in a text of any language; between the letters of one, only what joins them."""
_WORDS: Final = re.compile(rf"{_SIGNS}*([^\W\d_]+([\u2013\u2014\u2019\xa0][^\W\d_]+)*{_SIGNS}*)?")
_ALPHABETS: Final = {
    "cp1251": _UKRAINIAN_TOO,
    "kz1048": _KAZAKH,
    "cp1125": _UKRAINIAN_TOO,
    "koi8-u": _UKRAINIAN_TOO,
    "cp1252": _WESTERN,
}
"""The encodings that are tried, the likelier first: it is taken where two explain a file equally well."""
_CAPITAL_INSIDE: Final = re.compile(r"[^\W\d_A-ZЀ-Я][A-ZЀ-ЯҐӘҒҚҢӨҰҮҺÀ-Þ]")


class EncodingError(Exception):
    """A file that is no text, or in an encoding that cannot be told; the message says what to do."""


@dataclass(slots=True)
class _Seen:
    """What a file looks like: its first bytes, and words with bytes beyond ASCII.

    Of its lines it counts all, and of those beyond ASCII the sound ones, which are UTF-8, and the others.
    """

    head: bytes = b""
    lines: int = 0
    sound: int = 0
    unsound: int = 0
    words: Counter[bytes] = field(default_factory=Counter)

    def add(self, chunk: bytes) -> None:
        """Look at some whole lines."""
        self.head = self.head or chunk[:HEAD_BYTES]
        lines = _LINE_END.split(chunk)
        self.lines += len(lines)
        if chunk.isascii():
            return
        for line in lines:
            if line.isascii():
                continue
            if _decoded(line, UTF8) is not None:
                self.sound += 1
                continue
            self.unsound += 1
            if len(self.words) < MOST_WORDS:
                self.words.update(_WORD.findall(line))


def find_encoding(path: Path) -> str:
    """Return the name of a file's encoding, as Python knows it.

    Raises:
        EncodingError: it is no text, or several encodings might be right.
    """
    seen = _look(path)
    for mark, what in _OTHER_FILES:
        if seen.head.startswith(mark):
            raise EncodingError(f"is {what}, not CSV: open it where it was made and save it as CSV (UTF-8)")
    for mark, name in _MARKS:
        if seen.head.startswith(mark):
            return name
    wide = _without_mark(seen.head)
    if wide:
        return wide
    if seen.unsound <= seen.sound:
        return UTF8
    return _single_byte(seen)


def check_encoding(name: str) -> str:
    """Return the name of an encoding that somebody gave; EncodingError if there is none of that name."""
    try:
        if codecs.lookup(name)._is_text_encoding:  # noqa: SLF001 - only this tells texts from compression
            return name
    except LookupError:
        pass
    raise EncodingError(f"there is no encoding {name!r}: try utf-8, {', '.join(_ALPHABETS)} or utf-16")


def _look(path: Path) -> _Seen:
    seen = _Seen()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            seen.add(chunk + file.readline(CHUNK_BYTES))
    return seen


def _without_mark(head: bytes) -> str:
    """Return UTF-16 without a mark, by the empty half of each letter of the column names; else an empty text."""
    pairs = len(head) // 2
    low, high = head[1 : 2 * pairs : 2].count(0), head[0 : 2 * pairs : 2].count(0)
    enough = max(2, pairs // 2)
    if low >= enough and high <= pairs // 8:
        return "utf-16-le"
    return "utf-16-be" if high >= enough and low <= pairs // 8 else ""


def _single_byte(seen: _Seen) -> str:
    total = seen.words.total()
    shares = {
        name: sum(count for word, count in seen.words.items() if _plausible(_decoded(word, name), alphabet)) / total
        for name, alphabet in _ALPHABETS.items()
    }
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= LEAST_SHARE_PLAUSIBLE:
        return best
    if seen.unsound <= seen.lines * MOST_SHARE_DAMAGED:
        return UTF8
    raise EncodingError(
        "is not UTF-8, and in no other encoding does it read as words: save it as UTF-8, or name its encoding by "
        f"--encoding, such as {', '.join(_ALPHABETS)}"
    )


def _decoded(word: bytes, encoding: str) -> str | None:
    try:
        return word.decode(encoding)
    except UnicodeDecodeError:
        return None


def _plausible(word: str | None, alphabet: frozenset[str]) -> bool:
    if word is None or _CAPITAL_INSIDE.search(word) or not _WORDS.fullmatch(word):
        return False
    letters = [letter for letter in word if letter.isalpha()]
    if not all(letter.lower() in alphabet for letter in letters):
        return False
    if alphabet is not _WESTERN:
        return True
    return 2 * sum(not letter.isascii() for letter in letters) <= len(letters)
