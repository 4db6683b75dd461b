"""Breaks in words, and the examples of the clerk's guide."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from server.commands.reconcile_files import Decimals, open_file
from server.reconciliation.model import Break, BreakKind, BreakState, Figure, Measure
from server.reconciliation.receipt_numbers import parse
from server.reconciliation.wording import describe
from tests.unit.reconciliation.builders import PLACE

GUIDE = Path(__file__).parents[3] / "docs" / "reconciliation.md"
TURNOVER = (Figure(Measure.TURNOVER, 5, 4), Figure(Measure.POINTS_EARNED, 2, 1))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (Break(PLACE, BreakKind.MISSING, "", 1, parse("4")), "the ledger lacks 1 receipt: 4"),
        (
            Break(PLACE, BreakKind.MISSING, "", 1200, (), (), "among the numbers 1, 9"),
            "the ledger lacks 1,200 receipts; among the numbers 1, 9",
        ),
        (
            Break(PLACE, BreakKind.EXTRA, "", 2, parse("7-8")),
            "the ledger has 2 receipts that the register does not know: 7-8",
        ),
        (Break(PLACE, BreakKind.DOUBLED, "3", 1, parse("3"), (), "why"), "receipt 3 stands more than once; why"),
        (
            Break(PLACE, BreakKind.DIFFERENT, "", 5, (), TURNOVER),
            "the day has other totals: turnover, points earned",
        ),
        (
            Break(PLACE, BreakKind.DIFFERENT, "3", 1, parse("3"), TURNOVER),
            "receipt 3 has other figures: turnover, points earned",
        ),
        (
            Break(PLACE, BreakKind.DIFFERENT, "register", 5, (), TURNOVER),
            "the register contradicts itself: turnover, points earned",
        ),
        (Break(PLACE, BreakKind.LATE, "", 2, parse("1 5")), "2 receipts came late: 1, 5"),
        (Break(PLACE, BreakKind.GAP, "3", 1, parse("3")), "nothing is known of number 3"),
        (Break(PLACE, BreakKind.GAP, "3-4", 2, parse("3-4")), "nothing is known of numbers 3-4"),
        (
            Break(PLACE, BreakKind.NO_REPORT, "", 2, parse("1-2")),
            "no Z report came, and the ledger has 2 receipts: 1-2",
        ),
    ],
)
def test_sentence(what: Break, text: str) -> None:
    assert describe(what) == text


def test_long_lists_of_numbers_are_cut_at_a_number() -> None:
    text = describe(Break(PLACE, BreakKind.LATE, "", 500, parse(" ".join(map(str, range(1, 1000, 2))))))
    assert len(text) < 250
    assert re.search(r", \d+, \.\.\.$", text)


def test_examples_of_the_guide_can_be_loaded(tmp_path: Path) -> None:
    blocks = re.findall(r"```csv\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        file = tmp_path / "example.csv"
        file.write_text(block, encoding="utf-8")
        rows = list(open_file(file).rows(Decimals(money=2, points=2), date(2026, 12, 31)))
        assert len(rows) == 3
        assert not [row for row in rows if isinstance(row, list)]


@pytest.mark.parametrize("name", [*BreakKind.__members__, *BreakState.__members__])
def test_guide_tells_of_every_kind_and_state(name: str) -> None:
    assert name.lower().replace("_", " ") in GUIDE.read_text(encoding="utf-8").replace("_", " ")
