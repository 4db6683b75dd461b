"""Breaks in the words of a finance clerk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.reconciliation.compare import REGISTER
from server.reconciliation.model import Break, BreakKind, Measure
from server.reconciliation.receipt_numbers import text_of

NAMES: Final[Mapping[Measure, str]] = {measure: measure.name.lower() for measure in Measure}
MAX_NUMBERS_LENGTH: Final = 200


def describe(what: Break) -> str:
    """Return a break as a sentence, without amounts: they stand beside it."""
    sentence = _SENTENCES[what.kind](what)
    return f"{sentence}; {what.detail}" if what.detail else sentence


def numbers_text(what: Break) -> str:
    """Return the numbers, cut off where nobody reads on."""
    text = text_of(what.numbers, ", ")
    if len(text) <= MAX_NUMBERS_LENGTH:
        return text
    return text[:MAX_NUMBERS_LENGTH].rpartition(",")[0] + ", ..."


def _missing(what: Break) -> str:
    which = f": {numbers_text(what)}" if what.numbers else ""
    return f"the ledger lacks {_receipts(what)}{which}"


def _extra(what: Break) -> str:
    which = f": {numbers_text(what)}" if what.numbers else ""
    return f"the ledger has {_receipts(what)} that the register does not know{which}"


def _doubled_text(what: Break) -> str:
    return f"receipt {numbers_text(what)} stands more than once"


def _different(what: Break) -> str:
    names = ", ".join(NAMES[figure.measure].replace("_", " ") for figure in what.figures)
    if what.subject == REGISTER:
        return f"the register contradicts itself: {names}"
    if what.numbers:
        return f"receipt {numbers_text(what)} has other figures: {names}"
    return f"the day has other totals: {names}"


def _late_text(what: Break) -> str:
    return f"{_receipts(what)} came late: {numbers_text(what)}"


def _gap(what: Break) -> str:
    return f"nothing is known of number{'' if what.receipt_count == 1 else 's'} {numbers_text(what)}"


def _no_report(what: Break) -> str:
    return f"no Z report came, and the ledger has {_receipts(what)}: {numbers_text(what)}"


def _receipts(what: Break) -> str:
    return "1 receipt" if what.receipt_count == 1 else f"{what.receipt_count:,} receipts"


_SENTENCES: Final = {
    BreakKind.MISSING: _missing,
    BreakKind.EXTRA: _extra,
    BreakKind.DOUBLED: _doubled_text,
    BreakKind.DIFFERENT: _different,
    BreakKind.LATE: _late_text,
    BreakKind.GAP: _gap,
    BreakKind.NO_REPORT: _no_report,
}
