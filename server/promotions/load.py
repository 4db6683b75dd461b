"""YAML text -> Programme, or every fault of it at once, each with its line, column, field and a hint.

Reading goes in three stages: the text (yaml_text), each field by itself (schema), and what concerns several
fields (here). Faults of one stage don't hide those of another part of the file.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.promotions.model import (
    AS_CHARGED_ID,
    BASE_ID,
    AllOf,
    AmountOff,
    AnyOf,
    Base,
    BasketDiscount,
    BirthdayWindow,
    Condition,
    Earning,
    Exclusions,
    Expiry,
    FixedPrice,
    LineDiscount,
    LotTerms,
    Message,
    NotThat,
    Offline,
    OfflineAction,
    PercentOff,
    Points,
    PointsFixed,
    PointsKind,
    PointsMultiplier,
    PointsPercent,
    PointUnit,
    Programme,
    Promotion,
    ReceiptTotal,
    Returns,
    ScopeTotal,
    Selector,
    Spending,
)
from server.promotions.schema import (
    BasketDiscountSection,
    EarningSection,
    ExpirySection,
    GoodsSection,
    LineDiscountSection,
    PointSection,
    PointsSection,
    ProgrammeSection,
    PromotionSection,
    ReturnsSection,
    ScopeSection,
    SpendingSection,
    TotalSection,
    WhenSection,
)
from server.promotions.yaml_text import Document, Path, Plain, read_yaml

CURRENCY_DIGITS = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals of the currencies (ISO 4217) that don't have two."""
DEFAULT_CURRENCY_DIGITS = 2
RESERVED_IDS = {BASE_ID, AS_CHARGED_ID}
MAX_ERRORS = 500
PERCENT = 100

_PLAIN_WORDS = {
    "missing": ("is missing", "add it"),
    "model_type": ("has to be a mapping of fields", "write `field: value` lines below it, indented"),
    "dict_type": ("has to be a mapping", "write `audience: text` lines below it, indented"),
    "list_type": ("has to be a list", "write one `- item` a line below it"),
    "too_short": ("is empty", "name something, or leave the field out"),
    "too_long": ("has too many entries", "split the programme"),
    "string_too_long": ("is too long", "shorten the text"),
    "string_type": ("is no text", "write a word or a sentence"),
}


@dataclass(frozen=True, slots=True)
class ProgrammeError:
    """One fault of a programme file. Lines and columns count from 1; `field` is like promotions[2].id."""

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str

    def __str__(self) -> str:
        """One line as compilers print them, so that editors can jump to it."""
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.field + ': ' if self.field else ''}{self.message} ({self.hint})"


def load_programme(text: str | bytes, file: str = "programme.yaml") -> Programme | list[ProgrammeError]:
    """Read a programme; `file` only names it in errors. Returns all errors in file order, at most 500."""
    document = read_yaml(text)
    faults = _Faults(document)
    if document.data is not None or not document.problems:
        programme = _from_data(document.data, faults)
        if programme is not None and not faults.found and not document.problems:
            return programme
    errors = [
        ProgrammeError(file, problem.line, problem.column, _dotted(problem.path), problem.message, problem.hint)
        for problem in document.problems
    ]
    for path, message, hint in faults.found:
        line, column = _position(document, path)
        errors.append(ProgrammeError(file, line, column, _dotted(path), message, hint))
    return sorted(set(errors), key=lambda e: (e.line, e.column, e.field, e.message))[:MAX_ERRORS]


def _position(document: Document, path: Path) -> tuple[int, int]:
    """The place of a field, or of the nearest part around it that the text has."""
    while path and path not in document.positions:
        path = path[:-1]
    return document.positions.get(path, (1, 1))


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


@dataclass(slots=True)
class _Faults:
    """Collects faults by path."""

    document: Document
    found: list[tuple[Path, str, str]] = field(default_factory=list)

    def add(self, path: Path, message: str, hint: str) -> None:
        self.found.append((path, message, hint))


# --- each field by itself ---------------------------------------------------------------------------------

