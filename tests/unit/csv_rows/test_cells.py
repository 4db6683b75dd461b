"""What spreadsheets and other programs do to values: undone, or named."""

from __future__ import annotations

import pytest
import stdnum.ean
from hypothesis import given
from hypothesis import strategies as st

from server.commands.csv_rows.cells import (
    CHANGED,
    DAY_FOR_CODE,
    DAY_NUMBER,
    FORMULA,
    LOST_LETTER,
    ZEROS_CUT,
    Cell,
    Codes,
    Kind,
    read_cell,
)

CODES = [Kind.CODE, Kind.ARTICLE]
NUMBERS = [*CODES, Kind.DIGITS]
ALL = list(Kind)


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        pytest.param(" Anna\xa0 Maria\u200b ", ALL, "Anna  Maria", id="unseen characters"),
        pytest.param("Padded\x00\x00", ALL, "Padded", id="NUL of a DBF file"),
        pytest.param('="0012"', ALL, "0012", id="formula that keeps zeros"),
        pytest.param('=""', ALL, "", id="formula of nothing"),
        pytest.param("'0012", NUMBERS, "0012", id="apostrophe that keeps zeros"),
        pytest.param("'90s bread", [Kind.TEXT], "'90s bread", id="apostrophe of a name"),
        pytest.param("2200 0000 0001 9", [Kind.DIGITS], "2200 0000 0001 9", id="blanks in a card"),
        pytest.param("+380501234567", NUMBERS, "+380501234567", id="phone"),
        pytest.param("4820000000017", NUMBERS, "4820000000017", id="EAN"),
        pytest.param("4 820000\xa0000017", [Kind.ARTICLE], "4820000000017", id="EAN as it is printed"),
        pytest.param("4 820000 000018", [Kind.ARTICLE], "4 820000 000018", id="no EAN: its check digit is wrong"),
        pytest.param("K7T2-99A1", CODES, "K7T2-99A1", id="code"),
        pytest.param("12E45", CODES, "12E45", id="code with an E"),
        pytest.param("E+12", CODES, "E+12", id="no digits before the E"),
        pytest.param("1.5L", CODES, "1.5L", id="decimals with a unit"),
        pytest.param("4.82E+12", [Kind.TEXT, Kind.FIGURE], "4.82E+12", id="name that looks like a number"),
        pytest.param("12,50", ALL, "12,50", id="decimal comma"),
        pytest.param("2026-05-17", [Kind.DAY, Kind.TEXT], "2026-05-17", id="day"),
        pytest.param("2026-05-17 00:00:00", [Kind.DAY], "2026-05-17", id="day with its midnight"),
        pytest.param("2024-05-01T10:00:00+03:00", [Kind.DAY], "2024-05-01T10:00:00+03:00", id="time"),
        pytest.param("#1 Milk", [Kind.TEXT], "#1 Milk", id="name with a number sign"),
        pytest.param("What's up?!", [Kind.TEXT], "What's up?!", id="question"),
        pytest.param("Really??", [Kind.TEXT], "Really??", id="doubt"),
        pytest.param("Діана Ґудзь", ALL, "Діана Ґудзь", id="letters that could be UTF-8 each"),
        pytest.param("Ті", ALL, "Ті", id="two letters that could be UTF-8"),
        pytest.param("None such", CODES, "None such", id="word that begins like an empty value"),
    ],
)
def test_value_is_read(text: str, kinds: list[Kind], value: str) -> None:
    assert {kind: read_cell(text, kind) for kind in kinds} == {kind: Cell(value) for kind in kinds}


@pytest.mark.parametrize(
    ("text", "kinds", "fault"),
    [
        pytest.param("4.82E+12", NUMBERS, CHANGED, id="exponent"),
        pytest.param("4,82E+12", NUMBERS, CHANGED, id="exponent with a comma"),
        pytest.param("4.82e+12", NUMBERS, CHANGED, id="exponent of a program"),
        pytest.param("4.82E12", NUMBERS, CHANGED, id="exponent without a sign"),
        pytest.param("5E-03", NUMBERS, CHANGED, id="exponent below zero"),
        pytest.param(" 3.80501E+11 ", NUMBERS, CHANGED, id="phone"),
        pytest.param("4820000000031.0", NUMBERS, CHANGED, id="decimals of nought"),
        pytest.param("+380501110205.0", NUMBERS, CHANGED, id="phone with decimals"),
        pytest.param("4820000000031,00", NUMBERS, CHANGED, id="with a comma"),
        pytest.param("4,820,000,000,031", NUMBERS, CHANGED, id="thousands"),
        pytest.param("4.820.000.000.031", NUMBERS, CHANGED, id="thousands with points"),
        pytest.param("4\xa0820\xa0000\xa0000\xa0032", [Kind.ARTICLE], CHANGED, id="thousands with blanks"),
        pytest.param('="4.82E+12"', NUMBERS, CHANGED, id="damaged before it was kept as text"),
        pytest.param("12.05.2026", CODES, DAY_FOR_CODE, id="code that became a day"),
        pytest.param("5/12/2026", CODES, DAY_FOR_CODE, id="American day"),
        pytest.param("32874", [Kind.DAY], DAY_NUMBER, id="day as a number"),
        pytest.param("32874.0", [Kind.DAY], DAY_NUMBER, id="day as a decimal number"),
        pytest.param("=A1&B1", ALL, FORMULA, id="formula"),
        pytest.param("Кв\ufffdтка", ALL, LOST_LETTER, id="lost letter"),
        pytest.param("РћР»РµРЅР°", ALL, LOST_LETTER, id="UTF-8 read as cp1251"),
        pytest.param("ÐžÐ»ÐµÐ½Ð°", ALL, LOST_LETTER, id="UTF-8 read as cp1252"),
        pytest.param("????? ??????", [Kind.TEXT], LOST_LETTER, id="letters saved as question marks"),
        pytest.param("?лия Касымова", [Kind.TEXT], LOST_LETTER, id="Kazakh letter in a Russian encoding"),
    ],
)
def test_damage_is_named_where_it_matters(text: str, kinds: list[Kind], fault: str) -> None:
    assert {kind: read_cell(text, kind).fault for kind in kinds} == dict.fromkeys(kinds, fault)


