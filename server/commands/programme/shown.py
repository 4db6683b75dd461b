"""What `tallypoint rules` prints: lines and tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import rich.box
from rich.markup import escape
from rich.table import Table
from tallypoint.v1 import programme_pb2 as pb

from server.promotions import CURRENT_SEMANTICS, Programme, changed_defaults
from server.rules.difference import Difference
from server.rules.rollout import EVERYBODY

Line = tuple[str, str | None]
"""A line of text and its style."""

_PER_PERCENT = EVERYBODY // 100


def rollout_words(rollout: pb.Rollout) -> str:
    """Say for whom a version counts."""
    if rollout.mode == pb.ROLLOUT_MODE_SHADOW:
        return "nobody, compared as a shadow"
    if rollout.share_millionths >= EVERYBODY:
        return "everybody"
    if rollout.share_millionths <= 0:
        return "nobody"
    what = "stores" if rollout.by == pb.ROLLOUT_BY_STORES else "receipts"
    return f"{percent_text(rollout.share_millionths)} of {what}"


def percent_text(millionths: int) -> str:
    """Write a share in per cent without needless zeros: 125000 is 12.5 %."""
    whole, rest = divmod(millionths, _PER_PERCENT)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + " %"


def version_line(version: pb.ProgrammeVersion) -> str:
    """Say in a line what a version is."""
    return (
        f"Version {version.version} of programme {version.code}, effective from "
        f"{version.effective_at.ToJsonString()[:10]}, counts for {rollout_words(version.rollout)}{_defaults(version)}"
    )


def _defaults(version: pb.ProgrammeVersion) -> str:
    """Say of a version from before the newest semantics what it means by what its file leaves out."""
    then, now = changed_defaults(version.semantics), changed_defaults(CURRENT_SEMANTICS)
    others = [f"{field}: {value}" for field, value in then.items() if value != now[field]]
    return f", with the defaults of its time ({'; '.join(others)})" if others else ""


def version_table(versions: Iterable[pb.ProgrammeVersion]) -> Table:
    """Show versions and for whom each counts."""
    names = ("version", "effective from", "published", "counts for", "since", "defaults", "text")
    table = Table(*names, box=rich.box.SIMPLE_HEAD)
    for one in versions:
        said = one.rollout
        since = said.from_at.ToJsonString()[:16].replace("T", " ") if said.HasField("from_at") else ""
        row = (
            str(one.version),
            one.effective_at.ToJsonString()[:10],
            one.published_at.ToJsonString()[:16].replace("T", " "),
            rollout_words(said) + (", in effect now" if one.in_effect else ""),
            f"{since} {said.set_by}".strip(),
            "today's" if one.semantics == CURRENT_SEMANTICS else f"of semantics {one.semantics}",
            one.text_sha256[:8],
        )
        table.add_row(*map(escape, row), style="bold" if one.in_effect else None)
    return table


def difference_lines(found: Difference) -> Iterator[Line]:
    """Say in words what changed between two files."""
    if found.is_empty:
        yield "Nothing changed.", None
        return
    for title, items, sign, style in (
        ("Promotions added", found.added, "+", "green"),
        ("Promotions removed", found.removed, "-", "red"),
    ):
        if items:
            yield f"{title} ({len(items)}):", "bold"
            for item_id, name in items:
                yield f"  {sign} {item_id}" + (f": {name}" if name else ""), style
    if found.changed:
        yield f"Promotions changed ({len(found.changed)}):", "bold"
        for item in found.changed:
            yield f"  ~ {item.item_id}", "yellow"
            for change in item.changes:
                yield f"      {change}", None
    if found.settings:
        yield f"Settings changed ({len(found.settings)}):", "bold"
        for change in found.settings:
            yield f"  ~ {change}", None


def loss_lines(strands: Iterable[pb.StrandedPoints], losses: Iterable[str]) -> Iterator[str]:
    """Say what members lose when a file takes the place of the programme in effect."""
    for one in strands:
        yield f"This strands {one.text}: {one.reason}."
    for loss in losses:
        yield f"Members lose: {loss}."


def money_text(minor: int, programme: Programme) -> str:
    """Write money with its currency."""
    return f"{decimals(minor, programme.currency_digits)} {programme.currency}"


def points_text(minor: int, programme: Programme, unit: str = "") -> str:
    """Write points with their unit; an empty one is the programme's own."""
    point = next((one.point for one in programme.units if one.point.unit == unit), programme.point)
    return f"{decimals(minor, point.precision)} {point.unit}"


def decimals(minor: int, digits: int) -> str:
    """Write an integer of minor units in main units: 123456 with 2 digits is 1,234.56."""
    whole, rest = divmod(abs(minor), 10**digits)
    text = f"{whole:,}.{rest:0{digits}d}" if digits else f"{whole:,}"
    return f"-{text}" if minor < 0 else text


