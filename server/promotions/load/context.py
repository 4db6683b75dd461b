"""What building any part of a programme needs: amounts in minor units, and the codes that the file defines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from pydantic import BaseModel

from server.promotions.effects.club import clubs_in
from server.promotions.load.faults import Faults, closest
from server.promotions.model import AS_CHARGED_ID, BASE_ID
from server.promotions.yaml_text import Path, Plain

CURRENCY_DIGITS = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals of the currencies (ISO 4217) that don't have two."""
DEFAULT_CURRENCY_DIGITS = 2
DEFAULT_PRECISION = 2
WEIGHT_DIGITS = 3
PERCENT = 100
MAX_MINOR = 10**15
"""The largest amount in minor units: sums of thousands of lines stay within 64 bits."""
WITHOUT_TIER = "none"
"""Stands in conditions for members without a level."""
RESERVED_IDS = {BASE_ID, AS_CHARGED_ID}

_OWN_UNIT = None


@dataclass(frozen=True, slots=True)
class Known:
    """Codes that the file defines, read from the raw file so that one bad section doesn't hide others.

    `precisions` are those of the further units, by code; `clubs` are joined by some promotion.
    """

    tiers: frozenset[str]
    campaigns: frozenset[str]
    partners: frozenset[str]
    precisions: dict[str, int]
    clubs: frozenset[str]
    language: str


def known_in(data: dict[str, Plain]) -> Known:
    """Collect what a file defines, as far as it can be read."""
    tiers = data.get("tiers")
    return Known(
        tiers=frozenset(_values(tiers.get("levels"), "code")) if isinstance(tiers, dict) else frozenset(),
        campaigns=frozenset(_values(data.get("campaigns"), "id")),
        partners=frozenset(_values(data.get("partners"), "code")),
        precisions={
            code: _precision(item.get("precision"))
            for item in _mappings(data.get("units"))
            if isinstance(code := item.get("unit"), str)
        },
        clubs=clubs_in(_mappings(data.get("promotions"))),
        language=language if isinstance(language := data.get("language"), str) else "",
    )


def _mappings(items: Plain) -> Iterator[dict[str, Plain]]:
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def _values(items: Plain, field: str) -> Iterator[str]:
    return (value for item in _mappings(items) if isinstance(value := item.get(field), str))


def _precision(value: Plain) -> int:
    return int(value) if isinstance(value, str) and value in {"0", "1", "2", "3", "4", "5", "6"} else DEFAULT_PRECISION


def share_of(percent: Decimal) -> Fraction:
    """A percent as an exact share: 1/10 for 10 %."""
    return Fraction(percent) / PERCENT


