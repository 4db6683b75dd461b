"""What the rules saw of a receipt, written into its entry and read back, so that it can be explained at any time.

An entry keeps the receipt completed from the catalogue, and in `PurchaseFacts` what else promotions looked at: the
store's groups, the member's level, segments, offers and counters as they were then. No personal data is among them: of
a birthday only which of the rules' windows were open. `reexplained` evaluates an entry again, `first_difference`
holds the result against what the entry stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from google.protobuf import text_format
from tallypoint.v1 import common_pb2, journal_pb2

from server.edge.moments import moment_of
from server.promotions import Effects, MemberFacts, PaidLine, ReceiptFacts, ReceiptLine, Rules, earn_as_paid
from server.promotions.arithmetic import in_birthday_window
from server.promotions.counter_names import SHARED_PREFIX
from server.promotions.facts import CounterFact, CouponFact, TenderFact, Usage
from server.promotions.kinds import TenderKind, TerminalKind
from server.rules.effects import ROOMS
from server.rules.receipt_lines import add_line_effects, lines_of, variance_messages
from server.rules.wire import Kept

UNKNOWN_AGE: Final = -1
"""`PurchaseFacts.member_age_days` of a member whose first day is not known."""

TERMINALS: Final[Mapping[int, TerminalKind]] = {
    common_pb2.TERMINAL_KIND_LANE: TerminalKind.LANE,
    common_pb2.TERMINAL_KIND_SELF_CHECKOUT: TerminalKind.SELF_CHECKOUT,
    common_pb2.TERMINAL_KIND_ONLINE: TerminalKind.ONLINE,
}
TENDERS: Final[Mapping[int, TenderKind]] = {
    common_pb2.TENDER_KIND_CASH: TenderKind.CASH,
    common_pb2.TENDER_KIND_CARD: TenderKind.CARD,
    common_pb2.TENDER_KIND_OTHER: TenderKind.OTHER,
    common_pb2.TENDER_KIND_POINTS: TenderKind.POINTS,
}


# --- into the entry -----------------------------------------------------------------------------------------------


def receipt_facts(
    receipt: common_pb2.Receipt,
    lines: Sequence[ReceiptLine],
    store_id: str,
    zone: ZoneInfo,
    *,
    store_groups: frozenset[str] = frozenset(),
    partner: str = "",
    coupons: Sequence[CouponFact] = (),
) -> ReceiptFacts:
    """Return a register's receipt as promotions see it; `lines` are those completed from the catalogue."""
    return ReceiptFacts(
        store_id,
        moment_of(receipt.event_at).astimezone(zone),
        lines,
        store_groups,
        receipt.channel,
        TERMINALS.get(receipt.terminal_kind),
        tuple([TenderFact(TENDERS[one.kind], one.amount_minor, one.card_bin) for one in receipt.tenders]),
        coupons,
        partner,
    )


def facts_of(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    usage: Usage | None,
    effects: Effects,
    tier: str = "",
) -> journal_pb2.PurchaseFacts:
    """Return what an entry keeps of the facts that gave `effects`; `tier` is the member's level before the receipt."""
    facts = journal_pb2.PurchaseFacts(store_groups=sorted(receipt.store_groups))
    for coupon in receipt.coupons:
        facts.coupons.add(code=coupon.code, series=coupon.series)
    if usage is not None:
        _add_usage(facts, usage, effects.consulted)
    if member is not None:
        facts.MergeFrom(_message_of(_member_as_seen(rules, member, receipt.local_at.date(), tier)))
    return facts


def written_facts(
    rules: Rules,
    receipt: ReceiptFacts,
    member: MemberFacts | None,
    usage: Usage | None,
    effects: Effects,
    tier: str = "",
) -> bytes:
    """Return `facts_of` serialised: as kept, where there is no more to tell than of the store and of such a member."""
    if member is None or receipt.coupons or effects.consulted:
        return facts_of(rules, receipt, member, usage, effects, tier).SerializeToString()
    return (
        _kept_groups[receipt.store_groups]
        + _kept_members[_member_as_seen(rules, member, receipt.local_at.date(), tier)]
    )


