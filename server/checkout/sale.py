"""Judging a receipt: its store, the rules at its time, and its lines as the catalogue completes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

from tallypoint.v1 import common_pb2

from server.base.errors import Refused, invalid_field
from server.checkout.notices import unknown_sku_notice
from server.edge.moments import moment_of
from server.members.found import Found
from server.promotions import ReceiptError, ReceiptFacts, Rules
from server.rules.book import RulesBook
from server.rules.evidence import receipt_facts
from server.rules.receipt_lines import CatalogueLike, lines_of

T = TypeVar("T")

NO_PROGRAMME_TEXT = "The loyalty programme is not in effect. Sell without the card."


class StoresLike(Protocol):
    """The stores: their time zones, groups and partners."""

    def time_zone(self, store_id: str) -> ZoneInfo | None:
        """Return a store's time zone; None if there is no such store."""

    def groups(self, store_id: str) -> frozenset[str]:
        """Return the groups that a store belongs to."""

    def partner(self, store_id: str) -> str:
        """Return the coalition partner that runs a store; empty for the chain's own."""


class Sale(NamedTuple):
    """A receipt with all that is needed to judge it."""

    rules: Rules
    zone: ZoneInfo
    facts: ReceiptFacts
    unknown_skus: list[str]

    def shortcomings(self) -> list[common_pb2.Notice]:
        """Return notices about what the rules could not take into account."""
        return unknown_sku_notice(self.unknown_skus)


class Judge:
    """Knows stores, rules and goods."""

    def __init__(self, rules: RulesBook, catalogue: CatalogueLike, stores: StoresLike) -> None:
        """Take what a worker keeps in memory."""
        self._rules = rules
        self._catalogue = catalogue
        self._stores = stores

    def sale(
        self,
        receipt: common_pb2.Receipt,
        store_id: str,
        key: str = "receipt_key",
        *,
        terminal_id: str = "",
        found: Found | None = None,
    ) -> Sale:
        """Judge by the rules at the receipt's time, in the store's time zone; ``key`` is the field with the store.

        Which version that is may depend on the store and on who buys, while a version is being rolled out.

        Raises:
            Refused: NOT_FOUND, NO_PROGRAMME, CURRENCY_FOREIGN, or INVALID_REQUEST for lines that make no sense.
        """
        zone = self.zone(store_id, key)
        local_at = moment_of(receipt.event_at).astimezone(zone)
        rules = self.rules_at(local_at, store_id, shopper_of(found, store_id, terminal_id, local_at))
        if receipt.currency_code != rules.programme.currency:
            raise Refused(
                common_pb2.REFUSAL_REASON_CURRENCY_FOREIGN,
                f"the receipt is in {receipt.currency_code}, the programme in {rules.programme.currency}",
                violations=[("receipt.currency_code", f"must be {rules.programme.currency}")],
            )
        lines, unknown = lines_of(receipt, self._catalogue)
        groups, partner = self._stores.groups(store_id), self._stores.partner(store_id)
        facts = receipt_facts(receipt, lines, store_id, zone, store_groups=groups, partner=partner)
        return Sale(rules, zone, facts, unknown)

    def zone(self, store_id: str, key: str = "receipt_key") -> ZoneInfo:
        """Return a store's time zone; Refused NOT_FOUND if there is no such store."""
        zone = self._stores.time_zone(store_id)
        if zone is None:
            raise Refused(
                common_pb2.REFUSAL_REASON_NOT_FOUND,
                f"there is no store {store_id!r}; register it in the back office first",
                violations=[(f"{key}.store_id", "no such store")],
            )
        return zone

    def rules_at(self, local_at: datetime, store_id: str = "", shopper: str = "") -> Rules:
        """Return the rules at a moment on the store's clock; Refused NO_PROGRAMME if none are in effect."""
        rules = self._rules.at(local_at, store_id=store_id, shopper=shopper)
        if rules is None:
            raise Refused(
                common_pb2.REFUSAL_REASON_NO_PROGRAMME,
                f"no version of the programme is in effect at {local_at.isoformat()}; publish one",
                cashier_text=NO_PROGRAMME_TEXT,
            )
        return rules


def evaluated(evaluate: Callable[[], T]) -> T:
    """Run the evaluator; a receipt that makes no sense is the caller's mistake."""
    try:
        return evaluate()
    except ReceiptError as error:
        raise invalid_field(f"receipt.{error.field}", str(error)) from error


def shopper_of(found: Found | None, store_id: str, terminal_id: str, local_at: datetime) -> str:
    """Return by what a shopper's receipts of a day are drawn for a roll-out, the same in Quote and in Commit."""
    who = f"{store_id}/{terminal_id}" if found is None else str(found.member.member_id)
    return f"{who}|{local_at.date().isoformat()}"
