"""Wraps a servicer's methods once, at registration, with all that every call needs.

A servicer is a plain object with ``async def snake_case_method(self, request, caller)``, which returns the answer as a
message or, already serialised, as bytes; and, for streams both ways, ``async def session(self, stream, caller)``, which
reads from and writes to a `Stream`. It raises `Refused`, and knows nothing of gRPC. The wrapper admits the call (load,
key, role), parses and checks the request, measures, and turns errors into statuses. It is on the path of every call: it
does each of these once and awaits only the method.
"""

from __future__ import annotations

import keyword
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused
from server.edge.caller import Authenticator, Caller, Role
from server.edge.status import abort, refused_of
from server.edge.stream import Stream, parsed
from server.edge.validation import check, check_envelope
from server.measuring.metrics import NO_GROUP, UNDER_WAY, CallMeter, StreamMeter
from server.measuring.timeline import UNTIMED, SlowCalls, Timeline

if TYPE_CHECKING:
    from server.measuring.tracing import Tracing

Allowed = frozenset[Role] | Mapping[str, frozenset[Role]]
UnaryMethod = Callable[[Any, Caller], Awaitable[Message | bytes]]
StreamMethod = Callable[[Stream, Caller], Awaitable[None]]

OVERLOAD_RETRY_SECONDS: Final = 0.2
_BEARER: Final = "Bearer "
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_monotonic: Final = time.monotonic
perf_counter: Final = time.perf_counter


class Edge:
    """What all calls of one process share.

    Args:
        authenticator: Knows the access keys.
        max_concurrent_calls: Calls under way at once; a stream counts as one. More are refused as OVERLOADED.
        default_timeout_seconds: The deadline of a call whose caller named none.
        group_of: Says by which group of stores a store's calls are counted.
        slow_call_milliseconds: Calls that take longer are logged; 0 logs none.
        tracing: Traces some calls; None traces none.
        stream_age_seconds: Streams end, in order, at this age, and are opened anew elsewhere; 0: never.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        max_concurrent_calls: int = 2000,
        default_timeout_seconds: float = 3.0,
        group_of: Callable[[str], str] | None = None,
        slow_call_milliseconds: int = 0,
        stream_age_seconds: float = 0,
        tracing: Tracing | None = None,
    ) -> None:
        self._authenticate = authenticator.authenticate
        self._max_concurrent_calls = max_concurrent_calls
        self._default_timeout_seconds = default_timeout_seconds
        self._group_of = group_of
        self.slow_calls = SlowCalls(slow_call_milliseconds)
        self.stream_age_seconds = stream_age_seconds
        self.tracing = tracing
        self.streams: set[Stream] = set()
        self.calls_under_way = 0
        self.draining = False

    def drain(self) -> None:
        """End every stream as if its client had finished sending; its answers under way are still sent."""
        self.draining = True
        for stream in tuple(self.streams):
            stream.end()

    def group_of(self, caller: Caller) -> str:
        """Return the group of stores by which a caller's calls are counted."""
        return self._group_of(caller.store_id) if self._group_of is not None and caller.store_id else NO_GROUP

    def admit(self, context: Any, allowed: frozenset[Role], timeline: Timeline, sent: bytes) -> Caller:  # noqa: ANN401 - no useful stub
        """Say who calls, or refuse the call; ``sent`` is the request.

        Raises:
            Refused: UNAUTHENTICATED, ROLE_FORBIDDEN, OVERLOADED or DEADLINE_PASSED.
        """
        if self.calls_under_way > self._max_concurrent_calls:
            raise Refused(
                api.REFUSAL_REASON_OVERLOADED,
                "the service has more calls under way than it can take; nothing was stored, send it again",
                retry_after_seconds=OVERLOAD_RETRY_SECONDS,
            )
        identity = None
        for name, value in context.invocation_metadata():
            if name == "authorization":
                identity = self._authenticate(value[len(_BEARER) :]) if value.startswith(_BEARER) else None
                break
        if identity is None:
            raise _unauthenticated(context)
        if identity.role not in allowed:
            raise _forbidden(identity.role, allowed)
        remaining = context.time_remaining()
        if remaining is None:
            remaining = self._default_timeout_seconds
        elif remaining <= 0:
            raise Refused(api.REFUSAL_REASON_DEADLINE_PASSED, "the deadline had passed on arrival; nothing was stored")
        return Caller(*identity, _monotonic() + remaining, timeline, sent)

    def tell(self, meter: CallMeter, code: str, refused: Refused | None, caller: Caller | None, of: Timeline) -> None:
        """Measure a call that is over; ``caller`` is None if it was not admitted."""
        seconds = perf_counter() - of.begun
        meter.observe(code, seconds, NO_GROUP if caller is None else self.group_of(caller))
        if refused is not None:
            meter.refuse(refused.reason_name)
        if of.trace is not None:
            of.trace.end(code, caller, of)
        if seconds >= self.slow_calls.from_seconds:
            self.slow_calls.tell(meter.method, code, seconds, caller, of)


