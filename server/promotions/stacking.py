"""Groups and exclusivity: which of several promotions stand together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar

from server.promotions.formulas import BASE_RANK, BasketRule, LineRule, PointsRule, ReceiptPointsRule


class Ranked(Protocol):
    """What is stacked."""

    @property
    def rank(self) -> int:
        """Its place among the promotions."""

    @property
    def group(self) -> str | None:
        """Its exclusivity group."""

    @property
    def exclusive(self) -> bool:
        """Whether it stands alone."""


R = TypeVar("R", LineRule, BasketRule, PointsRule, ReceiptPointsRule)


def alternatives(rules: Sequence[R]) -> list[list[R]]:
    """The stacks to compare: all that are not exclusive together, and each exclusive one alone.

    Ordered by the rank of their first promotion, so that the first of equals is the right one. The base
    percent is no promotion in this sense: it stays in every stack.
    """
    if not any(rule.exclusive for rule in rules):
        return [list(rules)]
    base = [rule for rule in rules if rule.rank == BASE_RANK]
    promotions = [rule for rule in rules if rule.rank != BASE_RANK]
    shared = [rule for rule in promotions if not rule.exclusive]
    stacks = [shared] if shared else []
    stacks += [[rule] for rule in promotions if rule.exclusive]
    stacks.sort(key=lambda stack: stack[0].rank)
    return [base + stack for stack in stacks] or [base]


def resolve_group(rule: R, rules: Sequence[R], decided: set[str], gain: Callable[[R], int | Fraction]) -> R | None:
    """The member of the rule's group that gives the shopper most; None if the group had its turn."""
    if rule.group is None:
        return rule
    if rule.group in decided:
        return None
    decided.add(rule.group)
    return max((rival for rival in rules if rival.group == rule.group), key=gain)


def are_rivals(one: Ranked, other: Ranked) -> bool:
    """Whether two promotions of a step can't both apply to a line."""
    if one.rank == other.rank:
        return False
    return one.exclusive or other.exclusive or (one.group is not None and one.group == other.group)
