"""In which encoding a file of text is, found by reading it.

A byte order mark says it, and UTF-8 proves itself: other text is valid UTF-8 by chance only. Among the encodings of one
byte a letter nothing proves anything, so words are judged: in the right one they have letters of one alphabet, and no
capital after a small letter. Libraries that guess by the frequency of letters were tried: of files with one short
Cyrillic name, which is what clerks have, charset-normalizer read a quarter.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

CHUNK_BYTES: Final = 1 << 20
HEAD_BYTES: Final = 256
MOST_WORDS: Final = 20_000
LEAST_SHARE_PLAUSIBLE: Final = 0.8
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


class _Seen(NamedTuple):
    """What a file looks like: its first bytes, whether all of it is UTF-8, and words with bytes beyond ASCII."""

    head: bytes
    is_utf8: bool
    words: Counter[bytes]


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
    if seen.is_utf8 or _mostly_utf8(seen.words):
        return UTF8
    return _single_byte(seen.words)


def check_encoding(name: str) -> str:
    """Return the name of an encoding that somebody gave; EncodingError if there is none of that name."""
    try:
        if codecs.lookup(name)._is_text_encoding:  # noqa: SLF001 - only this tells texts from compression
            return name
    except LookupError:
        pass
    raise EncodingError(f"there is no encoding {name!r}: try utf-8, {', '.join(_ALPHABETS)} or utf-16")


def _look(path: Path) -> _Seen:
    head, is_utf8, words = b"", True, Counter[bytes]()
    decoder = codecs.getincrementaldecoder(UTF8)()
    for chunk in _chunks(path):
        head = head or chunk[:HEAD_BYTES]
        if is_utf8:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                is_utf8 = False
        if len(words) < MOST_WORDS and not chunk.isascii():
            words.update(_WORD.findall(chunk))
    if is_utf8:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            is_utf8 = False
    return _Seen(head, is_utf8, words)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _without_mark(head: bytes) -> str:
    """Return UTF-16 without a mark, by the empty half of each letter of the column names; else an empty text."""
    pairs = len(head) // 2
    low, high = head[1 : 2 * pairs : 2].count(0), head[0 : 2 * pairs : 2].count(0)
    enough = max(2, pairs // 2)
    if low >= enough and high <= pairs // 8:
        return "utf-16-le"
    return "utf-16-be" if high >= enough and low <= pairs // 8 else ""


def _mostly_utf8(words: Counter[bytes]) -> bool:
    """Say whether a file is UTF-8 but for some places; the rows that have them are refused by themselves."""
    sound = sum(count for word, count in words.items() if _decoded(word, UTF8) is not None)
    return 2 * sound >= words.total()


def _single_byte(words: Counter[bytes]) -> str:
    total = words.total()
    shares = {
        name: sum(count for word, count in words.items() if _plausible(_decoded(word, name), alphabet)) / total
        for name, alphabet in _ALPHABETS.items()
    }
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < LEAST_SHARE_PLAUSIBLE:
        raise EncodingError(
            "is not UTF-8, and in no other encoding does it read as words: save it as UTF-8, or name its encoding by "
            f"--encoding, such as {', '.join(_ALPHABETS)}"
        )
    return best


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
