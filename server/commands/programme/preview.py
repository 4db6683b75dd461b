"""`tallypoint rules preview`: what a draft makes of a receipt in a file, without a server."""

from __future__ import annotations

import json
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

import rich.box
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.commands.common import fail, read_text
from server.commands.output.terminal import report_console
from server.commands.programme.shown import decimals, money_text, points_text, promotion_lines
from server.promotions import Effects, Programme, ReceiptError, compile_rules, load_programme, quote
from server.rules.control import Group, memberships, with_group
from server.rules.explaining import promotion_explanations
from server.rules.preview import Preview, PreviewError, read_preview

EXIT_FILE_WRONG: Final = 1
DRAFT_VERSION: Final = 0


def add_to(app: typer.Typer) -> None:
    """Mount the command."""
    app.command()(preview)


def preview(
    file: Annotated[Path, typer.Argument(help="A programme file.", exists=True, dir_okay=False)],
    receipt: Annotated[
        Path, typer.Option(help="The receipt, with member and store (YAML or JSON).", exists=True, dir_okay=False)
    ],
    group: Annotated[
        Group | None,
        typer.Option(help="Put the shopper into every control group, or into none; else the member's id decides."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show promotions for other goods and days too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a draft makes of one receipt, and why. Nothing is sent anywhere."""
    loaded = _draft(file)
    try:
        case = read_preview(read_text(receipt))
        chosen = group or case.group
        programme = loaded if chosen is None else with_group(loaded, chosen)
        rules = compile_rules(programme, DRAFT_VERSION)
        effects = quote(rules, case.receipt, case.member, case.spend_points_minor, case.usage)
    except (PreviewError, ReceiptError) as error:
        raise fail(f"{receipt}: {error}") from None
    if case.currency_code != loaded.currency:
        raise fail(f"{receipt}: the receipt is in {case.currency_code or 'no currency'}, not {loaded.currency}")
    explained = promotion_explanations(rules, case.receipt, case.member, case.usage)
    groups = _groups(loaded, case, chosen)
    if as_json:
        typer.echo(json.dumps({**plain(effects), "control_groups": groups}, indent=1, ensure_ascii=False))
        return
    _show(case, effects, programme)
    console = Console(highlight=False)
    for line in groups:
        console.print(line, markup=False, soft_wrap=True)
    for text, style in promotion_lines(explained, programme, every=every):
        console.print(text, markup=False, soft_wrap=True, style=style)


def _draft(file: Path) -> Programme:
    """Return the programme of a file; its mistakes are printed and end the command."""
    loaded = load_programme(file.read_bytes(), str(file))
    if not isinstance(loaded, list):
        return loaded
    errors = Console(stderr=True, highlight=False)
    for error in loaded:
        errors.print(str(error), markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_FILE_WRONG)


def _groups(programme: Programme, case: Preview, chosen: Group | None) -> list[str]:
    """Say in which control groups the shopper is, by the member's id or as chosen; nothing where there are none."""
    if case.member is None:
        return []
    found = memberships(programme, case.member.member_id)
    if chosen is None:
        return [f"{one} (--group chooses)" if one.is_in else str(one) for one in found]
    return [str(one._replace(is_in=chosen is Group.CONTROL)) + ", as chosen" for one in found]


def _show(case: Preview, effects: Effects, programme: Programme) -> None:
    console = report_console()
    table = Table("line", "article", box=rich.box.SIMPLE_HEAD)
    for title in ("list price", "discount", "to pay", "points"):
        table.add_column(title, justify="right")
    digits, precision = programme.currency_digits, programme.point.precision
    lines = {line.line_number: line for line in case.receipt.lines}
    for line in effects.lines:
        points = sum(accrual.points_minor for accrual in line.accruals if not accrual.unit)
        bought = lines[line.line_number]
        off = sum(discount.amount_minor for discount in line.discounts)
        figures = (decimals(amount, digits) for amount in (bought.list_amount_minor, off, line.payable_minor))
        table.add_row(str(line.line_number), escape(bought.sku), *figures, decimals(points, precision))
    console.print(table)
    console.print(
        f"{money_text(effects.payable_minor, programme)} to pay after {money_text(effects.discount_minor, programme)} "
        f"of discounts; {points_text(effects.accrual_points_minor, programme)} earned; at most "
        f"{points_text(effects.max_spend_points_minor, programme)} can pay",
        markup=False,
        soft_wrap=True,
    )
    for message in effects.messages:
        console.print(f"{message.audience.value}: {message.text}", markup=False, soft_wrap=True, style="dim")


def plain(value: Any) -> Any:  # noqa: ANN401 - any part of effects
    """Return effects as plain data for JSON: named tuples by their fields, dates and enumerations as text."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(part) for name, part in zip(value._fields, value, strict=True)}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, frozenset):
        return sorted(plain(part) for part in value)
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, Fraction) else value.isoformat()
