"""What people read when a setting is wrong: its name, its variable, the fault and the cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import typer
from pydantic import SecretStr

from server.base.settings import (
    OTHER_VARIABLES,
    PREFIX,
    Settings,
    StartRefusedError,
    check_databases,
    check_production,
    unknown_variables,
    variable_of,
)
from server.commands.common import load_settings
from tests.support.server_process import run_command

ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine."""
    file = tmp_path / "empty.toml"
    file.touch()
    monkeypatch.setenv("TALLYPOINT_SETTINGS_FILE", str(file))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param(
            "default_region",
            "ua",
            "'ua' is not an ISO 3166 code of two capital letters, such as UA",
            id="small-letters",
        ),
        pytest.param(
            "default_region",
            "Ukraine",
            "'Ukraine' is not an ISO 3166 code of two capital letters, such as UA",
            id="name-of-a-country",
        ),
        pytest.param(
            "log_level", "verbose", "Input should be 'debug', 'info', 'warning' or 'error'", id="level-of-another-tool"
        ),
        pytest.param(
            "trace_endpoint",
            "user:hidden@collector:4318",
            "does not begin with http:// or https://; write it as http://localhost:4318",
            id="endpoint-without-a-scheme",
        ),
        pytest.param(
            "ledger_dsn",
            "u:hidden@db/ledger",
            "must be postgresql://user:password@host/database",
            id="dsn-without-its-scheme",
        ),
        pytest.param("crm_dsn", "", "must be postgresql://user:password@host/database", id="empty-dsn"),
        pytest.param("books", "four", "must be a whole number, such as 2", id="number-in-letters"),
        pytest.param("trace_share", "1%", "must be a number, such as 0.5", id="share-as-percent"),
        pytest.param("migrate_on_start", "perhaps", "must be true or false", id="neither-yes-nor-no"),
        pytest.param("pos_listen", "7443", "'7443' is not host:port, such as 127.0.0.1:7443", id="port-alone"),
    ],
)
def test_a_wrong_setting_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, words: str
) -> None:
    """One line a setting."""
    variable = f"TALLYPOINT_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(typer.Exit):
        load_settings()
    assert capsys.readouterr().err == f"These settings are wrong:\n  {name} ({variable}): {words}\n"


def test_a_setting_that_there_is_not_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In a file it is a mistake; where the names are to be found is said."""
    file = tmp_path / "tallypoint.toml"
    file.write_text("loglevel = 'info'\n")
    monkeypatch.setenv("TALLYPOINT_SETTINGS_FILE", str(file))
    with pytest.raises(typer.Exit):
        load_settings()
    assert capsys.readouterr().err == (
        "These settings are wrong:\n"
        "  loglevel: there is no such setting; did you mean log_level? 'tallypoint settings' lists all of them\n"
    )


def test_a_file_that_is_named_must_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Otherwise everything in it would be left at its default, without a word."""
    monkeypatch.setenv("TALLYPOINT_SETTINGS_FILE", str(tmp_path / "talypoint.toml"))
    with pytest.raises(typer.Exit):
        load_settings()
    assert f"TALLYPOINT_SETTINGS_FILE is {tmp_path / 'talypoint.toml'}, and there is no such file" in (
        capsys.readouterr().err.replace("\n", "")
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("LEDGER_DNS", "TALLYPOINT_LEDGER_DSN"),
        ("LEDGERDSN", "TALLYPOINT_LEDGER_DSN"),
        ("ledger_dns", "TALLYPOINT_LEDGER_DSN"),
        ("CRM_DNS", "TALLYPOINT_CRM_DSN"),
        ("ADMINKEY", "TALLYPOINT_ADMIN_KEY"),
        ("admin_key", "TALLYPOINT_ADMIN_KEY"),  # commands read it in capital letters only
        ("ADMIN_ADDRES", "TALLYPOINT_ADMIN_ADDRESS"),
        ("SETTING_FILE", "TALLYPOINT_SETTINGS_FILE"),
        ("WORKER", "TALLYPOINT_WORKERS"),
        ("", ""),
        ("QQQQQQQQQQQQQQQQQQQQQQQQQQQQ", ""),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, near: str
) -> None:
    monkeypatch.setenv(f"{PREFIX}{name}", "x")
    with pytest.raises(typer.Exit):
        load_settings()
    meant = f"did you mean {near}? " if near else ""
    assert capsys.readouterr().err == (
        f"These settings are wrong:\n  {PREFIX}{name}: there is no such setting; {meant}"
        "'tallypoint settings' lists all of them\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        *(variable_of(name) for name in Settings.model_fields),
        *sorted(OTHER_VARIABLES),
        "tallypoint_log_level",
        "Tallypoint_Log_Level",
        "PATH",
        "TALLY_POINT_X",
        "MY_TALLYPOINT_X",
    ],
)
def test_settings_and_what_commands_read_are_known(name: str) -> None:
    """A setting in small letters is one, too."""
    assert unknown_variables([name]) == {}


