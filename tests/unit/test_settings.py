"""What people read when a setting is wrong: its name, its variable, the fault and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from pydantic import SecretStr

from server.command import load_settings
from server.settings import Settings, StartRefusedError, check_production


@pytest.fixture(autouse=True)
def without_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine."""
    monkeypatch.setenv("TALLYPOINT_SETTINGS_FILE", str(tmp_path / "none.toml"))


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
    assert "there is no such setting; 'tallypoint settings' lists all of them" in capsys.readouterr().err


def test_no_setting_is_refused_with_a_regular_expression() -> None:
    """A setting with a pattern would be: it wants a check with words of its own."""
    for name, field in Settings.model_fields.items():
        assert not any(getattr(rule, "pattern", None) for rule in field.metadata), name


def test_a_region_that_is_no_country_is_refused_at_the_start() -> None:
    """Otherwise each child would die of it, again and again."""
    settings = Settings(secret_key=SecretStr("s" * 32), default_region="UK")
    with pytest.raises(StartRefusedError, match="set TALLYPOINT_DEFAULT_REGION to an ISO 3166 code"):
        check_production(settings)
