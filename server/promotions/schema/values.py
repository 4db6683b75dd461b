"""Single values of a programme file: text in, exact values out, and how an editor may check them while typing.

All scalars arrive as text (see yaml_text): `no` is no boolean and 1.10 keeps its digits. An editor reads the
same file with YAML's own types, so the JSON Schema of a number allows a number and its text, and so on.
Patterns have no nested repetition: matching takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from server.base.scanned_text import scanned_code

MAX_NUMBER = 10**12
"""The largest number of a file: in minor units of any currency and point it fits the ledger's 64 bits."""
MAX_WHOLE = 10**9 - 1
MAX_TEXT = 500
MAX_CODE = 64
MAX_MESSAGE = 1000
MAX_GOODS = 100_000
"""Entries of one list of goods."""

FIX_VALUE = "correct the value"
MINUTES_PER_DAY = 1440
MINUTES_PER_HOUR = 60

_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
_DECIMAL_COMMA = re.compile(r"[0-9][0-9\s']*,[0-9]+")
_WHOLE = re.compile(r"[0-9]{1,9}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CODE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
_BIN = re.compile(r"[0-9]{1,8}")
_WORDS = {"true": True, "yes": True, "false": False, "no": False}

_PLAIN_TYPES = ["string", "number", "boolean"]
"""What an editor takes an unquoted word for."""


def wrong(message: str, hint: str = FIX_VALUE) -> PydanticCustomError:
    """A fault of one value, with what to do about it."""
    return PydanticCustomError("programme_value", "{reason}", {"reason": message, "hint": hint})


def shown(value: object) -> str:
    """A value as messages show it."""
    if isinstance(value, str):
        return f"`{value[:40]}`"
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), repr(value)[:40])


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """How one kind of value is read (`parse` raises `wrong`), and its JSON Schema."""

    parse: Callable[[object], object]
    shape: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let `parse` alone decide."""
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say what an editor should allow."""
        return dict(self.shape)


def _bounds(
    value: Decimal | int, above: int | None, at_least: int | None, at_most: int | None
) -> PydanticCustomError | None:
    if above is not None and value <= above:
        return wrong(f"should be greater than {above}")
    if at_least is not None and value < at_least:
        return wrong(f"should be greater than or equal to {at_least}")
    if at_most is not None and value > at_most:
        return wrong(f"should be less than or equal to {at_most}")
    return None


def decimals(above: int | None = None, at_least: int | None = None, at_most: int = MAX_NUMBER) -> Scalar:
    """A number such as 10 or 2.50 within these bounds."""

    def parse(value: object) -> Decimal:
        if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
            raise wrong(f"{shown(value)} has a decimal comma", "write it with a point, and nothing between thousands")
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
            raise wrong(f"{shown(value)} is no number like 10 or 2.50 (digits, a point, up to 6 decimals)")
        number = Decimal(value)
        fault = _bounds(number, above, at_least, at_most)
        if fault is not None:
            raise fault
        return number

    limits = {"exclusiveMinimum": above, "minimum": at_least or (0 if above is None else None), "maximum": at_most}
    return Scalar(parse, _numeric("number", _DECIMAL, limits))


def wholes(at_least: int = 0, at_most: int = MAX_WHOLE) -> Scalar:
    """A whole number within these bounds."""

    def parse(value: object) -> int:
        if not isinstance(value, str) or not _WHOLE.fullmatch(value):
            raise wrong(f"{shown(value)} is no whole number from {at_least}")
        number = int(value)
        fault = _bounds(number, None, at_least, at_most)
        if fault is not None:
            raise fault
        return number

    return Scalar(parse, _numeric("integer", _WHOLE, {"minimum": at_least, "maximum": at_most}))


def _numeric(kind: str, pattern: re.Pattern[str], limits: dict[str, int | None]) -> dict[str, Any]:
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return {"type": [kind, "string"], "pattern": f"^{pattern.pattern}$", **given}