def test_each_variable_that_the_repository_names_is_one() -> None:
    """And no variable is known that nobody reads: then it is to be taken out of OTHER_VARIABLES."""
    named: dict[str, list[str]] = {}
    for path in files_of_the_repository():
        for name in re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8", errors="ignore")):
            named.setdefault(name, []).append(str(path.relative_to(ROOT)))
    unknown = {name: named[name] for name in unknown_variables(named)}
    assert not unknown, f"{unknown}: add what commands, tests or load generators read to OTHER_VARIABLES"
    assert {name for name in OTHER_VARIABLES if set(named[name]) <= {"server/base/settings.py"}} == set()


def files_of_the_repository() -> list[Path]:
    """Return what people and programs read; the changelog may name variables of before."""
    folders = ("server", "ledger", "pos_adapters", "benchmarks", "tests", "proto", "docs", ".ci")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    endings = {"", ".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".sql", ".proto", ".json"}
    return [
        path
        for path in (*inside, ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "Makefile", ROOT / "pyproject.toml")
        if path.is_file() and path.suffix in endings
    ]


@pytest.mark.parametrize(
    ("given", "names", "words"),
    [
        ({}, ("ledger_dsn", "crm_dsn"), "set TALLYPOINT_LEDGER_DSN and TALLYPOINT_CRM_DSN to postgresql://"),
        ({}, ("ledger_dsn",), "set TALLYPOINT_LEDGER_DSN to postgresql://"),
        ({"ledger_dsn": "postgresql://db/ledger"}, ("ledger_dsn", "crm_dsn"), "set TALLYPOINT_CRM_DSN to"),
        ({"ledger_dsn": "postgresql://db/ledger"}, ("ledger_dsn",), None),
        ({"ledger_dsn": "postgresql://db/a", "crm_dsn": "postgres://db/b"}, ("ledger_dsn", "crm_dsn"), None),
        ({"embedded": True}, ("ledger_dsn", "crm_dsn"), None),
        ({"development": True}, ("ledger_dsn", "crm_dsn"), None),
        ({"embedded": True, "crm_dsn": "postgresql://db/crm"}, ("ledger_dsn", "crm_dsn"), None),
    ],
)
def test_an_embedded_database_is_only_taken_when_asked_for(
    given: dict[str, Any], names: tuple[Literal["ledger_dsn", "crm_dsn"], ...], words: str | None
) -> None:
    settings = Settings(**given)
    if words is None:
        check_databases(settings, *names)
        return
    with pytest.raises(StartRefusedError, match=words):
        check_databases(settings, *names)


@pytest.mark.parametrize(
    "command",
    [
        "migrate",
        "keys issue anna --role=admin",
        "keys revoke anna",
        "ledger verify",
        "ledger heads",
        "ledger sweep",
        "ledger rebuild --yes",
        "ledger seal --key=none.pem --output=none.json",
        "crm status",
        "crm compare",
        "crm reconcile",
        "finance rebuild --yes",
        "finance verify",
        f"rules backtest {ROOT}/server/promotions/examples/demo.yaml",
    ],
)
def test_a_command_that_opens_databases_starts_none_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run_command(*command.split(), environment={})
    assert (refused.returncode, "no database: set TALLYPOINT_LEDGER_DSN" in refused.stderr) == (2, True), refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.toml"]


def test_a_misspelt_prefix_is_suspected_where_a_database_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be refused: other programs' variables are theirs."""
    monkeypatch.setenv("TALYPOINT_LEDGER_DSN", "postgresql://db/ledger")
    with pytest.raises(StartRefusedError, match=r"meant by TALYPOINT_LEDGER_DSN, which is set\?"):
        check_databases(Settings(), "ledger_dsn")


def test_no_setting_is_refused_with_a_regular_expression() -> None:
    """A setting with a pattern would be: it wants a check with words of its own."""
    for name, field in Settings.model_fields.items():
        assert not any(getattr(rule, "pattern", None) for rule in field.metadata), name


def test_a_region_that_is_no_country_is_refused_at_the_start() -> None:
    """Otherwise each child would die of it, again and again."""
    settings = Settings(secret_key=SecretStr("s" * 32), embedded=True, default_region="UK")
    with pytest.raises(StartRefusedError, match="set TALLYPOINT_DEFAULT_REGION to an ISO 3166 code"):
        check_production(settings)