def _add_usage(facts: journal_pb2.PurchaseFacts, usage: Usage, consulted: frozenset[str]) -> None:
    for key in sorted(consulted):
        if key.startswith(SHARED_PREFIX):
            left = usage.shared.get(key, 0 if usage.only_shared_known else None)
            if left is not None:
                facts.budgets.add(key=key, amount=left)
            continue
        counter = usage.member.get(key)
        if counter is not None:
            facts.counters.add(
                key=key,
                times=counter.times,
                money_minor=counter.money_minor,
                points_minor=counter.points_minor,
                until="" if counter.until is None else counter.until.isoformat(),
            )


class _Seen(NamedTuple):
    """What the rules saw of a member, which is the same for many of them."""

    tier: str
    segments: frozenset[str]
    offers: frozenset[str]
    age_days: int
    birthday_windows: frozenset[tuple[int, int]]
    language: str
    can_earn: bool
    can_spend: bool


def _member_as_seen(rules: Rules, member: MemberFacts, day: date, tier: str) -> _Seen:
    return _Seen(
        tier if member.tier is None else member.tier,
        member.segments & rules.segments,
        member.offers,
        age_days(member, day),
        open_windows(rules, member, day),
        member.language,
        member.can_earn,
        member.can_spend,
    )


def _message_of(seen: _Seen) -> journal_pb2.PurchaseFacts:
    return journal_pb2.PurchaseFacts(
        tier=seen.tier,
        segments=sorted(seen.segments),
        offers=sorted(seen.offers),
        member_age_days=seen.age_days,
        birthday_windows=[f"{before}:{after}" for before, after in sorted(seen.birthday_windows)],
        language=seen.language,
        can_earn=seen.can_earn,
        can_spend=seen.can_spend,
    )


_kept_groups: Final = Kept[frozenset[str]](
    lambda groups: journal_pb2.PurchaseFacts(store_groups=sorted(groups)).SerializeToString()
)
_kept_members: Final = Kept[_Seen](lambda seen: _message_of(seen).SerializeToString())


def open_windows(rules: Rules, member: MemberFacts, day: date) -> frozenset[tuple[int, int]]:
    """Return the birthday windows of the rules, as days before and after, that a member's birthday opens on a day."""
    wanted = rules.birthday_windows
    if member.birthday_windows is not None:
        return wanted & member.birthday_windows
    if member.birthday is None:
        return frozenset()
    return frozenset(window for window in wanted if in_birthday_window(member.birthday, day, *window))


def age_days(member: MemberFacts, day: date) -> int:
    """Return for how many days somebody has been a member; -1 if that is not known."""
    if member.age_days is not None:
        return member.age_days
    return UNKNOWN_AGE if member.registered_on is None else (day - member.registered_on).days


# --- out of the entry ---------------------------------------------------------------------------------------------


class _NoCatalogue:
    """An entry's lines are complete already."""

    def get(self, sku: str) -> None:  # noqa: ARG002 - the shape of a catalogue
        return None


def receipt_of(purchase: journal_pb2.Purchase) -> ReceiptFacts:
    """Return the receipt of an entry as promotions saw it."""
    lines, _ = lines_of(purchase.receipt, _NoCatalogue())
    return receipt_facts(
        purchase.receipt,
        lines,
        purchase.receipt_key.store_id,
        ZoneInfo(purchase.time_zone),
        store_groups=frozenset(purchase.facts.store_groups),
        partner=purchase.partner,
        coupons=tuple(CouponFact(one.code, one.series) for one in purchase.facts.coupons),
    )


def member_of(purchase: journal_pb2.Purchase) -> MemberFacts | None:
    """Return the member of an entry as promotions saw them; None for a receipt without one.

    Entries of releases that kept no facts yet say nothing of birthdays: then no window is open.
    """
    if not purchase.member_id:
        return None
    if not purchase.HasField("facts"):
        return MemberFacts(purchase.member_id, birthday_windows=frozenset())
    facts = purchase.facts
    return MemberFacts(
        purchase.member_id,
        can_earn=facts.can_earn,
        can_spend=facts.can_spend,
        segments=frozenset(facts.segments),
        offers=frozenset(facts.offers),
        language=facts.language,
        birthday_windows=frozenset(_window(text) for text in facts.birthday_windows),
        tier=facts.tier,
        age_days=None if facts.member_age_days == UNKNOWN_AGE else facts.member_age_days,
    )


