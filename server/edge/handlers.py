"""Wraps a servicer's methods once, at registration, with all that every call needs.

A servicer is a plain object with ``async def snake_case_method(self, request, caller)`` and, for streams both ways,
``def session(self, requests, caller)`` that returns an async iterator of answers. It raises `Refused`, and knows
nothing of gRPC. The wrapper admits the call (load, key, role), parses and checks the request, measures, and turns
errors into statuses. It is on the path of every call: it does each of these once and awaits only the method.
"""

from __future__ import annotations

import asyncio
import keyword
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from tallypoint.v1 import common_pb2 as api

from server.edge.caller import Authenticator, Caller, Role
from server.edge.status import abort, refused_of
from server.edge.validation import check, check_envelope, invalid_request
from server.errors import Refused
from server.metrics import CallMeter, StreamMeter

Allowed = frozenset[Role] | Mapping[str, frozenset[Role]]
UnaryMethod = Callable[[Any, Caller], Awaitable[Message]]
StreamMethod = Callable[[AsyncIterator[Any], Caller], AsyncIterator[Message]]

OVERLOAD_RETRY_SECONDS: Final = 0.2
_BEARER: Final = "Bearer "
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_monotonic: Final = time.monotonic


class Edge:
    """What all calls of one process share.

    Args:
        authenticator: Knows the access keys.
        max_concurrent_calls: Calls under way at once; a stream counts as one. More are refused as OVERLOADED.
        default_timeout_seconds: The deadline of a call whose caller named none.
    """

    def __init__(
        self, authenticator: Authenticator, *, max_concurrent_calls: int = 2000, default_timeout_seconds: float = 3.0
    ) -> None:
        self._authenticate = authenticator.authenticate
        self._max_concurrent_calls = max_concurrent_calls
        self._default_timeout_seconds = default_timeout_seconds
        self._open_streams: set[_Requests] = set()
        self.calls_under_way = 0
        self.draining = False

    def drain(self) -> None:
        """End every stream as if its client had finished sending; its answers under way are still sent."""
        self.draining = True
        for requests in tuple(self._open_streams):
            requests.end()

    def admit(self, context: Any, allowed: frozenset[Role]) -> Caller:  # noqa: ANN401 - no useful stub
        """Say who calls, or refuse the call.

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
        return Caller(*identity, _monotonic() + remaining)

    def requests_of(self, raw: AsyncIterator[bytes], parse: Callable[[bytes], Message]) -> _Requests:
        """Return a stream's requests; they end early when the process drains."""
        return _Requests(raw, parse, self._open_streams)


class _Requests(AsyncIterator[Message]):
    """The requests of one stream. `end` stops it in the middle of waiting, at no cost per request."""

    def __init__(self, raw: AsyncIterator[bytes], parse: Callable[[bytes], Message], registry: set[_Requests]) -> None:
        self._raw = raw
        self._next: Callable[[], Awaitable[bytes]] | None = None
        self._parse = parse
        self._registry = registry
        self._waiting: asyncio.Task[Any] | None = None
        self._ended = False
        registry.add(self)

    async def __anext__(self) -> Message:
        if self._ended:
            raise StopAsyncIteration
        if self._next is None:
            self._next = self._raw.__aiter__().__anext__
        task = self._waiting = asyncio.current_task()
        try:
            raw = await self._next()
        except asyncio.CancelledError:
            if self._was_ended() and task is not None and task.uncancel() == 0:
                raise StopAsyncIteration from None
            raise
        finally:
            self._waiting = None
        return _parsed(self._parse, raw)

    def end(self) -> None:
        self._ended = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _was_ended(self) -> bool:
        return self._ended

    def close(self) -> None:
        self._registry.discard(self)


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
                _unary_wrapper(method, function or _absent(method), roles, edge, checker)
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
    label = _label(method)
    observe = CallMeter(label).observe

    async def handle(raw: bytes, context: Any) -> bytes:  # noqa: ANN401 - no useful stub
        started = _monotonic()
        code = "CANCELLED"  # stays when the client goes away or its deadline passes
        edge.calls_under_way += 1
        try:
            caller = edge.admit(context, allowed)
            request = _parsed(parse, raw)
            checker(request)
            answer = (await function(request, caller)).SerializeToString()
            code = "OK"
            return answer
        except Exception as error:  # noqa: BLE001 - this is the outermost wrapper
            refused = refused_of(error, label)
            code = refused.code.name
        finally:
            edge.calls_under_way -= 1
            observe(code, _monotonic() - started)
        return await abort(context, refused)

    return handle


def _stream_wrapper(
    method: MethodDescriptor, function: StreamMethod, allowed: frozenset[Role], edge: Edge
) -> Callable[[AsyncIterator[bytes], Any], AsyncGenerator[bytes, None]]:
    parse = GetMessageClass(method.input_type).FromString
    label = _label(method)
    meter = StreamMeter(label)

    async def handle(raw: AsyncIterator[bytes], context: Any) -> AsyncGenerator[bytes, None]:  # noqa: ANN401 - no useful stub
        code = "CANCELLED"
        refused = None
        requests = edge.requests_of(raw, parse)
        edge.calls_under_way += 1
        meter.begin()
        try:
            caller = edge.admit(context, allowed)._replace(deadline=None)
            if edge.draining:
                raise _draining()
            async with aclosing(function(requests, caller)) as answers:  # type: ignore[type-var]  # any async generator
                async for answer in answers:
                    yield answer.SerializeToString()
            code = "OK"
        except Exception as error:  # noqa: BLE001 - this is the outermost wrapper
            refused = refused_of(error, label)
            code = refused.code.name
        finally:
            requests.close()
            edge.calls_under_way -= 1
            meter.end(code)
        if refused is not None:
            await abort(context, refused)

    return handle


def _parsed(parse: Callable[[bytes], Message], raw: bytes) -> Message:
    try:
        return parse(raw)
    except DecodeError:
        raise invalid_request([("", "the bytes are not a message of this call's request type")]) from None


def _absent(method: MethodDescriptor) -> UnaryMethod:
    async def refuse(request: Message, caller: Caller) -> Message:  # noqa: ARG001 - a method's shape
        raise _not_yet_available(method)

    return refuse


def _absent_stream(method: MethodDescriptor) -> StreamMethod:
    async def refuse(requests: AsyncIterator[Message], caller: Caller) -> AsyncIterator[Message]:  # noqa: ARG001 - a method's shape
        yield await _absent(method)(Message(), caller)

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
