"""What the tests of the acceptance folder share: two stores of one chain, with a till each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.support.server_process import RunningServer
from tests.support.till import Till, open_till, set_up_store


@pytest.fixture(scope="package")
def stores(tallypoint: RunningServer) -> list[tuple[str, str]]:
    """Two stores, and the keys of their terminals."""
    return [(name, asyncio.run(set_up_store(tallypoint, name))) for name in (f"s{uuid.uuid4().hex[:8]}" for _ in "ab")]


@pytest.fixture
async def till(tallypoint: RunningServer, stores: list[tuple[str, str]]) -> AsyncIterator[Till]:
    """The first store's till."""
    async with open_till(tallypoint, *stores[0]) as opened:
        yield opened


@pytest.fixture
async def other_till(tallypoint: RunningServer, stores: list[tuple[str, str]]) -> AsyncIterator[Till]:
    """The second store's till."""
    async with open_till(tallypoint, *stores[1]) as opened:
        yield opened
