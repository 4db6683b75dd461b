"""JSON logs, one event a line on standard output, without personal data.

An event's name is a word (``ready``, ``child_died``) and its facts are fields. Errors are logged as their type and
where they happened: their texts may quote a phone number or a key. Development mode shows them.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog

MAX_FRAMES: Final = 12
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_CLIENT_GONE: Final = "grpc._cython.cygrpc.ExecuteBatchError"
"""gRPC calls it an error when a client went away, or its deadline passed, in the moment of its answer."""
_ROOT: Final = str(Path(__file__).parent.parent)
_shown: Final = {"error_texts": False}


def configure_logs(process: str, level: str = "info", *, show_error_texts: bool = False) -> None:
    """Set up logging for this process.

    Args:
        process: The name of the process in every event, such as ``worker-1``.
        level: The least level that is written: debug, info, warning or error.
        show_error_texts: Log what errors say; only where there are no real people's data.
    """
    _shown["error_texts"] = show_error_texts
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _event_first,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


def _event_first(logger: object, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001 - structlog's shape
    """Order the fields for people who read the lines as they are."""
    first = {name: event.pop(name, "") for name in ("timestamp", "level", "process", "event")}
    return {**first, **event}


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return an error as fields of an event: type, code and place, and its text only in development."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    fields: dict[str, Any] = {
        "error_type": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": [f"{frame.filename.removeprefix(_ROOT)}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if _shown["error_texts"]:
        fields["text"] = str(error)
    if isinstance(error, asyncpg.PostgresError):
        fields["sqlstate"] = error.sqlstate
        constraint = getattr(error, "constraint_name", None)
        if constraint:
            fields["constraint"] = constraint
    if isinstance(error, OSError) and error.errno is not None:
        fields["errno"] = error.errno
    if error.__cause__ is not None:
        fields["caused_by"] = describe_error(error.__cause__)
    return fields


class _ToStructlog(logging.Handler):
    """Passes what libraries log (asyncio, grpc) on as events."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields |= describe_error(record.exc_info[1])
        fields["message"] = record.msg if isinstance(record.msg, str) else ""
        level = logging.DEBUG if fields.get("error_type") == _CLIENT_GONE else record.levelno
        structlog.get_logger().log(level, "library", **fields)
