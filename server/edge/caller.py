"""Who calls: identities, roles, and what a handler learns about its call."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

from google.protobuf.message import Message

from server.measuring.timeline import UNTIMED, Timeline


class Role(Enum):
    """What a caller may reach. The values stand in the database."""

    TERMINAL = "TERMINAL"
    """A register or kiosk, bound to its store."""
    FINANCE = "FINANCE"
    """Reads the ledger."""
    CRM = "CRM"
    """Keeps members."""
    ADMIN = "ADMIN"
    """Everything in the back office."""


class Identity(NamedTuple):
    """Whom a key stands for. `store_id` and `terminal_id` are empty outside of terminals."""

    role: Role
    name: str
    store_id: str = ""
    terminal_id: str = ""


class Caller(NamedTuple):
    """An identity in one call. A named tuple, because one is made for every call."""

    role: Role
    name: str
    store_id: str
    terminal_id: str
    deadline: float | None
    """When the caller stops waiting, in seconds of `time.monotonic()`, which is also the event loop's clock; None
    on a stream, whose requests carry their own."""
    timeline: Timeline = UNTIMED
    """When the call was where."""
    sent: Message | bytes = b""
    """The request as it came: serialised, or the message inside a stream's."""

    def raw_request(self) -> bytes:
        """Return the request as it was sent, serialised."""
        sent = self.sent
        return sent if isinstance(sent, bytes) else sent.SerializeToString()


class Authenticator(Protocol):
    """Knows the access keys."""

    def authenticate(self, bearer_key: str) -> Identity | None:
        """Return whose key it is; None if nobody has it or it was revoked."""
