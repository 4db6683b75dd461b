"""Files that cannot be what a command wants, decimal commas, and databases that are not there: said in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.commands.main import app

PROGRAMME = """\
programme: corner-shop
name: Кав'ярня
effective_from: 2026-01-01
currency: UAH
point: {unit: bonus, precision: 2, pays: 1.00}
earning: {base_percent: 1.5}
"""
RECEIPT = """\
receipt:
  event_at: 2026-03-12T10:15:00Z
  currency_code: UAH
  lines:
    - {line_number: 1, sku: торт, quantity_milli: 1000, list_amount_minor: 12000}
"""
NOT_UTF8 = "not UTF-8 text (save the file as UTF-8)"
SECRET = "x" * 40


def run(*words: str, **environment: str) -> tuple[int, str]:
    """Run a command without any setting but these; return its exit code and what it says, in one line."""
    bare: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TALLYPOINT_")}
    done = CliRunner().invoke(app, words, env={**bare, **environment})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A programme and a receipt as they should be."""
    made = {"programme": tmp_path / "programme.yaml", "receipt": tmp_path / "receipt.yaml"}
    made["programme"].write_text(PROGRAMME)
    made["receipt"].write_text(RECEIPT)
    return made


@pytest.mark.parametrize("encoding", ["cp1251", "utf-16", "koi8-u"])
@pytest.mark.parametrize("wrong", ["programme", "receipt"])
def test_another_encoding_is_named_with_file_and_cure(files: dict[str, Path], encoding: str, wrong: str) -> None:
    file = files[wrong]
    file.write_bytes(file.read_text().encode(encoding, errors="replace"))
    commands = [["rules", "preview", str(files["programme"]), "--receipt", str(files["receipt"])]]
    if wrong == "programme":
        path = str(file)
        commands += [["rules", "check", path], ["rules", "diff", path, path], ["rules", "backtest", path]]
        commands += [["rules", "publish", path, "--yes"]]
    for words in commands:
        code, said = run(*words)
        assert code, words
        assert f"{file}:" in said, words
        assert NOT_UTF8 in said, words


def test_the_mark_of_utf8_is_no_fault(files: dict[str, Path], tmp_path: Path) -> None:
    for file in files.values():
        file.write_bytes(file.read_text().encode("utf-8-sig"))
    assert run("rules", "check", str(files["programme"]))[0] == 0
    assert run("rules", "preview", str(files["programme"]), "--receipt", str(files["receipt"]))[0] == 0
    settings = tmp_path / "settings.toml"
    settings.write_bytes('log_level = "error"\n'.encode("utf-8-sig"))
    assert run("settings", TALLYPOINT_SETTINGS_FILE=str(settings))[0] == 0


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param('log_level = "info" # журнал'.encode("cp1251"), NOT_UTF8, id="another encoding"),
        pytest.param(b"log_level: info", "this is not TOML", id="YAML"),
        pytest.param(bytes(range(256)), NOT_UTF8, id="binary"),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    file = tmp_path / "tallypoint.toml"
    file.write_bytes(content)
    code, said = run("settings", TALLYPOINT_SETTINGS_FILE=str(file))
    assert (code, str(file) in said, fault in said) == (2, True, True), said


@pytest.mark.parametrize("content", [b"", bytes(range(256)), b"programme: x", b"a: [U\0H]", b"- a\n- b\n"])
def test_a_file_that_is_no_programme_is_not_compared(files: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other.yaml"
    other.write_bytes(content)
    is_readable = content == b"programme: x"
    for pair in ((other, files["programme"]), (files["programme"], other)):
        code, said = run("rules", "diff", *map(str, pair))
        assert (code == 0) is is_readable, said
        assert is_readable or str(other) in said


@pytest.mark.parametrize(
    ("where", "text", "fault"),
    [
        pytest.param("base_percent: 1.5", "base_percent: 1,5", "numbers have a point: write 1.5", id="in braces"),
        pytest.param("base_percent: 1.5", "base_percent: '1,5'", "has a decimal comma", id="quoted"),
        pytest.param("pays: 1.00", "pays: '1 000,00'", "has a decimal comma", id="with blanks between thousands"),
    ],
)
def test_a_decimal_comma_in_a_programme(files: dict[str, Path], where: str, text: str, fault: str) -> None:
    files["programme"].write_text(PROGRAMME.replace(where, text))
    code, said = run("rules", "check", str(files["programme"]))
    assert (code, fault in said) == (1, True), said


@pytest.mark.parametrize("amount", ["'120,00'", "120.5", "120,00"])
def test_amounts_of_a_receipt_file_are_whole_numbers(files: dict[str, Path], amount: str) -> None:
    files["receipt"].write_text(RECEIPT.replace("12000", amount))
    code, said = run("rules", "preview", str(files["programme"]), "--receipt", str(files["receipt"]))
    assert (code, "120.00 is 12000 minor units" in said) == (2, True), said


@pytest.mark.parametrize(
    ("dsn", "fault"),
    [
        pytest.param("postgresql://u:p@127.0.0.1:1/x", "and whether it runs", id="nobody listens"),
        pytest.param("postgresql://u:p@no-such-host.invalid/x", "there is no such host", id="no such host"),
        pytest.param("postgresql://u@/x?host=/nowhere", "there is no socket", id="no socket"),
        pytest.param("postgresql://u:p@127.0.0.1:5x/x", "must be postgresql://", id="no port"),
    ],
)
@pytest.mark.parametrize("words", [["ledger", "heads"], ["crm", "status"], ["migrate"], ["keys", "issue", "x"]])
def test_a_database_that_is_not_there(tmp_path: Path, dsn: str, fault: str, words: list[str]) -> None:
    words = [*words, "--role", "admin"] if words[0] == "keys" else words
    code, said = run(
        *words,
        TALLYPOINT_LEDGER_DSN=dsn,
        TALLYPOINT_CRM_DSN=dsn,
        TALLYPOINT_SECRET_KEY=SECRET,
        TALLYPOINT_DATA_DIR=str(tmp_path),
    )
    assert (code, fault in said, "TALLYPOINT_LEDGER_DSN" in said) == (2, True, True), said
    assert ":p@" not in said, "the password is not shown"


@pytest.mark.parametrize("content", [b"", b"{}x", '{"admin": "ключ"'.encode("cp1251"), b"[1]"])
def test_a_damaged_file_of_development_keys(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "development-keys.json"
    file.write_bytes(content)
    code, said = run("stores", "list", "--data-dir", str(tmp_path))
    assert (code, f"{file} has no keys of a development server" in said) == (2, True), said


@pytest.mark.parametrize("content", [b"", b"no certificate", bytes(range(256))])
def test_what_is_no_certificate(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    code, said = run("stores", "list", "--key", "tp_x", "--tls-ca", str(file))
    assert (code, f"{file} has no certificates to trust, in PEM" in said) == (2, True), said


def test_an_account_map_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "accounts.toml"
    file.write_bytes('[revenue]\naccount = "Дохід"\n'.encode("cp1251"))
    code, said = run("finance", "general-ledger", "--accounts", str(file), "--key", "tp_x")
    assert (code, f"{file}:2:1: {NOT_UTF8}" in said) == (2, True), said


def test_codes_are_not_made_for_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "codes.csv"
    code, said = run("coupons", "generate", "--series", "s", "--output", str(file), "--key", "tp_x")
    assert (code, f"there is no folder {file.parent}" in said) == (2, True), said