_M = TypeVar("_M", bound=BaseModel)


def _from_data(data: Plain, faults: _Faults) -> Programme | None:
    if not isinstance(data, dict):
        faults.add((), "the file has to be a mapping of fields", "begin with `programme: a-code`")
        return None
    whole = _validated(ProgrammeSection, data, (), faults)
    _check_ids(data.get("promotions"), faults)
    if whole is not None:
        return _Builder(whole.currency, whole.point, faults).programme(whole)
    _build_parts(data, faults)
    return None


def _build_parts(data: dict[str, Plain], faults: _Faults) -> None:
    """Look for faults between fields in those sections that are sound by themselves."""
    unheard = _Faults(faults.document)
    currency, raw = data.get("currency"), data.get("promotions")
    point = _validated(PointSection, data.get("point"), ("point",), unheard)
    builder = _Builder(currency if isinstance(currency, str) else "", point, faults)
    earning = _validated(EarningSection, data.get("earning", {}), ("earning",), unheard)
    if earning is not None:
        builder.earning(earning)
    spending = _validated(SpendingSection, data.get("spending", {}), ("spending",), unheard)
    if spending is not None and point is not None:
        builder.spending(spending)
    sections: dict[int, PromotionSection] = {}
    for number, item in enumerate(raw if isinstance(raw, list) else []):
        section = _validated(PromotionSection, item, ("promotions", number), unheard)
        if section is not None:
            sections[number] = section
            builder.promotion(section, ("promotions", number))
    builder.check_groups(sections, earning.base_group if earning else None)


def _validated(model: type[_M], data: Plain, path: Path, faults: _Faults) -> _M | None:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=True):
            location = tuple(step for step in detail["loc"] if step != "[key]")
            _add_detail(model, path, location, detail, faults)
        return None


def _add_detail(model: type[BaseModel], path: Path, location: Path, detail: ErrorDetails, faults: _Faults) -> None:
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        name = str(location[-1])
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"
        faults.add(path + location, f"`{name[:40]}` is no field known here", hint)
    elif kind == "programme_value":
        faults.add(path + location, str(detail["msg"]), "correct the value")
    elif kind in _PLAIN_WORDS:
        faults.add(path + location, *_PLAIN_WORDS[kind])
    elif kind in {"enum", "literal_error"}:
        _add_choice(path + location, detail, faults)
    elif kind == "string_pattern_mismatch":
        wanted = "3 capital letters" if location[-1] == "currency" else "small letters, digits, . _ - (at most 64)"
        faults.add(path + location, f"{detail['input']!r:.60} does not fit", f"write {wanted}")
    else:
        faults.add(path + location, str(detail["msg"]).removeprefix("Input "), "correct the value")


