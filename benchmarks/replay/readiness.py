"""Waits until every worker that the registers talk to works by what was seeded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tallypoint.v1 import checkout_pb2, checkout_pb2_grpc, common_pb2

from benchmarks.replay.client import CallFailed, Counters, bearing, call
from benchmarks.replay.dataset import CURRENCY
from benchmarks.replay.seed import SeedFailed

SEEDED_SECONDS: Final = 60.0
_SECONDS_BETWEEN_PROBES: Final = 0.1
_NOT_YET: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION})
"""What a worker says that has not read the newest keys, or the programme, yet."""


class Newest(NamedTuple):
    """What was seeded last: who knows these knows everything. `event_seconds` is Unix time of a receipt."""

    keys: Sequence[str]
    sku: str
    programme_version: int
    event_seconds: int


async def wait_until_seeded(stubs: Iterable[checkout_pb2_grpc.CheckoutServiceAsyncStub], newest: Newest) -> None:
    """Wait until the worker behind every channel knows the newest keys, goods and rules.

    Raises:
        SeedFailed: a worker still does not after a minute.
    """
    for stub in stubs:
        for key in newest.keys:
            await _wait_for_one(stub, key, newest)


async def _wait_for_one(stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, key: str, newest: Newest) -> None:
    give_up_at = time.monotonic() + SEEDED_SECONDS
    while (missing := await _missing(stub, key, newest)) is not None:
        if time.monotonic() > give_up_at:
            raise SeedFailed(f"after {SEEDED_SECONDS:.0f} s a worker does not know what was seeded: {missing}")
        await asyncio.sleep(_SECONDS_BETWEEN_PROBES)


async def _missing(stub: checkout_pb2_grpc.CheckoutServiceAsyncStub, key: str, newest: Newest) -> str | None:
    """What a worker does not know yet, in words; None if it knows all."""
    line = common_pb2.ReceiptLine(line_number=1, sku=newest.sku, quantity_milli=1000, list_amount_minor=100)
    receipt = common_pb2.Receipt(event_at=Timestamp(seconds=newest.event_seconds), currency_code=CURRENCY, lines=[line])
    request = checkout_pb2.QuoteRequest(receipt=receipt)
    try:
        answer = await call(Counters(), bearing(stub.Quote, key), "Quote", request)
    except CallFailed as error:
        if error.failure.code not in _NOT_YET:
            raise SeedFailed(f"the server does not quote: {error}") from error
        return str(error)
    if answer.programme_version != newest.programme_version:
        return f"it is at programme version {answer.programme_version}, not {newest.programme_version}"
    if any(notice.code == "UNKNOWN_SKU" for notice in answer.notices):
        return f"article {newest.sku} is not in its catalogue"
    return None
