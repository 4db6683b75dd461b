"""Coupon codes: their normal form, and codes of our own. Pure.

Codes of our own have 12 characters of an alphabet of 23: digits and consonants without those that look alike (0 O Q,
1 I L, 2 Z, 5 S, 6 G, 8 B, U V) and without vowels, so that no code reads as a word. The last character checks the
others: one wrong character is always noticed, two that changed places as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from server.base.scanned_text import scanned_code

ALPHABET: Final = "23456789CDFHJKMNPRTVWXY"
CODE_LENGTH: Final = 12
MAX_CODE_LENGTH: Final = 64
_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_BASE: Final = len(ALPHABET)  # a prime, and more than CODE_LENGTH: what the check character's promises rest on
_CODES: Final = _BASE ** (CODE_LENGTH - 1)


def normal_code(text: str) -> str:
    """Return the form in which a code is kept and compared: capital letters, without spaces and what nobody sees.

    Dashes and other characters stand as they are. `upper` may lengthen a code, as of "ß".
    """
    return scanned_code(text.upper())


def former_code(text: str) -> str:
    """Return the form in which releases up to 0.4 kept a code: what they kept is found, and stays what it is.

    It had letters of full width, and what a scanner says before a code.
    """
    return "".join(text.split()).upper()


def code_of(number: int) -> str:
    """Return the code that stands for a number, such as a keyed hash: the same for numbers equal modulo 23^11.

    That are some 10^15 codes. Two of a million random ones are equal once in 2,000 runs, so who stores them must look.
    """
    number %= _CODES
    values = []
    for _ in range(CODE_LENGTH - 1):
        number, value = divmod(number, _BASE)
        values.append(value)
    return "".join(map(ALPHABET.__getitem__, values)) + ALPHABET[_check_value(values)]


def is_own_code(code: str) -> bool:
    """Say whether a code in normal form is one of ours, its check character included."""
    if len(code) != CODE_LENGTH or any(character not in _VALUES for character in code):
        return False
    values = [_VALUES[character] for character in code]
    return values[-1] == _check_value(values[:-1])


def _check_value(values: Sequence[int]) -> int:
    """Return the value that makes the sum of all, weighted by 1 for the last one to 12 for the first, a multiple of 23.

    The weights differ and are no multiples of the prime 23, so neither one change nor one swap keeps the sum.
    """
    weights = range(CODE_LENGTH, 1, -1)
    return -sum(weight * value for weight, value in zip(weights, values, strict=True)) % _BASE