class Context:
    """The currency, the units and the codes of a file; notes what doesn't fit them."""

    def __init__(self, currency: str, precision: int, known: Known, faults: Faults) -> None:
        self.currency = currency
        self.digits = CURRENCY_DIGITS.get(currency, DEFAULT_CURRENCY_DIGITS)
        self.precision = precision
        self.known = known
        self.faults = faults

    def money(self, value: Decimal | None, path: Path) -> int | None:
        """Minor units of money."""
        return self._minor(value, self.digits, path, self.currency or "the currency")

    def points(self, value: Decimal | None, path: Path, unit: str | None = _OWN_UNIT) -> int | None:
        """Minor units of points, of the programme's own or of a further unit."""
        digits = self.precision if unit is None else self.known.precisions.get(unit, DEFAULT_PRECISION)
        return self._minor(value, digits, path, "a point" if unit is None else f"a point of `{unit}`")

    def weight(self, value: Decimal | None, path: Path) -> int | None:
        """Thousandths of a kilogram or litre."""
        return self._minor(value, WEIGHT_DIGITS, path, "a weight")

    def whole(self, value: Decimal, path: Path) -> int:
        """A number without decimals."""
        return self._minor(value, 0, path, "a count") or 0

    def _minor(self, value: Decimal | None, digits: int, path: Path, what: str) -> int | None:
        if value is None:
            return None
        minor = value.scaleb(digits)
        if minor != minor.to_integral_value():
            message = f"{value} has more decimals than {what} has ({digits})"
            self.faults.add(path, message, f"use at most {digits} decimals")
        if minor > MAX_MINOR:
            self.faults.add(path, f"{value} is too much", f"at most {Decimal(MAX_MINOR).scaleb(-digits):f}")
        return int(minor)

    def money_per_points(self, pays: Decimal, precision: int) -> Fraction:
        """Minor units of money that one minor unit of points pays."""
        return Fraction(pays) * Fraction(10**self.digits, 10**precision)

    def one_of(self, section: BaseModel, names: tuple[str, ...], path: Path) -> bool:
        """Note a fault unless exactly one of the fields is given; say whether one is."""
        given = [name for name in names if getattr(section, name) is not None]
        if len(given) != 1:
            said = "has " + " and ".join(given) if given else "says nothing"
            self.faults.add(path, said, f"give exactly one of {', '.join(names)}")
        return len(given) == 1

    def bounds(self, at_least: int | None, below: int | None, path: Path) -> None:
        """Note a fault if nothing is given, or if nothing fits."""
        if at_least is None and below is None:
            self.faults.add(path, "states no bound", "give at_least or below")
        if at_least is not None and below is not None and below <= at_least:
            self.faults.add((*path, "below"), "is not above at_least", "nothing fits; correct one of them")

    def refer(self, code: str, known: frozenset[str], path: Path, what: str, where: str) -> None:
        """Note a fault if the file does not define what it refers to."""
        if code not in known:
            message = f"there is no {what} `{code}`"
            self.faults.add(path, message, closest(code, sorted(known), f"define it {where}, or correct the name"))

    def ascending(self, thresholds: list[int], path: Path, field: str) -> None:
        """Note each threshold of a list of sections that is not above the one before."""
        for number in range(1, len(thresholds)):
            if thresholds[number] <= thresholds[number - 1]:
                hint = "order them lowest first, each once"
                self.faults.add((*path, number, field), "is not above the one before", hint)


def check_codes(data: dict[str, Plain], faults: Faults) -> None:
    """Every promotion, campaign, partner, level and unit has a code of its own."""
    tiers = data.get("tiers")
    lists: list[tuple[str, Plain, Path, str]] = [
        ("promotion", data.get("promotions"), ("promotions",), "id"),
        ("campaign", data.get("campaigns"), ("campaigns",), "id"),
        ("partner", data.get("partners"), ("partners",), "code"),
        ("unit", data.get("units"), ("units",), "unit"),
        ("level", tiers.get("levels") if isinstance(tiers, dict) else None, ("tiers", "levels"), "code"),
    ]
    point = data.get("point")
    own_unit = point.get("unit") if isinstance(point, dict) else None
    reserved: dict[str, set[Plain]] = {"promotion": {*RESERVED_IDS}, "level": {WITHOUT_TIER}, "unit": {own_unit}}
    for what, items, path, field in lists:
        _check_unique(what, items, path, field, faults)
        for number, item in enumerate(items if isinstance(items, list) else []):
            code = item.get(field) if isinstance(item, dict) else None
            if isinstance(code, str) and code in reserved.get(what, set()):
                faults.add((*path, number, field), f"`{code}` is reserved", f"choose another {field}")


def _check_unique(what: str, items: Plain, path: Path, field: str, faults: Faults) -> None:
    seen: dict[str, int] = {}
    for number, item in enumerate(items if isinstance(items, list) else []):
        code = item.get(field) if isinstance(item, dict) else None
        if not isinstance(code, str):
            continue
        if code in seen:
            line = faults.line_of((*path, seen[code], field))
            message = f"{what} `{code}` is defined twice, first in line {line}"
            faults.add((*path, number, field), message, "rename one of them")
        seen.setdefault(code, number)
