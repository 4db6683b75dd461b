"""Commands that stop tills, or that cannot be undone, ask first; where nobody can be asked they do nothing."""

from __future__ import annotations

import pytest

from tests.support.server_process import run_command

NOWHERE = ("--address=127.0.0.1:1", "--key=tp_nobody")


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (("ledger", "rebuild"), "Write the caches of all books anew?"),
        (("finance", "rebuild"), "Write the summaries of all entries anew?"),
        (("rules", "rollback", *NOWHERE), "Go back to the version before, for all receipts from now on?"),
        (
            ("stores", "revoke-key", "kyiv-1", "till-1", *NOWHERE),
            "Take the key of terminal till-1 of store kyiv-1 away",
        ),
        (
            ("replay", "--pos=127.0.0.1:1", "--backoffice=127.0.0.1:2", "--admin-key=tp_nobody"),
            "on the server at 127.0.0.1:2, and book receipts of made-up members in its ledger, for good?",
        ),
    ],
)
def test_a_dangerous_command_asks_and_without_anybody_to_ask_does_nothing(
    command: tuple[str, ...], question: str
) -> None:
    refused = run_command(*command, environment={})
    said = " ".join(refused.stderr.split())
    assert (refused.returncode, question in said) == (2, True), refused.stderr
    assert said.endswith("Nobody can be asked here, so nothing was done: give --yes to go ahead.")
