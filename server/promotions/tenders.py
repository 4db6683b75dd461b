"""How a receipt was paid, as far as it pays for the goods: what is handed over beyond that is change."""

from __future__ import annotations

from collections.abc import Sequence

from server.promotions.facts import ReceiptFacts, TenderFact
from server.promotions.kinds import TenderKind


def with_points_paid(receipt: ReceiptFacts, points_money_minor: int) -> ReceiptFacts:
    """The receipt with the one tender in points that was really paid, whatever the register tendered.

    A receipt that says nothing of its tenders goes on saying nothing.
    """
    if not receipt.tenders:
        return receipt
    money = tuple([tender for tender in receipt.tenders if tender.kind is not TenderKind.POINTS])
    if points_money_minor:
        return receipt._replace(tenders=(*money, TenderFact(TenderKind.POINTS, points_money_minor)))
    # With no money named either, how it was paid is still not said.
    return receipt if len(money) == len(receipt.tenders) else receipt._replace(tenders=money)


def counted_tenders(tenders: Sequence[TenderFact], due_minor: int) -> list[TenderFact]:
    """The tenders with what each pays of the money due, points included; the same in any order of kinds.

    Points come first, then what gives no change, then cash: a 500.00 note for 300.00 pays 300.00.
    """
    counted = []
    left_minor = max(due_minor, 0)
    for tender in sorted(tenders, key=_gives_change):
        paid_minor = min(tender.amount_minor, left_minor)
        left_minor -= paid_minor
        counted.append(tender._replace(amount_minor=paid_minor))
    return counted


def _gives_change(tender: TenderFact) -> int:
    return (TenderKind.POINTS, TenderKind.CARD, TenderKind.OTHER, TenderKind.CASH).index(tender.kind)