def shadow_table(version: int, rows: Sequence[pb.ShadowSums], programme: Programme) -> Table:
    """Show what a version would have changed, by day and store, with a sum below."""
    table = Table(
        "day",
        "store",
        title=f"Version {version} as a shadow: what it would have changed",
        box=rich.box.SIMPLE_HEAD,
        title_justify="left",
        show_footer=bool(rows),
    )
    titles = ("receipts", "differing", "discounts now", "shadow", "change", "points now", "shadow", "change", "failed")
    total = pb.ShadowSums(day="all")
    for row in rows:
        for field in _SUMMED:
            setattr(total, field, getattr(total, field) + getattr(row, field))
    footer = _shadow_figures(total, programme)
    table.columns[0].footer = "all"
    for title, below in zip(titles, footer, strict=True):
        table.add_column(title, justify="right", footer=below)
    for row in rows:
        table.add_row(row.day, escape(row.store_id), *_shadow_figures(row, programme))
    return table


_SUMMED = (
    "receipts",
    "differing",
    "live_discount_minor",
    "shadow_discount_minor",
    "live_points_minor",
    "shadow_points_minor",
    "failed",
)


def _shadow_figures(row: pb.ShadowSums, programme: Programme) -> tuple[str, ...]:
    money, points = programme.currency_digits, programme.point.precision
    return (
        f"{row.receipts:,}",
        f"{row.differing:,}",
        decimals(row.live_discount_minor, money),
        decimals(row.shadow_discount_minor, money),
        decimals(row.shadow_discount_minor - row.live_discount_minor, money),
        decimals(row.live_points_minor, points),
        decimals(row.shadow_points_minor, points),
        decimals(row.shadow_points_minor - row.live_points_minor, points),
        f"{row.failed:,}",
    )


def explanation_lines(response: pb.ExplainReceiptResponse, programme: Programme, *, every: bool) -> Iterator[Line]:
    """Say of a receipt what it gave, and why each promotion did or did not apply; see `promotion_lines`."""
    key = response.receipt_key
    name = f"{key.store_id}/{key.terminal_id}/{key.business_date}/{key.receipt_number}"
    place = f"entry {response.entry.book}:{response.entry.number}"
    yield f"Receipt {name}, {place}, bought {response.event_at.ToJsonString()}", "bold"
    who = f"member {response.member_id}" if response.member_id else "no member"
    yield f"{who}; programme {response.programme_code}, version {response.programme_version}", None
    discount = sum(part.amount_minor for line in response.lines for part in line.discounts)
    points = sum(part.points_minor for line in response.lines for part in line.accruals if not part.unit)
    payable = sum(line.payable_minor for line in response.lines)
    paid = f"{money_text(payable, programme)} to pay after {money_text(discount, programme)} of discounts"
    yield f"{len(response.lines)} lines, {paid}; {points_text(points, programme)} earned", None
    yield from promotion_lines(response.promotions, programme, every=every)
    for notice in response.notices:
        yield f"said: {notice.text} ({notice.promotion_id})", "dim"
    if response.mended:
        yield f"As booked under semantics {response.semantics}; today's would differ: {response.difference}", "yellow"
        one_of = "" if len(response.mended) == 1 else ", or another of these"
        for mended in response.mended:
            yield f"mended since: {mended.kind}{one_of}: {mended.text}", "yellow"
    elif response.difference:
        yield f"DIFFERENT when evaluated again: {response.difference}", "red"
    else:
        yield "Evaluated again from what is stored: the same, bit by bit.", "green"


def promotion_lines(
    promotions: Iterable[pb.PromotionExplanation], programme: Programme, *, every: bool
) -> Iterator[Line]:
    """Say why promotions did or did not apply, those that did in green; for other goods and days, only if `every`."""
    hidden = 0
    for one in promotions:
        if one.verdict in ELSEWHERE and not every:
            hidden += 1
            continue
        yield from _promotion_lines(one, programme)
    if hidden:
        yield f"  {hidden} promotions are for other goods or other days; --all shows them", "dim"


ELSEWHERE = frozenset({"no_goods_in_scope", "not_valid_yet", "no_longer_valid"})
"""Verdicts of promotions that a receipt has nothing to do with."""


def _promotion_lines(one: pb.PromotionExplanation, programme: Programme) -> Iterator[Line]:
    gains = []
    if one.discount_minor:
        gains.append(money_text(one.discount_minor, programme) + " off")
    if one.points_minor:
        gains.append(points_text(one.points_minor, programme, one.unit))
    if one.line_numbers:
        numbers = ", ".join(str(number) for number in one.line_numbers)
        gains.append(f"line{'s' if len(one.line_numbers) > 1 else ''} {numbers}")
    said = f": {', '.join(gains)}" if gains else ""
    applied = one.verdict == "applied"
    name = f" ({one.name})" if one.name else ""
    yield f"  {one.promotion_id}{name} [{one.verdict.replace('_', ' ')}]{said}", "green" if applied else None
    if one.reason and not (applied and one.reason == "it applied"):
        yield f"      {one.reason}", None
    if one.condition.parts:
        yield from _condition_lines(one.condition, "      ")


def _condition_lines(condition: pb.ConditionExplanation, indent: str) -> Iterator[Line]:
    found = f" ({condition.found})" if condition.found else ""
    yield f"{indent}{'yes' if condition.holds else 'no '} {condition.text}{found}", "dim"
    for part in condition.parts:
        yield from _condition_lines(part, indent + "    ")
