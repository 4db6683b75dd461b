"""The fuzzing command in short: every method is called, and nothing gives way."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from tallypoint.v1 import checkout_pb2

from server.base.errors import Refused
from server.edge.validation import check
from tests.fuzz.campaign import METHODS
from tests.fuzz.generator import Generator
from tests.fuzz.pools import Known
from tests.fuzz.proof import problems_of
from tests.fuzz.run import ENVIRONMENT, run_campaign
from tests.support.server_process import running_server

CALLS = 4000
SEED = 11
REQUESTS = 300
LEAST_CARRIED_OUT = 0.15


async def test_no_call_is_answered_internal_and_the_books_stay_sound(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--workers=1", environment=ENVIRONMENT) as server:
        report = await run_campaign(server, SEED, CALLS, lambda _: None)
        problems = await problems_of(server)
    assert not report.faults, "\n\n".join(f"{one.kind()}\n{one.logged}\n{one.request.hex()}" for one in report.faults)
    assert problems == []
    assert report.by_method.keys() >= {method.name for method in METHODS if method.weight >= 1}
    assert report.codes["OK"] > LEAST_CARRIED_OUT * CALLS, "most requests never got deep"


@pytest.mark.parametrize("seed", range(3))
def test_checking_a_request_ends_in_a_verdict(seed: int) -> None:
    """Whatever the bytes: they are no message, or a message that is sound, or one that is refused by name."""
    generator = Generator(random.Random(seed), Known({}))
    verdicts = set()
    for method in METHODS:
        for _ in range(REQUESTS // len(METHODS)):
            raw = generator.raw(method.request)
            try:
                check(method.request_class.FromString(raw))
                verdicts.add("sound")
            except DecodeError:
                verdicts.add("no message")
            except Refused as refusal:
                assert refusal.violations
                verdicts.add("refused")
    assert verdicts == {"sound", "no message", "refused"}


def test_the_same_seed_makes_the_same_requests() -> None:
    descriptor = checkout_pb2.CancelRequest.DESCRIPTOR
    made = [[Generator(random.Random(7), Known({})).raw(descriptor) for _ in range(5)] for _ in range(2)]
    assert made[0] == made[1]
