"""Walking through conditions, for those who ask what a programme looks at."""

from __future__ import annotations

from collections.abc import Iterator

from server.promotions.criteria import AllOf, AnyOf, Condition, NotThat


def leaves_of(condition: Condition | None) -> Iterator[Condition]:
    """Yield the conditions that a condition is made of, without those that are only all, any or not."""
    if isinstance(condition, AllOf | AnyOf):
        for part in condition.parts:
            yield from leaves_of(part)
    elif isinstance(condition, NotThat):
        yield from leaves_of(condition.part)
    elif condition is not None:
        yield condition