class MethodHandlers(grpc.GenericRpcHandler):
    """Handlers by full method name: one look-up a call, however many services there are."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self.handlers = dict(handlers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a method; None if there is no such method."""
        return self.handlers.get(handler_call_details.method)

    @classmethod
    def join(cls, *parts: MethodHandlers) -> MethodHandlers:
        """Return one table of all methods, so that a call needs one look-up."""
        return cls({name: handler for part in parts for name, handler in part.handlers.items()})


def service_handler(
    service: ServiceDescriptor,
    servicer: object,
    allowed: Allowed,
    edge: Edge,
    *,
    batch_methods: Collection[str] = (),
) -> MethodHandlers:
    """Wrap a servicer's methods.

    Args:
        service: The service, such as ``checkout_pb2.DESCRIPTOR.services_by_name["CheckoutService"]``.
        servicer: Has a method for each call, in snake case (``return_`` for Return). A call without a method is
            answered UNIMPLEMENTED with reason NOT_YET_AVAILABLE.
        allowed: The roles that may call, for all methods or for each by its proto name.
        edge: What the process's calls share.
        batch_methods: Proto names of calls whose items are checked one by one, by the servicer, with
            `server.edge.check`; here only their envelope is.

    A stream's requests are parsed, but not checked: the servicer answers each bad one by itself.
    """
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        roles = allowed if isinstance(allowed, frozenset) else allowed[method.name]
        function = getattr(servicer, _python_name(method.name), None)
        full_name = f"/{service.full_name}/{method.name}"
        if method.client_streaming and method.server_streaming:
            handlers[full_name] = grpc.stream_stream_rpc_method_handler(
                _stream_wrapper(method, function or _absent_stream(method), roles, edge)
            )
        elif not method.client_streaming and not method.server_streaming:
            checker = check_envelope if method.name in batch_methods else check
            handlers[full_name] = grpc.unary_unary_rpc_method_handler(
                _unary_wrapper(method, function or _method_to_come(method), roles, edge, checker)
            )
        else:
            raise TypeError(f"{full_name} streams one way only; no wrapper exists for that yet")
    return MethodHandlers(handlers)


