"""Households as members."""

from __future__ import annotations

import phonenumbers
import pytest
import stdnum.ean
import stdnum.luhn

from benchmarks.replay.people import CardShape, card_number, person, shows_phone

HOUSEHOLDS = range(1, 2501)
DEFAULT = CardShape()


def test_ids_cards_and_phones_belong_to_one_household_each() -> None:
    people = [person(household, DEFAULT) for household in HOUSEHOLDS]
    assert len({who.member_id for who in people}) == len(people)
    assert len({who.card_number for who in people}) == len(people)
    phones = [who.phone for who in people if who.phone]
    assert len(set(phones)) == len(phones) > len(people) // 3


def test_the_same_household_is_the_same_person_in_every_run() -> None:
    assert person(900, DEFAULT) == person(900, DEFAULT)
    assert str(person(900, DEFAULT).member_id) == "4d08541a-9166-5603-b4a0-18a56f67e7b9"


def test_every_card_has_its_check_digit() -> None:
    for household in HOUSEHOLDS:
        assert stdnum.ean.is_valid(card_number(household, DEFAULT))
        assert stdnum.luhn.is_valid(card_number(household, CardShape("luhn", "9804", 16)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param(CardShape(), "2000000009001", id="EAN-13, prefix 2"),
        pytest.param(CardShape("luhn", "9804", 16), "9804000000009000", id="16 digits, Luhn"),
    ],
)
def test_card_number(shape: CardShape, expected: str) -> None:
    assert card_number(900, shape) == expected


def test_a_household_that_does_not_fit_a_card_is_refused() -> None:
    with pytest.raises(ValueError, match="no room for 123456"):
        card_number(123456, CardShape("luhn", "9804", 8))


@pytest.mark.parametrize("text", ["ean13", "crc32:1", "ean13:x", "luhn:9804"])
def test_a_scheme_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        CardShape.parse(text)


def test_a_scheme_reads_as_settings_write_it() -> None:
    assert CardShape.parse("ean13:2") == CardShape()
    assert CardShape.parse("luhn16:9804") == CardShape("luhn", "9804", 16)


def test_phones_exist_and_are_set_aside_for_fiction() -> None:
    for household in HOUSEHOLDS:
        if phone := person(household, DEFAULT).phone:
            assert phonenumbers.is_valid_number(phonenumbers.parse(phone))
            assert phone[5:10] == "55501"


def test_only_those_with_a_phone_say_its_number() -> None:
    with_phone, without = person(900, DEFAULT), person(901, DEFAULT)
    assert not without.phone
    said = [shows_phone(basket, with_phone) for basket in range(1000)]
    assert 200 < sum(said) < 400
    assert not any(shows_phone(basket, without) for basket in range(1000))
