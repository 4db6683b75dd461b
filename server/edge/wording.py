"""Says in words which limit of the proto files a value breaks, and what is expected instead.

What people read names the fault and the cure, with an example. It may tell numbers, lengths and counts, but never the
value of a text: that may be a name, a phone or a card, and refusals may be logged. A day of digits that is no birthday
may be told. `FORMS` has the words for every pattern of the proto files; the tests notice one that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from functools import cache
from typing import Any, Final, NamedTuple

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import OneofDescriptor
from google.protobuf.message import Message

from server.edge.moments import DAY_EXAMPLE, DAY_FORM, OR_EMPTY


class Form(NamedTuple):
    """The form that a text must have, and an example of it."""

    what: str
    example: str


_DAY: Final = Form(DAY_FORM, DAY_EXAMPLE)
_UUID: Final = Form("a UUID", "0192f0c4-5c1e-7cc3-98c4-dc0c0c07398f")
_CODE: Final = Form("a code of Latin letters, digits, points, underscores and hyphens alone", "kyiv-12")
_LINE: Final = Form("a text of one line, without tabs and other control characters", "SPRING-2026")
_REASON: Final = Form("a text with characters that can be seen", "missing receipt brought later")
_SEEN: Final = r"[^\s\pZ\pC\pM\x{115f}\x{1160}\x{2065}\x{2800}\x{3164}\x{ffa0}\x{fff0}-\x{fff8}\x{e0000}-\x{e0fff}]"
"""A character that is no space, control, mark or filler; see `server.base.scanned_text`."""
_PAGE: Final = "the next_page_token of the answer before, unchanged"

FORMS: Final[Mapping[str, Form]] = {
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}$": _DAY,
    "^([0-9]{4}-[0-9]{2}-[0-9]{2})?$": _DAY,
    "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$": _DAY,
    "^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01]))?$": _DAY,
    "^[0-9]{4}-(0[1-9]|1[0-2])$": Form("a month written as YYYY-MM", "2026-05"),
    "^([0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})?$": _UUID,
    "^[^~]{0,40}[^G-Zg-z~]{32,80}$": _UUID,  # with what a scanner says before it, and all that may stand between unseen
    "^[A-Za-z0-9._-]+$": _CODE,
    "^[A-Za-z0-9._-]*$": _CODE,
    "^[a-z0-9._-]*$": Form("a code of small Latin letters, digits, points, underscores and hyphens alone", "delivery"),
    r"^[^\x00-\x1f\x7f]+$": _LINE,
    _SEEN: _REASON,
    f"(?s)^(.*{_SEEN}.*)?$": _REASON,
    "^[A-Z]{3}$": Form("a currency code of three capital letters", "UAH"),
    "^([0-9]{6,8})?$": Form("the first 6 to 8 digits of a payment card", "400000"),
    "^[0-9a-f]{4,16}$": Form("the id of a break, 4 to 16 digits and letters from a to f", "3f9a04c1"),
    "^([0-9]{4}-[0-9]{2}-[0-9]{2}/[0-9a-f]{16})?$": Form(_PAGE, "2026-05-17/3f9a04c1d2e5b678"),
    "^([0-9]+/[0-9a-f-]{36})?$": Form(_PAGE, f"2/{_UUID.example}"),
}
"""The words for each pattern of the proto files."""


class _Broken(NamedTuple):
    """A value, the rules of its field or item, of which it breaks one, and the field itself or the choice."""

    value: Any
    limits: Any
    declared: Any

    def pattern(self) -> str:
        form = FORMS[self.limits.pattern]
        if not self.value:
            return f"is empty: must be {form.what}, such as {form.example}"
        or_empty = OR_EMPTY if self.limits.pattern.endswith(("?$", "*$")) else ""
        return f"is not {form.what}, such as {form.example}{or_empty}"

    def uuid(self) -> str:
        return f"{'is not' if self.value else 'is empty: must be'} {_UUID.what}, such as {_UUID.example}"

    def length(self) -> str:
        return self._amount(self.limits.min_len, self.limits.max_len, "characters")

    def items(self) -> str:
        return self._amount(self.limits.min_items, self.limits.max_items, "items")

    def _amount(self, least: int, most: int, what: str) -> str:
        needed = f"must have {_span(least or None, most or None)} {what}"
        if self.value:
            return f"{needed}, not {len(self.value):,}"
        return f"is empty: {needed}" if most else "is empty"

    def size(self) -> str:
        return f"must have at most {self.limits.max_bytes:,} bytes, not {len(self.value.encode()):,}"

    def exact_size(self) -> str:
        return f"must have {self.limits.len:,} bytes, not {len(self.value):,}"

    def number(self) -> str:
        low, high = self.limits.WhichOneof("greater_than"), self.limits.WhichOneof("less_than")
        least = getattr(self.limits, low) + (low == "gt") if low else None
        most = getattr(self.limits, high) - (high == "lt") if high else None
        needed = f"must be {_span(least, most)}"
        return f"{needed}, not {self.value:,}" if self.value else f"is 0 or not set: {needed}"

    def moment(self) -> str:
        low, high = self.limits.gte.ToDatetime(UTC), self.limits.lt.ToDatetime(UTC)
        return f"must be from {low:%Y-%m-%d} to before {high:%Y-%m-%d}, in UTC: is the clock right that gave it?"

    def excluded(self) -> str:
        return f"must not be {' or '.join(f'{number:,}' for number in self.limits.not_in)}"

    def name(self) -> str:
        allowed, forbidden = getattr(self.limits, "in"), self.limits.not_in
        values = (value for value in self.declared.enum_type.values if value.number not in forbidden)
        needed = f"must be {' or '.join(value.name for value in values if not allowed or value.number in allowed)}"
        return f"{needed}, not {self.value}" if self.value else f"is not set: {needed}"

    def missing(self) -> str:
        if isinstance(self.declared, OneofDescriptor):
            return f"is not set: set one of {', '.join(field.name for field in self.declared.fields)}"
        return "is missing"


def _span(least: int | None, most: int | None) -> str:
    if least is None:
        return f"at most {most:,}"
    return f"at least {least:,}" if most is None else f"{least:,} to {most:,}"


_RANGES: Final = ("gt", "gte", "lt", "lte", "gt_lt", "gt_lte", "gte_lt", "gte_lte")
_WORDS: Final[Mapping[str, Callable[[_Broken], str]]] = {
    "required": _Broken.missing,
    "string.pattern": _Broken.pattern,
    "string.uuid": _Broken.uuid,
    "string.uuid_empty": _Broken.uuid,
    "string.min_len": _Broken.length,
    "string.max_len": _Broken.length,
    "string.max_bytes": _Broken.size,
    "bytes.len": _Broken.exact_size,
    "repeated.min_items": _Broken.items,
    "repeated.max_items": _Broken.items,
    "enum.defined_only": _Broken.name,
    "enum.in": _Broken.name,
    "enum.not_in": _Broken.name,
    **{f"{kind}.{rule}": _Broken.number for kind in ("int32", "int64") for rule in _RANGES},
    "timestamp.gte_lt": _Broken.moment,
    "int32.not_in": _Broken.excluded,
    "int64.not_in": _Broken.excluded,
}
"""The words for each rule, by the id that protovalidate gives it."""


def wording(violation: protovalidate.Violation, message: Message) -> str:
    """Return what is wrong in a message: in these words, or in the rule's own where it has none here."""
    rule = violation.proto
    words = _WORDS.get(rule.rule_id)
    broken = None if words is None else _broken(violation, message)
    if words is None or broken is None:
        return rule.message or f"breaks the rule {rule.rule_id}"
    return words(broken)


def _broken(violation: protovalidate.Violation, message: Message) -> _Broken | None:
    """Follow the violation's path to its value; None where it leads into a map.

    The violation knows the value too, but takes 100 µs to say it, and a request may break thousands of limits.
    """
    path = violation.proto.field
    if path is None or not path.elements:
        return None
    value: Any = message
    declared: Any = None
    for element in path.elements:
        kind: Any = value.DESCRIPTOR
        declared = kind.fields_by_name.get(element.field_name)
        if declared is None:
            return _Broken(None, None, kind.oneofs_by_name[element.field_name])
        value = getattr(value, element.field_name)
        if element.subscript is not None:
            if element.subscript.field != "index":
                return None
            value = value[element.subscript.value]
    return _Broken(value, _limits(declared, is_item=path.elements[-1].subscript is not None), declared)


@cache
def _limits(declared: Any, *, is_item: bool) -> Any:  # noqa: ANN401 - rules of any kind
    """Return the rules of a field, or of the items in it."""
    rules = declared.GetOptions().Extensions[validate_pb2.field]
    rules = rules.repeated.items if is_item else rules
    kind = rules.WhichOneof("type")
    return getattr(rules, kind) if kind else None
