"""What was scanned, typed or pasted, without what came along unseen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.base.scanned_text import ascii_digits, scanned_code, visible_text

ODD = st.text(
    st.one_of(st.characters(), st.sampled_from("]CEQ03 \t\r\n\x00\x1d\xa0\xad\u200b\u200d\u202a\ufe0f\uff11\u0663"))
)


@pytest.mark.parametrize(
    ("read", "code"),
    [
        pytest.param("2000000000008", "2000000000008", id="as it is"),
        pytest.param("", "", id="nothing"),
        pytest.param("2000000000008\r", "2000000000008", id="scanner that sends Enter"),
        pytest.param("2000000000008\r\n", "2000000000008", id="scanner that sends a line end"),
        pytest.param("2000000000008\t", "2000000000008", id="scanner that sends Tab"),
        pytest.param("\x022000000000008\x03", "2000000000008", id="framed by STX and ETX"),
        pytest.param("2000000000008\x00\x00", "2000000000008", id="padded by a database of fixed lengths"),
        pytest.param("]E02000000000008", "2000000000008", id="symbology of EAN-13"),
        pytest.param("]C12000000000008\x1d", "2000000000008", id="GS1-128 with its separator"),
        pytest.param("]Q3SPRING-26", "SPRING-26", id="QR code"),
        pytest.param("]d2]Q3SPRING-26", "SPRING-26", id="two devices say it"),
        pytest.param("\n]C0AB12", "AB12", id="symbology after a line end"),
        pytest.param("]C1", "", id="symbology of nothing"),
        pytest.param("A]C1B", "A]C1B", id="the same inside a code is the code's"),
        pytest.param("]!", "]!", id="a bracket is no symbology"),
        pytest.param("20 00\u00a000\u202f00\u2007000\u300008", "2000000000008", id="spaces of every kind"),
        pytest.param("+380\ufe0d501234567", "+380501234567", id="variation selector"),
        pytest.param("+380\u200b501234567", "+380501234567", id="zero-width space"),
        pytest.param("+380\u00ad501234567", "+380501234567", id="soft hyphen"),
        pytest.param("\u202a+380501234567\u202c", "+380501234567", id="pasted from contacts, with its direction"),
        pytest.param("\u2066+380501234567\u2069", "+380501234567", id="isolated direction"),
        pytest.param("\ufeff2000000000008", "2000000000008", id="byte order mark"),
        pytest.param("20\u2060000\u200d0\u200c0000008", "2000000000008", id="joiners"),
        pytest.param("\u3164AB\u2800\u115f1", "AB1", id="fillers and blanks of other scripts"),
        pytest.param("AB\udc001", "AB1", id="half of a pair of UTF-16"),
        pytest.param("\uff12\uff10\uff10\uff10", "2000", id="digits of full width"),
        pytest.param("\uff33\uff30\uff52\uff0d\uff11", "SPr-1", id="letters and signs of full width"),
        pytest.param("spring-26", "spring-26", id="small letters and dashes stay"),
        pytest.param("ЗНИЖКА 5", "ЗНИЖКА5", id="other letters stay"),
    ],
)
def test_code_is_one_word_of_what_is_seen(read: str, code: str) -> None:
    assert scanned_code(read) == code


@pytest.mark.parametrize(
    ("pasted", "text"),
    [
        pytest.param("Olena Koval", "Olena Koval", id="as it is"),
        pytest.param("  Olena Koval ", "Olena Koval", id="spaces around"),
        pytest.param("Padded\x00\x00", "Padded", id="padded with NUL"),
        pytest.param("Olena\u00a0Koval\t", "Olena Koval", id="a space that does not break"),
        pytest.param("Olena\r\nKoval", "Olena  Koval", id="a line end inside a cell"),
        pytest.param("\ufeffOle\u00adna\u200b", "Olena", id="marks without a shape"),
        pytest.param("AB  12", "AB  12", id="spaces inside stay"),
        pytest.param("]E0 shelf", "]E0 shelf", id="a text has no symbology"),
        pytest.param("می\u200cخواهم", "می\u200cخواهم", id="a joiner that Persian writes"),
        pytest.param("❤\ufe0f", "❤\ufe0f", id="a variation that an emoji has"),
    ],
)
def test_text_is_one_line_of_what_is_seen(pasted: str, text: str) -> None:
    assert visible_text(pasted) == text


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        pytest.param("2000-17", "2000-17", id="as it is"),
        pytest.param("٢٠٠٠-١٧", "2000-17", id="Arabic"),
        pytest.param("۲۰۰۰-۱۷", "2000-17", id="Persian"),
        pytest.param("२०००-१७", "2000-17", id="Devanagari"),
        pytest.param("²Ⅷ④½五A", "²Ⅷ④½五A", id="numbers that are no decimal digits stay"),
    ],
)
def test_digits_of_every_script_are_digits(written: str, digits: str) -> None:
    assert ascii_digits(written) == digits


@given(ODD)
def test_once_is_enough(text: str) -> None:
    for normal in (visible_text, scanned_code):
        once = normal(text)
        assert normal(once) == once


@given(ODD)
def test_a_code_holds_nothing_that_a_database_or_a_wire_cannot(text: str) -> None:
    code = scanned_code(text)
    assert "\x00" not in code
    assert code.encode().decode() == code
    assert not any(character.isspace() for character in code)


@given(ODD)
def test_a_text_and_its_code_are_the_same_code(text: str) -> None:
    assert scanned_code(visible_text(text)) == scanned_code(text)