@pytest.mark.parametrize(
    "text", ["#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#Н/Д", "#ССЫЛКА!", "#ИМЯ?", "########", "#"]
)
def test_errors_of_spreadsheets_are_no_values(text: str) -> None:
    assert [kind for kind in Kind if "spreadsheet's error" not in read_cell(text, kind).fault] == []


@pytest.mark.parametrize("text", ["TRUE", "FALSE", "ЛОЖЬ", "ІСТИНА"])
def test_truths_are_no_codes(text: str) -> None:
    assert ["format the column as text" in read_cell(text, kind).fault for kind in CODES] == [True, True]
    assert read_cell(text, Kind.TEXT) == Cell(text)


@pytest.mark.parametrize("text", ["NULL", "null", "NaN", "None", "\\N"])
def test_words_for_nothing_are_no_codes(text: str) -> None:
    assert ["leave it empty" in read_cell(text, kind).fault for kind in CODES] == [True, True]
    assert bool(read_cell(text, Kind.TEXT).fault) == (text in {"NULL", "NaN", "\\N"})


def test_verbatim_takes_values_as_they_stand() -> None:
    assert read_cell("4.82E+12", Kind.ARTICLE, verbatim=True) == Cell("4.82E+12")
    assert read_cell("#N/A", Kind.ARTICLE, verbatim=True).fault


@given(st.integers(10**9, 10**20), st.sampled_from(NUMBERS))
def test_spreadsheet_forms_of_a_long_number_are_never_taken_for_it(number: int, kind: Kind) -> None:
    forms = [f"{number:.{digits}E}" for digits in range(6)] + [f"{number}.0", f"{number:,}"]
    forms += [form.replace(".", ",") for form in forms[:7]]
    assert [form for form in forms if not read_cell(form, kind).fault] == []
    assert read_cell(str(number), kind) == Cell(str(number))


# --- what the codes of a column say about each other ----------------------------------------------------------------


def ean(number: int) -> str:
    """Return an EAN of 13 digits."""
    digits = f"{number:012d}"
    return digits + stdnum.ean.calc_check_digit(digits)


def faults(values: list[str], kind: Kind = Kind.ARTICLE) -> list[str]:
    """Return the faults of a column's values."""
    codes = Codes()
    for value in values:
        codes.add(value)
    return [codes.fault(value, kind) for value in values]


@given(st.lists(st.integers(0, 10**12 - 1), min_size=1, max_size=20, unique=True))
def test_ean_without_its_zeros_is_told_from_whole_ones(numbers: list[int]) -> None:
    sound = [*map(ean, numbers), "101", "20001"]
    assert faults([*sound, ean(48_200_000).lstrip("0")]) == [*[""] * len(sound), ZEROS_CUT]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param([ean(1)[1:], ean(2)[1:]], Kind.ARTICLE, id="articles that all have 12 digits"),
        pytest.param([ean(482), "123456789"], Kind.ARTICLE, id="check digit that does not fit"),
        pytest.param([ean(482), "004820000"], Kind.ARTICLE, id="zeros that are still there"),
        pytest.param([ean(482), "96385074"], Kind.ARTICLE, id="EAN of 8 digits"),
        pytest.param([ean(482), ean(48)[2:]], Kind.CODE, id="codes that are no articles"),
        pytest.param(["1234567890123450"], Kind.CODE, id="one nought may be chance"),
        pytest.param(["1234567890123450", "1234567890123460", "1234567890123471"], Kind.CODE, id="another digit"),
    ],
)
def test_codes_that_are_sound(values: list[str], kind: Kind) -> None:
    assert faults(values, kind) == [""] * len(values)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["123456789012345000"], id="18 digits, three noughts"),
        pytest.param(["1234567890123450", "1234567890123460", "1234567890123470"], id="16 digits, all with a nought"),
    ],
)
def test_digits_beyond_the_fifteenth_are_never_all_noughts(values: list[str]) -> None:
    assert faults(values, Kind.CODE) == [CHANGED] * len(values)
