"""What a backtest found, for people and for programs."""

from __future__ import annotations

from typing import Any

import rich.box
from rich.markup import escape
from rich.table import Table as RichTable

from ledger.finance.table import Column, Table, Value
from server.commands.programme.shown import decimals, money_text, points_text
from server.promotions import Programme
from server.rules.backtest.tally import Cost, Different, PromotionCost, Tally

_NONE = PromotionCost()


def promotion_table(tally: Tally, programme: Programme) -> Table:
    """Return a row a promotion: what it gives under both."""
    money, points = programme.currency_digits, programme.point.precision
    has_further = any(
        cost.further_points_minor for side in (tally.live_promotions, tally.draft_promotions) for cost in side.values()
    )
    columns = [Column("promotion_id", "promotion", "text")]
    for side, title in (("live", "now"), ("draft", "draft")):
        columns += [
            Column(f"{side}_receipts", f"receipts {title}", "integer"),
            Column(f"{side}_discount", f"discount {title}", "money", money),
            Column(f"{side}_points", f"points {title}", "points", points),
        ]
        if has_further:
            columns.append(Column(f"{side}_further_points_minor", f"other units {title}", "integer"))
    shown = 4 if has_further else 3
    names = sorted(
        tally.live_promotions.keys() | tally.draft_promotions.keys(),
        key=lambda name: (-_change(tally, name), name),
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (name, *tally.live_promotions.get(name, _NONE)[:shown], *tally.draft_promotions.get(name, _NONE)[:shown])
        for name in names
    )
    return Table("By promotion", tuple(columns), rows)


def _change(tally: Tally, name: str) -> int:
    before, after = tally.live_promotions.get(name, _NONE), tally.draft_promotions.get(name, _NONE)
    costs = [Cost(one.discount_minor, one.points_minor) for one in (before, after)]
    return abs(tally.value_minor(costs[1]) - tally.value_minor(costs[0]))


def summary_table(tally: Tally, programme: Programme) -> RichTable:
    """Show the cost of both, and the difference."""
    table = RichTable("", title="Cost", box=rich.box.SIMPLE_HEAD, title_justify="left")
    sides = [("now", tally.live), ("draft", tally.draft)]
    if any(tally.booked):
        sides.insert(0, ("as booked", tally.booked))
    for title in (*(name for name, _ in sides), "change"):
        table.add_column(title, justify="right")
    money, points = programme.currency_digits, programme.point.precision
    rows = (
        (f"discounts, {programme.currency}", [cost.discount_minor for _, cost in sides], money),
        (f"points, {programme.point.unit}", [cost.points_minor for _, cost in sides], points),
        (f"both, {programme.currency}", [tally.value_minor(cost) for _, cost in sides], money),
    )
    for title, figures, digits in rows:
        change = decimals(figures[-1] - figures[-2], digits)
        table.add_row(escape(title), *(decimals(figure, digits) for figure in figures), change)
    return table


def summary_lines(tally: Tally, seconds: float) -> list[str]:
    """Say how much was looked at, and how much of it differs."""
    share = f"{100 * tally.affected / tally.receipts:.1f} %" if tally.receipts else "none"
    speed = f"{tally.receipts / max(seconds, 1e-3):,.0f} receipts/s"
    whom = f"{len(tally.members):,} members, {len(tally.skus):,} articles"
    lines = [
        f"{tally.receipts:,} receipts, {tally.with_member:,} of them of members; {speed}.",
        f"Affected: {tally.affected:,} receipts ({share}), {whom}.",
    ]
    lines += [
        f"Mended since: {number:,} {'receipt counts' if number == 1 else 'receipts count'} as booked, otherwise than "
        f"today ({kinds})."
        for kinds, number in sorted(tally.mended.items())
    ]
    lines += [f"Left out: {number:,} receipts: {why}." for why, number in sorted(tally.left_out.items())]
    return lines


def top_table(tally: Tally, programme: Programme, number: int) -> RichTable:
    """Show the receipts that differ most."""
    table = RichTable("receipt", title="Greatest differences", box=rich.box.SIMPLE_HEAD, title_justify="left")
    for title in ("discount now", "draft", "points now", "draft"):
        table.add_column(title, justify="right")
    money, points = programme.currency_digits, programme.point.precision
    for one in _greatest(tally, number):
        discounts = (decimals(cost.discount_minor, money) for cost in (one.live, one.draft))
        granted = (decimals(cost.points_minor, points) for cost in (one.live, one.draft))
        table.add_row(escape(one.name), *discounts, *granted)
    return table


def _greatest(tally: Tally, number: int) -> list[Different]:
    return sorted(tally.top, key=lambda one: (-one.weight, one.name))[:number]


def as_json(tally: Tally, programme: Programme, seconds: float, number: int) -> dict[str, Any]:
    """Return everything as plain data; money and points in minor units."""
    sides = {"booked": tally.booked, "live": tally.live, "draft": tally.draft}
    promotions = {
        name: {
            "live": tally.live_promotions.get(name, _NONE)._asdict(),
            "draft": tally.draft_promotions.get(name, _NONE)._asdict(),
        }
        for name in sorted(tally.live_promotions.keys() | tally.draft_promotions.keys())
    }
    return {
        "programme": programme.code,
        "currency": programme.currency,
        "unit": programme.point.unit,
        "receipts": tally.receipts,
        "receipts_with_member": tally.with_member,
        "left_out": dict(tally.left_out),
        "older_semantics": tally.old,
        "mended": dict(tally.mended),
        "affected": {"receipts": tally.affected, "members": len(tally.members), "skus": len(tally.skus)},
        "cost": {name: {**cost._asdict(), "value_minor": tally.value_minor(cost)} for name, cost in sides.items()},
        "promotions": promotions,
        "top": [
            {"receipt": one.name, "live": one.live._asdict(), "draft": one.draft._asdict()}
            for one in _greatest(tally, number)
        ],
        "seconds": round(seconds, 3),
        "receipts_per_second": round(tally.receipts / max(seconds, 1e-3), 1),
    }


def headline(tally: Tally, programme: Programme) -> str:
    """Say in a sentence what the draft would have cost more or less."""
    discount = tally.draft.discount_minor - tally.live.discount_minor
    points = tally.draft.points_minor - tally.live.points_minor
    if not discount and not points:
        return "The draft costs the same."
    words = [
        f"{'more' if minor > 0 else 'less'} {what}: {text}"
        for minor, what, text in (
            (discount, "discounts", money_text(abs(discount), programme)),
            (points, "points", points_text(abs(points), programme)),
        )
        if minor
    ]
    return f"The draft gives {', '.join(words)}."