def _unary_wrapper(
    method: MethodDescriptor,
    function: UnaryMethod,
    allowed: frozenset[Role],
    edge: Edge,
    checker: Callable[[Message], None],
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    parse = GetMessageClass(method.input_type).FromString
    meter = CallMeter(_label(method))

    async def handle(raw: bytes, context: Any) -> bytes:  # noqa: ANN401 - no useful stub
        timeline = Timeline()
        if edge.tracing is not None:
            timeline.trace = edge.tracing.begin(meter.method, context.invocation_metadata())
        code, caller, refused = "CANCELLED", None, None  # stays when the client goes away or its deadline passes
        edge.calls_under_way += 1
        UNDER_WAY.add(1)
        try:
            caller = edge.admit(context, allowed, timeline, raw)
            request = parsed(parse, raw)
            checker(request)
            timeline.mark("admitted")
            answer = await function(request, caller)
            if not isinstance(answer, bytes):
                answer = answer.SerializeToString()
            code = "OK"
            return answer
        except Exception as error:  # noqa: BLE001 - this is the outermost wrapper
            refused = refused_of(error, meter.method)
            code = refused.code.name
        finally:
            timeline.mark("answered")
            edge.calls_under_way -= 1
            UNDER_WAY.add(-1)
            edge.tell(meter, code, refused, caller, timeline)
        return await abort(context, refused)

    return handle


def _stream_wrapper(
    method: MethodDescriptor, function: StreamMethod, allowed: frozenset[Role], edge: Edge
) -> Callable[[object, Any], Awaitable[None]]:
    parse = GetMessageClass(method.input_type).FromString
    label = _label(method)
    meter = StreamMeter(label)

    async def handle(_: object, context: Any) -> None:  # noqa: ANN401 - no useful stub
        code = "CANCELLED"
        refused = None
        stream = Stream(context, parse, edge)
        if edge.stream_age_seconds:
            stream.end_after(edge.stream_age_seconds)
        edge.streams.add(stream)
        edge.calls_under_way += 1
        meter.begin()
        try:
            caller = edge.admit(context, allowed, UNTIMED, b"")._replace(deadline=None)
            if edge.draining:
                raise _draining()
            await function(stream, caller)
            code = "OK"
        except Exception as error:  # noqa: BLE001 - this is the outermost wrapper
            refused = refused_of(error, label)
            code = refused.code.name
        finally:
            edge.streams.discard(stream)
            stream.close()
            edge.calls_under_way -= 1
            meter.end(code)
        if refused is not None:
            await abort(context, refused)

    return handle


def _method_to_come(method: MethodDescriptor) -> UnaryMethod:
    async def refuse(request: Message, caller: Caller) -> Message:  # noqa: ARG001 - a method's shape
        raise _not_yet_available(method)

    return refuse


def _absent_stream(method: MethodDescriptor) -> StreamMethod:
    async def refuse(stream: Stream, caller: Caller) -> None:  # noqa: ARG001 - a method's shape
        raise _not_yet_available(method)

    return refuse


def _not_yet_available(method: MethodDescriptor) -> Refused:
    return Refused(api.REFUSAL_REASON_NOT_YET_AVAILABLE, f"{method.name} comes with a later release")


def _unauthenticated(context: Any) -> Refused:  # noqa: ANN401 - no useful stub
    present = any(name == "authorization" for name, _ in context.invocation_metadata())
    what = "the access key is not known, or was revoked" if present else "the call carries no access key"
    return Refused(
        api.REFUSAL_REASON_UNAUTHENTICATED,
        f"{what}: send metadata 'authorization: Bearer <key>' with a key that the back office issued",
        cashier_text="This register is not connected to the loyalty service. Call the support desk.",
    )


def _forbidden(role: Role, allowed: frozenset[Role]) -> Refused:
    wanted = " or ".join(sorted(role.value.lower() for role in allowed))
    return Refused(
        api.REFUSAL_REASON_ROLE_FORBIDDEN,
        f"this call needs the role {wanted}; the key has the role {role.value.lower()}",
    )


def _draining() -> Refused:
    return Refused(
        api.REFUSAL_REASON_OVERLOADED,
        "this process is shutting down; open the stream again",
        retry_after_seconds=OVERLOAD_RETRY_SECONDS,
    )


def _label(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


def _python_name(proto_name: str) -> str:
    name = _WORD_START.sub("_", proto_name).lower()
    return f"{name}_" if keyword.iskeyword(name) else name