def _add_choice(path: Path, detail: ErrorDetails, faults: _Faults) -> None:
    choices = str(detail["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
    given = str(detail["input"])
    close = difflib.get_close_matches(given, choices, n=1)
    hint = f"did you mean `{close[0]}`?" if close else "use one of these"
    faults.add(path, f"`{given[:40]}` is none of {', '.join(choices)}", hint)


def _fields_at(model: type[BaseModel], location: Path) -> list[str]:
    """Names of the fields that the schema has at a location."""
    current = model
    for step in location:
        if isinstance(step, int):
            continue
        found = {info.alias or name: info.annotation for name, info in current.model_fields.items()}.get(step)
        current = next(_models_in(found), current)
    return [info.alias or name for name, info in current.model_fields.items()]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _check_ids(promotions: Plain, faults: _Faults) -> None:
    seen: dict[str, int] = {}
    for number, item in enumerate(promotions if isinstance(promotions, list) else []):
        code = item.get("id") if isinstance(item, dict) else None
        if not isinstance(code, str):
            continue
        path: Path = ("promotions", number, "id")
        if code in seen:
            line, _ = _position(faults.document, ("promotions", seen[code], "id"))
            faults.add(path, f"promotion `{code}` is defined twice, first in line {line}", "rename one of them")
        seen.setdefault(code, number)
        if code in RESERVED_IDS:
            faults.add(path, f"`{code}` is reserved", "choose another id")


# --- several fields together ------------------------------------------------------------------------------


class _Builder:
    """Turns sound sections into the programme's dataclasses and notes what doesn't fit together."""

    def __init__(self, currency: str, point: PointSection | None, faults: _Faults) -> None:
        self._currency = currency
        self._digits = CURRENCY_DIGITS.get(currency, DEFAULT_CURRENCY_DIGITS)
        self._point = point
        self._precision = point.precision if point else 2
        self._faults = faults

    def programme(self, section: ProgrammeSection) -> Programme:
        offline = {name: OfflineAction(value) for name, value in section.offline}
        built = Programme(
            code=section.programme,
            name=section.name,
            effective_from=section.effective_from,
            currency=section.currency,
            currency_digits=self._digits,
            point=PointUnit(section.point.unit, self._precision, self._money_per_points()),
            earning=self.earning(section.earning),
            spending=self.spending(section.spending),
            returns=_returns(section.returns),
            exclusions=Exclusions(
                *(
                    self.goods(getattr(section.exclusions, name), ("exclusions", name))
                    for name in ("no_earning", "no_discount", "no_points_payment")
                )
            ),
            offline=Offline(**offline),
            promotions=tuple(
                self.promotion(promotion, ("promotions", number)) for number, promotion in enumerate(section.promotions)
            ),
        )
        self.check_groups(dict(enumerate(section.promotions)), section.earning.base_group)
        return built

    def _minor(self, value: Decimal | None, digits: int, path: Path, what: str) -> int | None:
        if value is None:
            return None
        minor = value.scaleb(digits)
        if minor != minor.to_integral_value():
            message = f"{value} has more decimals than {what} has ({digits})"
            self._faults.add(path, message, f"use at most {digits} decimals")
        return int(minor)

    def _money(self, value: Decimal | None, path: Path) -> int | None:
        return self._minor(value, self._digits, path, self._currency or "the currency")

    def _points(self, value: Decimal | None, path: Path) -> int | None:
        return self._minor(value, self._precision, path, "a point")

    def _money_per_points(self) -> Fraction:
        pays = self._point.pays if self._point else Decimal(1)
        return Fraction(pays) * Fraction(10**self._digits, 10**self._precision)

    def earning(self, section: EarningSection) -> Earning:
        return Earning(
            base_share=_share(section.base_percent),
            base_group=section.base_group,
            rounding=section.rounding,
            earn_on_points_paid=section.earn_on_points_paid,
            terms=LotTerms(section.pending_days, self._expiry(section.expiry, ("earning", "expiry"))),
        )

    def spending(self, section: SpendingSection) -> Spending:
        path: Path = ("spending", "step_points")
        per_points = self._money_per_points()
        step_points = self._points(section.step_points, path)
        if step_points is None:
            step_points = per_points.denominator
        step_money = per_points * step_points
        if step_money.denominator != 1:
            least = Decimal(per_points.denominator).scaleb(-self._precision)
            message = f"a step of {section.step_points} points does not pay a whole number of minor units"
            self._faults.add(path, message, f"use a multiple of {least:f}, or leave it out")
        return Spending(
            max_share=_share(section.max_share_percent),
            step_points_minor=step_points,
            step_money_minor=int(step_money),
            keep_one_minor_unit=section.keep_one_minor_unit,
            respect_price_floor=section.respect_price_floor,
            hold_ttl_seconds=section.hold_ttl_seconds,
        )

    def goods(self, section: GoodsSection | None, path: Path) -> Selector | None:
        """A selector of goods; None stays None."""
        if section is None:
            return None
        given = [name for name in ("skus", "categories", "brands", "tags") if getattr(section, name)]
        match_all, but_not = False, None
        if isinstance(section, ScopeSection):
            but_not = self.goods(section.but_not, (*path, "except"))
            match_all = section.match == "all"
            if len(given) > 1 and section.match is None:
                self._faults.add(
                    path,
                    f"has {' and '.join(given)}, but doesn't say how they combine",
                    "add `match: all` (every list has to fit) or `match: any`",
                )
        if not given and but_not is None:
            self._faults.add(path, "names no goods", "leave it out, or give skus, categories, brands or tags")
        return Selector(
            skus=frozenset(section.skus or ()),
            categories=frozenset(section.categories or ()),
            brands=frozenset(section.brands or ()),
            tags=frozenset(section.tags or ()),
            match_all=match_all,
            but_not=but_not,
        )

    def _expiry(self, section: ExpirySection | None, path: Path) -> Expiry | None:
        if section is None:
            return None
        has_duration = section.after_months is not None or section.after_days is not None
        if (section.on is not None) == has_duration:
            self._faults.add(path, "needs either `on`, or `after_months` / `after_days`", "give one of them")
        if section.on is not None and section.round_up_to is not None:
            self._faults.add((*path, "round_up_to"), "a fixed day is not rounded", "remove it")
        return Expiry(section.on, section.after_months or 0, section.after_days or 0, section.round_up_to)

    def promotion(self, section: PromotionSection, path: Path) -> Promotion:
        """One promotion; `path` is where it stands."""
        first, last = section.valid.first, section.valid.last
        if first is not None and last is not None and last < first:
            self._faults.add((*path, "valid", "until"), f"{last} is before {first}", "swap the dates")
        if not _steps(section):
            self._faults.add(path, "has no effect", "add line_discount, basket_discount or points")
        return Promotion(
            id=section.id,
            name=section.name,
            scope=self.goods(section.scope, (*path, "scope")),
            valid_from=first,
            valid_until=last,
            when=self._when(section.when, (*path, "when")),
            line_discount=self._line_discount(section.line_discount, (*path, "line_discount")),
            basket_discount=self._basket_discount(section.basket_discount, (*path, "basket_discount")),
            points=self._promotion_points(section.points, (*path, "points")),
            priority=section.priority,
            group=section.group,
            exclusive=section.exclusive,
            messages=tuple(Message(audience, section.id, text) for audience, text in _sorted_messages(section)),
        )

    def _when(self, section: WhenSection | None, path: Path) -> Condition | None:
        if section is None:
            return None
        parts: list[Condition] = []
        if section.receipt_total is not None:
            parts.append(ReceiptTotal(*self._bounds(section.receipt_total, (*path, "receipt_total"))))
        if section.scope_total is not None:
            parts.append(ScopeTotal(*self._bounds(section.scope_total, (*path, "scope_total"))))
        if section.birthday is not None:
            parts.append(BirthdayWindow(section.birthday.days_before, section.birthday.days_after))
        parts.extend(self._nested(section.every, (*path, "all")))
        if section.some is not None:
            parts.append(AnyOf(tuple(self._nested(section.some, (*path, "any")))))
        if section.no is not None:
            refused = self._when(section.no, (*path, "not"))
            parts.extend([NotThat(refused)] if refused is not None else [])
        if not parts:
            self._faults.add(path, "states no condition", "leave it out, or give one")
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _nested(self, sections: list[WhenSection] | None, path: Path) -> list[Condition]:
        built = [self._when(section, (*path, number)) for number, section in enumerate(sections or [])]
        return [condition for condition in built if condition is not None]

    def _bounds(self, section: TotalSection, path: Path) -> tuple[int | None, int | None]:
        at_least = self._money(section.at_least, (*path, "at_least"))
        below = self._money(section.below, (*path, "below"))
        if at_least is None and below is None:
            self._faults.add(path, "states no amount", "give at_least or below")
        if at_least is not None and below is not None and below <= at_least:
            self._faults.add((*path, "below"), "is not above at_least", "no receipt fits; correct one of them")
        return at_least, below

    def _one_of(self, section: BaseModel, names: tuple[str, ...], path: Path) -> None:
        given = [name for name in names if getattr(section, name) is not None]
        if len(given) != 1:
            said = "has " + " and ".join(given) if given else "says nothing"
            self._faults.add(path, said, f"give exactly one of {', '.join(names)}")

    def _line_discount(self, section: LineDiscountSection | None, path: Path) -> LineDiscount | None:
        if section is None:
            return None
        self._one_of(section, ("percent", "amount", "fixed_price"), path)
        if section.percent is not None:
            return LineDiscount(PercentOff(_share(section.percent)), section.base)
        if section.amount is not None:
            return LineDiscount(AmountOff(self._money(section.amount, (*path, "amount")) or 0), section.base)
        if section.base is Base.LIST:
            self._faults.add((*path, "base"), "a fixed price has no base", "remove it")
        price = self._money(section.fixed_price, (*path, "fixed_price"))
        return LineDiscount(FixedPrice(price or 0), section.base)

    def _basket_discount(self, section: BasketDiscountSection | None, path: Path) -> BasketDiscount | None:
        if section is None:
            return None
        self._one_of(section, ("percent", "amount"), path)
        if section.percent is not None:
            return BasketDiscount(PercentOff(_share(section.percent)), section.base)
        return BasketDiscount(AmountOff(self._money(section.amount, (*path, "amount")) or 0), section.base)

    def _promotion_points(self, section: PointsSection | None, path: Path) -> Points | None:
        if section is None:
            return None
        self._one_of(section, ("percent", "multiplier", "fixed"), path)
        if section.compound is not None and section.multiplier is None:
            self._faults.add((*path, "compound"), "only a multiplier compounds", "remove it")
        if section.per is not None and section.fixed is None:
            self._faults.add((*path, "per"), "belongs to `fixed`", "remove it")
        kind: PointsKind
        if section.percent is not None:
            kind = PointsPercent(_share(section.percent))
        elif section.multiplier is not None:
            kind = PointsMultiplier(Fraction(section.multiplier), bool(section.compound))
        else:
            points = self._points(section.fixed, (*path, "fixed"))
            kind = PointsFixed(points or 0, section.per or "receipt")
        if section.pending_days is None and section.expiry is None:
            return Points(kind)
        return Points(kind, LotTerms(section.pending_days or 0, self._expiry(section.expiry, (*path, "expiry"))))

    def check_groups(self, sections: dict[int, PromotionSection], base_group: str | None) -> None:
        """A group chooses among like effects, so its members must all work in the same step."""
        steps: defaultdict[str, dict[str, str]] = defaultdict(dict)
        if base_group is not None:
            steps[base_group]["points on lines"] = BASE_ID
        for number, section in sections.items():
            if section.group is None:
                continue
            path: Path = ("promotions", number, "group")
            known = steps[section.group]
            for step in _steps(section):
                known.setdefault(step, section.id)
            if len(known) > 1:
                names = " and ".join(f"{step} (`{code}`)" for step, code in known.items())
                hint = "a group chooses among promotions of one kind: split the group or the promotion"
                self._faults.add(path, f"group `{section.group}` mixes {names}", hint)
            if section.group == base_group and section.points and section.points.multiplier is not None:
                hint = "take it out of the base percent's group"
                self._faults.add(path, "a multiplier can't compete with the base percent it multiplies", hint)


def _returns(section: ReturnsSection) -> Returns:
    return Returns(section.clawback, section.expired_lots.grace_days if section.expired_lots else 0)


def _sorted_messages(section: PromotionSection) -> list[tuple[Any, str]]:
    """The messages of a promotion in a fixed order of audiences."""
    return sorted(section.messages.items(), key=lambda item: item[0].value)


def _steps(section: PromotionSection) -> list[str]:
    steps = []
    if section.line_discount is not None:
        steps.append("line discounts")
    if section.basket_discount is not None:
        steps.append("basket discounts")
    if section.points is not None:
        once = section.points.fixed is not None and section.points.per in {None, "receipt"}
        steps.append("points a receipt" if once else "points on lines")
    return steps


def _share(percent: Decimal) -> Fraction:
    return Fraction(percent) / PERCENT
