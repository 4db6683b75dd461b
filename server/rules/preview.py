"""A receipt in a file, for trying a draft without a server: the API's Receipt, and what is known beside it.

store_id: kyiv-1
time_zone: Europe/Kyiv
member: {birthday: 1990-05-17, segments: [parents], counters: {visit/ever: {times: 3}}}
coupons: [SUMMER26, {code: AB12, series: cakes}]
receipt:
  event_at: 2026-11-22T10:15:00Z
  currency_code: UAH
  lines:
    - {line_number: 1, sku: "4711", category: bakery/cakes, quantity_milli: 1000, list_amount_minor: 12000}
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf import json_format
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tallypoint.v1 import common_pb2

from server.edge.holdable import unholdable
from server.members.days import birthday_fault
from server.promotions import MemberFacts, ReceiptFacts, ReceiptLine
from server.promotions.facts import CounterFact, CouponFact, Usage
from server.rights.codes import normal_code
from server.rules.control import Group
from server.rules.evidence import receipt_facts


class PreviewError(ValueError):
    """A receipt file cannot be used; the text names the field and says what to do."""


class Preview(NamedTuple):
    """A receipt to try a draft on; `group` is what the file says of control groups, None for what the id gives."""

    receipt: ReceiptFacts
    member: MemberFacts | None
    usage: Usage
    spend_points_minor: int
    currency_code: str
    group: Group | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _CounterSection(_Strict):
    times: int = 0
    money_minor: int = 0
    points_minor: int = 0
    until: date | None = None


class _CouponSection(_Strict):
    code: str
    series: str = ""


class _MemberSection(_Strict):
    member_id: str = "00000000-0000-0000-0000-000000000000"
    birthday: date | None = None
    registered_on: date | None = None
    can_earn: bool = True
    can_spend: bool = True
    segments: list[str] = Field(default_factory=list)
    offers: list[str] = Field(default_factory=list)
    language: str = ""
    tier: str | None = None
    group: Group | None = None
    counters: dict[str, _CounterSection] = Field(default_factory=dict)


class _PreviewSection(_Strict):
    receipt: dict[str, Any]
    store_id: str = "preview"
    store_groups: list[str] = Field(default_factory=list)
    partner: str = ""
    time_zone: str = "UTC"
    member: _MemberSection | None = None
    coupons: list[str | _CouponSection] = Field(default_factory=list)
    shared_left: dict[str, int] = Field(default_factory=dict)
    spend_points_minor: int = Field(default=0, ge=0)


def read_preview(text: str) -> Preview:
    """Return the receipt of a file.

    Raises:
        PreviewError: a field is unknown, missing or makes no sense.
    """
    section = _section(text)
    try:
        receipt = json_format.ParseDict(_for_json(section.receipt), common_pb2.Receipt())
        zone = ZoneInfo(section.time_zone)
    except json_format.ParseError as error:
        hint = "amounts and quantities are whole numbers: 120.00 is 12000 minor units, 1.5 pieces are 1500 thousandths"
        raise PreviewError(f"receipt: {error} ({hint})") from error
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise PreviewError(f"time_zone: there is no {section.time_zone!r}") from error
    if not receipt.HasField("event_at"):
        raise PreviewError("receipt.event_at is missing: write a moment such as 2026-11-22T10:15:00Z")
    for field, fault in unholdable(receipt):
        raise PreviewError(f"receipt.{field}: {fault}")
    lines = tuple(_line(line) for line in receipt.lines if line.quantity_milli)
    coupons = tuple(
        CouponFact(normal_code(one)) if isinstance(one, str) else CouponFact(normal_code(one.code), one.series)
        for one in section.coupons
    )
    facts = receipt_facts(
        receipt,
        lines,
        section.store_id,
        zone,
        store_groups=frozenset(section.store_groups),
        partner=section.partner,
        coupons=coupons,
    )
    counters = section.member.counters if section.member else {}
    usage = Usage({key: CounterFact(**one.model_dump()) for key, one in counters.items()}, section.shared_left)
    return Preview(
        facts,
        _member(section.member, facts.local_at.date()),
        usage,
        section.spend_points_minor,
        receipt.currency_code,
        section.member.group if section.member else None,
    )


def _section(text: str) -> _PreviewSection:
    try:
        data = YAML(typ="safe", pure=True).load(text)
        if isinstance(data, dict) and "lines" in data:
            data = {"receipt": data}
        if not isinstance(data, dict):
            raise PreviewError("the file has to be a mapping of fields (begin with `receipt:`)")
        return _PreviewSection.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        raise PreviewError("; ".join(lines)) from error
    except YAMLError as error:
        raise PreviewError(f"not readable as YAML: {error}") from error


def _member(section: _MemberSection | None, today: date) -> MemberFacts | None:
    if section is None:
        return None
    fault = birthday_fault(section.birthday, today) if section.birthday else None
    if fault is not None:
        raise PreviewError(f"member.birthday: {fault}")
    return MemberFacts(
        section.member_id,
        section.birthday,
        section.can_earn,
        section.can_spend,
        section.registered_on,
        frozenset(section.segments),
        frozenset(section.offers),
        section.language,
        tier=section.tier,
    )


def _line(line: common_pb2.ReceiptLine) -> ReceiptLine:
    return ReceiptLine(
        line.line_number,
        line.sku,
        line.category,
        line.brand,
        line.supplier,
        tuple(line.tags),
        line.quantity_milli,
        line.list_amount_minor,
        line.floor_amount_minor,
        line.weighed,
    )


def _for_json(value: Any) -> Any:  # noqa: ANN401 - whatever stands in YAML
    """Return plain data as protobuf's JSON wants it: moments as text in UTC, all keys as text."""
    if isinstance(value, Mapping):
        return {str(name): _for_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_for_json(part) for part in value]
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value
