"""A batch of rows of which some fail as nobody foresaw: they alone are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tallypoint.v1 import common_pb2 as api

from server.base.errors import Refused
from server.edge.parts import do_in_parts


async def double(rows: Sequence[int]) -> list[int]:
    """Double each row; numbers below 0 fail all that are done with them."""
    await asyncio.sleep(0)
    if min(rows) < 0:
        raise ZeroDivisionError
    return [2 * row for row in rows]


@given(st.lists(st.integers(-2, 9), min_size=1, max_size=40))
def test_only_guilty_rows_are_refused(rows: list[int]) -> None:
    outcome: dict[int, int] = {}
    for first, done in asyncio.run(do_in_parts(rows, double, "Service/Method")):
        if isinstance(done, Refused):
            assert done.reason == api.REFUSAL_REASON_INTERNAL
            assert "report incident" in done.message
            outcome[first] = -1
        else:
            outcome.update(enumerate(done, start=first))
    assert outcome == {index: -1 if row < 0 else 2 * row for index, row in enumerate(rows)}


@pytest.mark.parametrize("error", [Refused(api.REFUSAL_REASON_OVERLOADED, "later"), ConnectionResetError()])
async def test_what_no_row_is_guilty_of_is_raised(error: Exception) -> None:
    async def fail(rows: Sequence[int]) -> None:
        raise error

    with pytest.raises(type(error)):
        await do_in_parts([1, 2, 3], fail, "Service/Method")
