"""The encoding of a file, found by reading it."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.commands.csv_rows.encoding import EncodingError, check_encoding, find_encoding

UKRAINIAN = ["Олена Коваль", "Їжакевич Ґанна", "Іван", "ЖАННА", "Марія-Тереза", "Єва", "І", "ТОВ «Квітка»", "№ 5, 2 %"]
RUSSIAN = ["Сергей Щербаков", "Ёлкина", "ИТОГО", "Сыр Gouda “мир”"]
KAZAKH = ["Әлия Қасымова", "Нұрсұлтан", "Ұлан"]
WESTERN = ["José Müller", "Größe", "Élodie"]
MARKED = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "names.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        *((name, [*UKRAINIAN, *RUSSIAN, *KAZAKH, *WESTERN, "Anna", "日本"]) for name in MARKED),
        ("cp1251", [*UKRAINIAN, *RUSSIAN]),
        ("kz1048", KAZAKH),
        ("cp1125", [*RUSSIAN[:3], "Олена Коваль", "Київ", "Їжакевич Ґанна"]),
        ("koi8-u", [*RUSSIAN[:2], "Олена Коваль", "Київ", "Їжакевич Ґанна"]),
        ("cp1252", WESTERN),
    ],
)
def test_one_name_tells_the_encoding(tmp_path: Path, encoding: str, names: list[str]) -> None:
    wrong = []
    for name in names:
        text = f"phone;name;birthday\n+380501110004;{name};1990-05-17\n"
        path = write(tmp_path, text.encode(encoding))
        if path.read_bytes().decode(found := find_encoding(path)) != text:
            wrong.append((name, found))
    assert not wrong


def test_one_damaged_place_does_not_make_a_file_of_another_encoding(tmp_path: Path) -> None:
    text = "name\nОлена\nІван\n".encode() + "Марія\n".encode("cp1251")
    assert find_encoding(write(tmp_path, text)) == "utf-8"


def test_letter_on_the_edge_of_two_chunks_is_whole(tmp_path: Path) -> None:
    text = b"x" * ((1 << 20) - 1) + "Ж".encode()
    assert find_encoding(write(tmp_path, text)) == "utf-8"


def test_bytes_without_letters_are_no_utf_16(tmp_path: Path) -> None:
    """A column that another program filled with NUL."""
    path = write(tmp_path, b"phone,name\n1,Anna\x00\x00\x00\x00\n2,Bella\x00\x00\x00\n")
    assert find_encoding(path) == "utf-8"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("name\nŁukasz\nŻaneta\n".encode("cp1250"), "--encoding", id="an encoding that is not tried"),
        pytest.param(b"name\n" + bytes(range(128, 256)), "save it as UTF-8", id="no text at all"),
        pytest.param(b"PK\x03\x04....", "a workbook", id="workbook"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1", "a workbook (.xls)", id="old workbook"),
        pytest.param(b"\x1f\x8b\x08", "compressed", id="compressed"),
    ],
)
def test_file_that_cannot_be_told_says_what_to_do(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(EncodingError) as error:
        find_encoding(write(tmp_path, content))
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["windows-1251", "UTF-8", "latin-1"])
def test_encodings_may_be_named(name: str) -> None:
    assert check_encoding(name) == name


@pytest.mark.parametrize("name", ["ansi-ua", "zip", "base64"])
def test_encoding_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(EncodingError, match="cp1251"):
        check_encoding(name)
