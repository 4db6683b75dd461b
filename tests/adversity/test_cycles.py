"""The adversity command in short: every kind of strike once, under load, and everything proved."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.adversity.campaign import Plan, run_campaign
from tests.adversity.strikes import KINDS
from tests.support.tally import Operation

ONE_OF_EACH = [kind._replace(weight=1) for kind in KINDS if kind.in_short]
REPEATED_AT_END = 2000


async def test_one_cycle_of_each_kind(tmp_path: Path, dice: random.Random) -> None:
    plan = Plan(dice.getrandbits(32), len(ONE_OF_EACH), repeated_at_end=REPEATED_AT_END, kinds=ONE_OF_EACH)

    report = await run_campaign(plan, tmp_path)

    assert report.seconds.keys() | report.skipped.keys() == {kind.name for kind in ONE_OF_EACH}
    counts = report.tally.counts()
    assert counts.keys() == set(Operation) - {Operation.APPROVAL}  # an approval settles its adjustment
    for count in counts.values():
        assert count.begun == count.acknowledged + count.refused.total()
        assert count.unknown == count.settled_by_repeating
        assert count.repeated > 0
    assert counts[Operation.PURCHASE].settled_by_repeating > 0
    assert [proof.unacknowledged for proof in report.proofs] == [0]
    assert report.reader.moments > report.cycles
    assert report.reader.interrupted > 0
    for reason in report.skipped.values():
        pytest.skip(reason)  # what could be done has passed; the summary must not call that the whole
