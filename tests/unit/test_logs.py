"""What a process writes to its log: one line of JSON for an event, whoever had something to say."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from server.measuring import logs
from server.measuring.logs import configure_logs

SECRET_TEXT = "no member has the phone number +380501112233"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging belongs to the whole process: the next test finds it as this one did."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(logs, "_shown", dict(logs._shown))
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the events written so far; nothing else may have been written, on either stream."""
    written = capsys.readouterr()
    assert written.err == ""
    return [json.loads(line) for line in written.out.splitlines()]


def fail_in_a_callback() -> None:
    """Let an event loop meet an error that nobody waits for: it reports to its logger, with the exception."""

    async def main() -> None:
        asyncio.get_running_loop().call_soon(_raise)
        await asyncio.sleep(0)

    asyncio.run(main())


def _raise() -> None:
    raise LookupError(SECRET_TEXT)


def test_a_librarys_error_is_one_event_with_its_text_in_development(capsys: pytest.CaptureFixture[str]) -> None:
    """Both have a text, the error and the message about it, and each has a field of its own."""
    configure_logs("worker-1", show_error_texts=True)

    fail_in_a_callback()

    (event,) = events(capsys)
    assert (event["event"], event["level"], event["process"]) == ("library", "error", "worker-1")
    assert (event["logger"], event["error_type"]) == ("asyncio", "builtins.LookupError")
    assert event["text"] == SECRET_TEXT
    assert event["message"].startswith("Exception in callback")
    assert event["frames"][-1].endswith("_raise")


def test_what_an_error_says_stays_out_of_the_log_in_production(capsys: pytest.CaptureFixture[str]) -> None:
    """It may quote a person's data; its type and place are enough to find it."""
    configure_logs("worker-1")

    fail_in_a_callback()

    (event,) = events(capsys)
    assert event["error_type"] == "builtins.LookupError"
    assert SECRET_TEXT not in json.dumps(event)


def test_the_values_in_a_librarys_message_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the sentence around them is known to be free of data."""
    configure_logs("worker-1", show_error_texts=True)

    logging.getLogger("grpc").warning("cannot parse %r", SECRET_TEXT)

    (event,) = events(capsys)
    assert (event["event"], event["message"]) == ("library", "cannot parse %r")
    assert SECRET_TEXT not in json.dumps(event)


def test_what_a_library_says_in_passing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Their debug and info lines are for their own authors."""
    configure_logs("worker-1", level="debug")

    logging.getLogger("grpc").info("connected")

    assert events(capsys) == []
