"""The gRPC edge: who calls, is the request sound, what does an error look like.

Servicers import `Caller` and `Role`, and `check` where they take batches or streams; the worker imports the rest.
"""

from server.edge.caller import Authenticator, Caller, Identity, Role
from server.edge.handlers import Edge, MethodHandlers, service_handler
from server.edge.stream import Stream
from server.edge.timeline import Timeline
from server.edge.validation import check, invalid_request, read_day, read_optional_day
from server.edge.wording import no_day

__all__ = [
    "Authenticator",
    "Caller",
    "Edge",
    "Identity",
    "MethodHandlers",
    "Role",
    "Stream",
    "Timeline",
    "check",
    "invalid_request",
    "no_day",
    "read_day",
    "read_optional_day",
    "service_handler",
]