def text(longest: int = MAX_TEXT, *, lines: bool = False) -> Scalar:
    """Words of at most `longest` characters, on several lines only if `lines`; spaces around them are dropped."""
    forbidden = _CONTROL_BUT_NEWLINE if lines else _CONTROL

    def parse(value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise wrong(f"{shown(value)} is no text")
        value = value.strip()
        if len(value) > longest:
            raise wrong("is too long", f"shorten the text to {longest} characters")
        found = forbidden.search(value)
        if found:
            raise wrong(f"has a character that can't be printed (U+{ord(found[0]):04X})", "remove it")
        return value

    return Scalar(parse, {"type": _PLAIN_TYPES, "minLength": 1, "maxLength": longest})


def matching(pattern: re.Pattern[str], wanted: str, kinds: list[str]) -> Scalar:
    """A word that fits a pattern, which `wanted` says in words; editors may take it for one of `kinds`."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise wrong(f"{shown(value)} is no text")
        value = value.strip()
        if not pattern.fullmatch(value):
            raise wrong(f"{value[:40]!r} does not fit", f"write {wanted}")
        return value

    return Scalar(parse, {"type": kinds, "pattern": f"^({pattern.pattern})$"})


def _day(value: object) -> date:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise wrong(f"{shown(value)} is no day of the calendar") from None
    raise wrong(f"{shown(value)} is no date like 2026-01-31")


def _minute_of_day(value: object) -> int:
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise wrong(f"{shown(value)} is no time of day like 17:30", "write hours and minutes, 00:00 to 24:00")
    hours, minutes = value.split(":")
    return int(hours) * MINUTES_PER_HOUR + int(minutes)


def _truth(value: object) -> bool:
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise wrong(f"{shown(value)} is neither true nor false")


def _is_yes(value: object) -> bool:
    if _truth(value):
        return True
    raise wrong(f"{shown(value)} says nothing", "write true, or leave the field out")


_plain_text = text(MAX_TEXT).parse


def _category(value: object) -> str:
    path = str(_plain_text(value)).strip("/")
    if not path or "" in (part.strip() for part in path.split("/")):
        raise wrong(f"{shown(value)} is no category path like grocery/frozen")
    return path


def _coupon_code(value: object) -> str:
    code = scanned_code(str(_short_text(value)).upper())  # as coupons are compared when they are presented
    if not code:
        raise wrong(f"{shown(value)} is no coupon code", "write letters and digits")
    if len(code) > MAX_CODE:
        raise wrong("is too long", f"a code has at most {MAX_CODE} characters")
    return code


_short_text = text(MAX_CODE).parse

Number = Annotated[Decimal, decimals()]
Positive = Annotated[Decimal, decimals(above=0)]
Percent = Annotated[Decimal, decimals(at_most=100)]
"""0 to 100."""
Off = Annotated[Decimal, decimals(above=0, at_most=100)]
"""A percent off: more than nothing, at most everything."""
Rate = Annotated[Decimal, decimals(above=0, at_most=1000)]
"""A percent or factor of points."""
Whole = Annotated[int, wholes()]
Count = Annotated[int, wholes(at_least=1)]
Day = Annotated[date, Scalar(_day, {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})]
Minute = Annotated[int, Scalar(_minute_of_day, {"type": "string", "pattern": f"^({_CLOCK.pattern})$"})]
Truth = Annotated[bool, Scalar(_truth, {"enum": [True, False, *_WORDS]})]
Yes = Annotated[bool, Scalar(_is_yes, {"enum": [True, "true", "yes"]})]
Text = Annotated[str, text()]
Label = Annotated[str, text(MAX_CODE)]
"""A name that other systems give: of a store, a segment, a tag."""
MESSAGE = text(MAX_MESSAGE, lines=True)
MessageWords = Annotated[str, MESSAGE]
Code = Annotated[str, matching(_CODE, "small letters, digits, . _ - (at most 64)", ["string", "number"])]
Name = Annotated[str, matching(_NAME, "letters, digits, . _ - (at most 64)", ["string", "number"])]
Currency = Annotated[str, matching(_CURRENCY, "3 capital letters", ["string"])]
LANGUAGE = matching(_LANGUAGE, "a language tag like uk, en or kk-Cyrl", ["string", "boolean"])
Language = Annotated[str, LANGUAGE]
CardPrefix = Annotated[str, matching(_BIN, "the first digits of a card number, at most 8", ["string", "integer"])]
CouponCode = Annotated[str, Scalar(_coupon_code, {"type": _PLAIN_TYPES, "minLength": 1, "maxLength": MAX_CODE})]
Category = Annotated[str, Scalar(_category, {"type": _PLAIN_TYPES, "minLength": 1, "maxLength": MAX_TEXT})]


class OneOrMore:
    """Lets a single word stand where a list is expected."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's own signature
        """Wrap a word into a list."""
        return core_schema.no_info_before_validator_function(
            lambda value: [value] if isinstance(value, str) else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Allow one item, or the list."""
        many = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [many["items"], many]}


def _one_or_more(longest: int) -> Any:  # noqa: ANN401 - what Field returns
    return Field(min_length=1, max_length=longest)


Words = Annotated[list[Text], _one_or_more(MAX_GOODS), OneOrMore()]
Categories = Annotated[list[Category], _one_or_more(MAX_GOODS), OneOrMore()]
Labels = Annotated[list[Label], _one_or_more(10_000), OneOrMore()]
Codes = Annotated[list[Code], _one_or_more(1000), OneOrMore()]
Names = Annotated[list[Name], _one_or_more(1000), OneOrMore()]
CardPrefixes = Annotated[list[CardPrefix], _one_or_more(1000), OneOrMore()]
CouponCodes = Annotated[list[CouponCode], _one_or_more(10_000), OneOrMore()]
