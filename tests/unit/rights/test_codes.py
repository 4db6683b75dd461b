"""Coupon codes: one normal form, and codes of our own that notice mistakes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rights.codes import ALPHABET, CODE_LENGTH, code_of, is_own_code, normal_code

NUMBERS = st.integers(0, 2**256 - 1)
PLACES = st.integers(0, CODE_LENGTH - 1)
LOOK_ALIKE = ("0OQD", "1IL", "2Z", "5S", "6G", "8B", "UV")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        pytest.param("SPRING10", "SPRING10", id="as it is"),
        pytest.param("spring10", "SPRING10", id="small letters"),
        pytest.param("  spring 10 ", "SPRING10", id="spaces around and inside"),
        pytest.param("cdfh jkmn\t2345\n", "CDFHJKMN2345", id="read from paper in groups"),
        pytest.param("spring-10", "SPRING-10", id="a dash is part of the code"),
        pytest.param("знижка 5", "ЗНИЖКА5", id="Cyrillic"),
        pytest.param("]Q3spring10\r\n", "SPRING10", id="from a scanner that sends the kind and a line end"),
        pytest.param("\ufeffspring\u200b10\u00ad", "SPRING10", id="pasted, with what nobody sees"),
        pytest.param("ｓｐｒｉｎｇ１０", "SPRING10", id="full width"),
        pytest.param("]ß1X", "1X", id="a prefix that capital letters make"),
        pytest.param("   ", "", id="nothing"),
    ],
)
def test_normal_form(typed: str, kept: str) -> None:
    assert normal_code(typed) == kept


@given(st.text(max_size=80))
def test_normal_form_of_a_normal_form_is_itself(text: str) -> None:
    once = normal_code(text)
    assert normal_code(once) == once


def test_no_two_characters_look_alike() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) == 23
    for group in LOOK_ALIKE:
        assert len(set(group) & set(ALPHABET)) <= 1, group
    assert not set("AEIOU") & set(ALPHABET)


@given(NUMBERS)
def test_code_is_whole_and_in_normal_form(number: int) -> None:
    code = code_of(number)
    assert len(code) == CODE_LENGTH
    assert is_own_code(code)
    assert normal_code(code) == code


@given(st.integers(0, 23**11 - 1), st.integers(0, 23**11 - 1))
def test_different_numbers_have_different_codes(one: int, other: int) -> None:
    assert (code_of(one) == code_of(other)) == (one == other)


@given(NUMBERS, PLACES, st.sampled_from(ALPHABET))
def test_one_wrong_character_is_noticed(number: int, place: int, character: str) -> None:
    code = code_of(number)
    wrong = code[:place] + character + code[place + 1 :]
    assert is_own_code(wrong) == (wrong == code)


@given(NUMBERS, PLACES, PLACES)
def test_two_swapped_characters_are_noticed(number: int, one: int, other: int) -> None:
    characters = list(code_of(number))
    characters[one], characters[other] = characters[other], characters[one]
    swapped = "".join(characters)
    assert is_own_code(swapped) == (swapped == code_of(number))


@pytest.mark.parametrize("text", ["", "CDFH", "CDFHJKMN234", "CDFHJKMN2345X", "0DFHJKMN2345", "cdfhjkmn2345"])
def test_what_is_no_code_of_ours(text: str) -> None:
    assert not is_own_code(text)