def _window(text: str) -> tuple[int, int]:
    before, after = text.split(":")
    return int(before), int(after)


def usage_of(purchase: journal_pb2.Purchase) -> Usage:
    """Return what had been used before an entry, as far as the rules looked at it."""
    counters = {
        one.key: CounterFact(
            one.times, one.money_minor, one.points_minor, date.fromisoformat(one.until) if one.until else None
        )
        for one in purchase.facts.counters
    }
    return Usage(counters, {one.key: one.amount for one in purchase.facts.budgets})


def paid_of(purchase: journal_pb2.Purchase) -> list[PaidLine]:
    """Return what the register charged on each line of an entry, and what points paid of it."""
    points_money = {line.line_number: line.points_money_minor for line in purchase.effects}
    return [
        PaidLine(line.line_number, line.discount_minor, points_money.get(line.line_number, 0))
        for line in purchase.receipt.lines
        if line.quantity_milli
    ]


def reexplained(purchase: journal_pb2.Purchase, rules: Rules) -> Effects:
    """Evaluate an entry's receipt again, from the facts in the entry alone.

    By the version that booked it the result is what the entry stores, bit by bit; see `first_difference`.
    """
    effects = earn_as_paid(rules, receipt_of(purchase), member_of(purchase), paid_of(purchase), usage_of(purchase))
    return effects if purchase.member_id else without_member(effects)


def without_member(effects: Effects) -> Effects:
    """Return what is left of a receipt's effects when nobody is there to earn."""
    lines = tuple(line._replace(accruals=()) for line in effects.lines)
    return effects._replace(lines=lines, accrual_points_minor=0, tier_points_minor=0, gave=(), counts=())


def first_difference(purchase: journal_pb2.Purchase, effects: Effects) -> str | None:
    """Return the first thing in which an entry differs from effects, in words; None if they are the same."""
    if purchase.programme_version != effects.programme_version:
        return f"it was booked by version {purchase.programme_version}, not {effects.programme_version}"
    return next(_differences(purchase, effects), None)


def _differences(purchase: journal_pb2.Purchase, effects: Effects) -> Iterator[str]:
    again = journal_pb2.Purchase(variances=variance_messages(effects))
    add_line_effects(again.effects, purchase.receipt, effects)
    for stored, computed in zip(purchase.effects, again.effects, strict=False):
        if stored != computed:
            yield f"line {stored.line_number}: stored {_short(stored)}, computed {_short(computed)}"
    pairs: tuple[tuple[str, object, object], ...] = (
        ("number of lines", len(purchase.effects), len(again.effects)),
        ("variances", list(purchase.variances), list(again.variances)),
        ("withheld", [(one.promotion_id, one.reason) for one in purchase.withheld], [*map(tuple, effects.withheld)]),
        (
            "capped",
            [(one.promotion_id, one.wanted, one.granted, one.limit) for one in purchase.capped],
            [(one.promotion_id, one.wanted, one.granted, one.limit) for one in effects.capped],
        ),
        (
            "coupons used",
            {one.code: tuple(one.promotion_ids) for one in purchase.coupons if one.used},
            {one.code: one.promotion_ids for one in effects.coupons},
        ),
        *(pair for room in ROOMS.values() for pair in room.compared(purchase, effects)),
        (
            "messages",
            [(one.promotion_id, one.text) for one in purchase.notices if one.promotion_id],
            [(one.promotion_id, one.text) for one in effects.messages],
        ),
    )
    for what, before, after in pairs:
        if before != after:
            yield f"{what}: stored {before}, computed {after}"


def _short(message: common_pb2.LineEffects) -> str:
    return text_format.MessageToString(message, as_one_line=True)
