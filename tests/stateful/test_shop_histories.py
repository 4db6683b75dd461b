"""Some histories of a shop over the public API; `python -m tests.stateful.shop_histories` runs thousands."""

from __future__ import annotations

from tests.stateful.shop_histories import run_histories
from tests.support.database import DatabaseFactory

HISTORIES = 40


def test_no_valid_calls_ever_make_verification_fail(databases: DatabaseFactory) -> None:
    bench = run_histories(databases, HISTORIES)
    assert bench.histories >= HISTORIES
    assert bench.steps > bench.histories
