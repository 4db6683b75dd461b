"""Cycle after cycle: the lanes work, something strikes at a random moment, the lanes go on, and all is proved."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.base.storage import LEDGER_DATABASE
from tests.adversity.service import Service, prepare
from tests.adversity.strikes import KINDS, Kind, Scene
from tests.support.clock import SteppedClock
from tests.support.faults import dsn_of, until_whole
from tests.support.proof import BrokenPromise, Proof
from tests.support.shop import open_shop, prove_shop
from tests.support.small_disk import SmallDisk, mounted
from tests.support.snapshots import BankReader
from tests.support.tally import Tally

BEFORE_STRIKE: Final = (5, 60)
"""Acknowledgements between the end of a cycle and the next strike."""
SETTINGS: Final = {
    "TALLYPOINT_ADJUSTMENT_LIMIT_POINTS": "20",  # beyond it adjustments wait for a second person
    "TALLYPOINT_SWEEP_INTERVAL_SECONDS": "1",  # holds expire while faults go on
}
REPEATED_MEANWHILE: Final = 300
"""Of all that was answered, so much is sent again at each proof."""


@dataclass
class Report:
    """What a campaign did and counted, so far or in all."""

    seed: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """How long each cycle took, by kind."""
    proofs: list[Proof] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Kinds that this machine does not permit, and why."""
    tally: Tally = field(default_factory=Tally)
    reader: BankReader = field(default_factory=lambda: BankReader(""))
    log: list[dict[str, Any]] = field(default_factory=list)
    """What the service logged, if something went wrong."""
    lost: int = 0
    doubled: int = 0

    @property
    def cycles(self) -> int:
        """Cycles that were gone through."""
        return sum(len(seconds) for seconds in self.seconds.values())


class CampaignFailed(Exception):
    """Something was not as it should be, in this cycle of this kind (empty: between cycles)."""

    def __init__(self, cycle: int, kind: str, report: Report) -> None:
        self.cycle = cycle
        self.kind = kind
        self.report = report
        super().__init__(f"cycle {cycle} ({kind or 'proof'}) with seed {report.seed}")


@dataclass(frozen=True)
class Plan:
    """What a campaign is to do.

    Args:
        seed: All choices follow from it; the moments in which they fall do not.
        cycles: The most cycles.
        seconds: The longest time; no cycle begins after it.
        prove_every: Cycles between proofs; the end is always proved.
        repeated_at_end: Of all that was answered, so much is sent again at the end.
        kinds: What strikes.
    """

    seed: int
    cycles: int
    seconds: float = math.inf
    prove_every: int = 25
    repeated_at_end: int = 20_000
    kinds: Sequence[Kind] = KINDS


class Watcher:
    """Hears how a campaign goes; this one does not listen."""

    def skipped(self, kind: str, reason: str) -> None:
        """A kind of cycle is left out."""

    def cycle(self, number: int, kind: str, seconds: float) -> None:
        """A cycle is over."""

    def proved(self, number: int, proof: Proof, seconds: float) -> None:
        """Everything up to this cycle is proved."""


async def run_campaign(plan: Plan, work_dir: Path, watcher: Watcher | None = None) -> Report:
    """Run a campaign on a new service in this empty directory.

    Raises:
        CampaignFailed: A promise was broken, or the service did not go on; its cause says what.
    """
    report, watcher = Report(plan.seed), watcher or Watcher()
    campaign = _Campaign(plan, report, watcher)
    try:
        async with _scene(plan, report, work_dir, watcher) as scene:
            await campaign.run(scene)
    except (Exception, ExceptionGroup) as error:
        for broken in _broken(error):
            report.lost += broken.lost
            report.doubled += broken.doubled
        raise CampaignFailed(campaign.number, campaign.kind, report) from error
    return report


class _Campaign:
    """The cycles. ``number`` and ``kind`` say where it is."""

    def __init__(self, plan: Plan, report: Report, watcher: Watcher) -> None:
        self.number = 0
        self.kind = "start"
        self._plan = plan
        self._report = report
        self._watcher = watcher

    async def run(self, scene: Scene) -> None:
        plan, deadline = self._plan, time.monotonic() + self._plan.seconds
        for number, kind in enumerate(_sequence(plan, self._report), start=1):
            if time.monotonic() >= deadline:
                break
            self.number, self.kind = number, kind.name
            await self._cycle(scene, kind)
            if self.number % plan.prove_every == 0 and self.number < plan.cycles:
                await self._prove(scene, REPEATED_MEANWHILE)
        await self._prove(scene, plan.repeated_at_end, for_good=True)

    async def _cycle(self, scene: Scene, kind: Kind) -> None:
        began, dice = time.monotonic(), random.Random(f"{self._plan.seed}/{self.number}")
        await scene.shop.sell(dice.randint(*BEFORE_STRIKE))
        await kind.strike(scene, dice)
        await scene.shop.go_on()
        seconds = time.monotonic() - began
        self._report.seconds.setdefault(kind.name, []).append(seconds)
        self._watcher.cycle(self.number, kind.name, seconds)

    async def _prove(self, scene: Scene, repeated: int, *, for_good: bool = False) -> None:
        """Prove everything while the lanes rest; for good means that they do nothing afterwards."""
        self.kind = ""
        began, server = time.monotonic(), scene.service.server
        async with scene.shop.pause():
            await until_whole(server)
            proof = await prove_shop(scene.shop, server, random.Random(self._plan.seed), repeated)
            assert proof.unacknowledged == 0, f"{proof.unacknowledged} operations are booked of which nobody was told"
            if for_good:
                scene.shop.close()
        self._report.proofs.append(proof)
        self._watcher.proved(self.number, proof, time.monotonic() - began)


def _sequence(plan: Plan, report: Report) -> Iterator[Kind]:
    """Return the kinds of all cycles: round after round, each kind as often as it weighs, in random order."""
    dice = random.Random(plan.seed)
    permitted = [kind for kind in plan.kinds if kind.name not in report.skipped]
    cycles = plan.cycles
    while cycles > 0:
        kinds = [kind for kind in permitted for _ in range(kind.weight)]
        dice.shuffle(kinds)
        yield from kinds[:cycles]
        cycles -= len(kinds)


@asynccontextmanager
async def _scene(plan: Plan, report: Report, work_dir: Path, watcher: Watcher) -> AsyncIterator[Scene]:
    """Start a service and its load, and read it like a bank; at the end both come to rest."""
    with ExitStack() as stack:
        disk: SmallDisk | None = None
        if any(kind.needs_disk for kind in plan.kinds):
            found = stack.enter_context(mounted(work_dir / "small-disk"))
            if isinstance(found, SmallDisk):
                disk = found
            else:
                report.skipped |= {kind.name: found for kind in plan.kinds if kind.needs_disk}
        for name, reason in report.skipped.items():
            watcher.skipped(name, reason)
        clock = SteppedClock(work_dir / "clock")
        service = Service(work_dir / "data", {**clock.environment, **SETTINGS})
        prepare(work_dir / "data", disk)
        stack.callback(_end, service, report)
        server = service.start()
        report.reader = BankReader(dsn_of(server, LEDGER_DATABASE))
        async with open_shop(server, random.Random(plan.seed)) as shop:
            report.tally = shop.tally
            async with report.reader.reading():
                yield Scene(service, shop, clock, disk)


def _end(service: Service, report: Report) -> None:
    report.log = service.log
    service.end()


def _broken(error: BaseException) -> Iterator[BrokenPromise]:
    """Return the broken promises among what went wrong."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _broken(inner)
    elif isinstance(error, BrokenPromise):
        yield error
