"""Checks requests against the limits written in the proto files."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final

import protovalidate
from google.protobuf.message import Message

from server.base.errors import invalid_request
from server.edge.holdable import unholdable
from server.edge.moments import no_day
from server.edge.prover import Proof, prover
from server.edge.wording import wording

_validator: Final = protovalidate.Validator()
_collect: Final = _validator.collect_violations
_proofs: Final[dict[type[Message], Proof]] = {}


def check(request: Message) -> None:
    """Check a request, or a message inside one, against all its limits.

    Raises:
        Refused: INVALID_REQUEST, with one violation for each field at fault.
    """
    if _is_surely_valid(request):
        return
    faults = _faults(request)
    if faults:
        raise invalid_request(faults)


def check_envelope(request: Message) -> None:
    """Check a batch, but not its items: each of them is checked, and refused, on its own.

    Raises:
        Refused: INVALID_REQUEST, for example too many items.
    """
    if _is_surely_valid(request):
        return
    of_envelope = [(field, text) for field, text in _faults(request) if "[" not in field]
    if of_envelope:
        raise invalid_request(of_envelope)


def _faults(request: Message) -> list[tuple[str, str]]:
    """Return all fields at fault and what is wrong; protovalidate is not asked about times that it cannot read."""
    return list(unholdable(request)) or _by_field(_collect(request), request)


def _is_surely_valid(request: Message) -> bool:
    kind = type(request)
    proof = _proofs.get(kind)
    if proof is None:
        proof = _proofs[kind] = prover(kind.DESCRIPTOR)
    return proof(request)


def read_day(text: str, field: str) -> date:
    """Return the day that a field names in its form, but for birthdays: the refusal tells it.

    Raises:
        Refused: INVALID_REQUEST if the calendar has no such day.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise invalid_request([(field, no_day(text, optional=False))]) from None


def read_optional_day(text: str, field: str) -> date | None:
    """Return the day that a field names in its form, or None for an empty text; see `read_day`."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise invalid_request([(field, no_day(text, optional=True))]) from None


def _by_field(violations: Iterable[protovalidate.Violation], request: Message) -> list[tuple[str, str]]:
    """Return the path of each field at fault, such as ``receipt.lines[3].sku``, and all that is wrong with it."""
    named: dict[str, str] = {}
    for violation in violations:
        path = _path(violation)
        text = wording(violation, request)
        if not path:
            text = text[:1].upper() + text[1:]
        before = named.get(path)
        if before is not None and not before.startswith("is empty"):  # its pattern says more of an empty text
            text = f"{before}; {text}"
        named[path] = text
    return list(named.items())


def _path(violation: protovalidate.Violation) -> str:
    path = ""
    field = violation.proto.field
    for element in field.elements if field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        subscript = element.subscript
        if subscript is not None:
            path += f"[{subscript.value!r}]"
    return path
