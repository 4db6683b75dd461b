"""Backtests in parallel: every process reads its own part of the receipts, and their sums are merged.

Each process takes all receipts of its members, in their order, so that what was counted for a member is at hand. Memory
holds the counters of these members, and a batch of receipts.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import queue
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing.context import ForkServerProcess
from typing import Any, Final, NamedTuple, Protocol

import asyncpg
from tallypoint.v1 import journal_pb2

from server.promotions import Effects, ReceiptError, Rules, compile_rules
from server.rules.backtest.journal import Stretch, stored_cases
from server.rules.backtest.simulation import Case, Simulation
from server.rules.backtest.tally import Tally
from server.rules.mended import as_booked, judged
from server.rules.versions import READ_NEW_TEXTS, ProgrammeText

DRAFT: Final = -1
"""The version number of a draft."""
OTHER: Final = 0
"""The version number of a file that a draft is compared with."""
_DATASET_MODULE: Final = "benchmarks.replay.backtesting"
"""Its `cases(month, limit, part, parts)` yields batches; named as text, since what runs in production needs no data."""

Batches = AsyncIterator[tuple[int, list[Case | str]]]


class DatasetPart(NamedTuple):
    """Which receipts of the replay's data set are to be judged."""

    month: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compared over which receipts.

    ``live`` is what the draft is compared with; None means the version that booked each receipt.
    """

    draft: str
    live: ProgrammeText | None
    dsn: str | None
    stretch: Stretch
    dataset: DatasetPart | None
    undated: bool
    processes: int


class BacktestError(Exception):
    """A process could not do its part; the text says why."""


class _Total(NamedTuple):
    """How many entries there are, said by each process before it begins."""

    entries: int


class _Done(NamedTuple):
    """How many entries were passed."""

    entries: int


class _Queue(Protocol):
    """A queue within a process, or between processes."""

    def put(self, item: Any) -> None:  # noqa: ANN401 - any answer
        """Add an answer."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ANN401 - as above
        """Take an answer; raises queue.Empty after `timeout` seconds."""


_Say = Callable[[_Done | _Total], None]
ShowProgress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Given how many entries there are, opens what is told how many more were passed."""


def run(plan: Plan, show: ShowProgress) -> Tally:
    """Judge all receipts and return the sums.

    Raises:
        BacktestError: a process failed.
    """
    with _workers(plan) as (workers, answers):
        said = _answers(plan.processes, workers, answers)
        total = next(said)
        if not isinstance(total, _Total):
            raise BacktestError(str(total))
        with show(total.entries) as advance:
            return _gather(plan, said, advance)


@contextmanager
def _workers(plan: Plan) -> Iterator[tuple[list[ForkServerProcess], _Queue]]:
    """Start the processes, which end with the block; a part that is the whole needs none, but a thread."""
    if plan.processes == 1:
        here: _Queue = queue.Queue()
        thread = threading.Thread(target=_work, args=(plan, 0, here), daemon=True)
        thread.start()
        yield [], here
        thread.join()
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    answers: _Queue = context.Queue()
    workers = [context.Process(target=_work, args=(plan, part, answers), daemon=True) for part in range(plan.processes)]
    for worker in workers:
        worker.start()
    try:
        yield workers, answers
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()


def _gather(plan: Plan, said: Iterator[Any], advance: Callable[[int], None]) -> Tally:
    total: Tally | None = None
    passed = told = 0
    for answer in said:
        if isinstance(answer, _Done):
            passed += answer.entries
            # Every process passes every entry of the journal, and takes its own part of them.
            advance(passed // plan.processes - told)
            told = passed // plan.processes
        elif isinstance(answer, Tally):
            if total is None:
                total = answer
            else:
                total.merge(answer)
        elif not isinstance(answer, _Total):
            raise BacktestError(str(answer))
    assert total is not None, "there is at least one process"
    return total


def _answers(left: int, workers: list[ForkServerProcess], answers: _Queue) -> Iterator[Any]:
    """Yield what processes say, until each has given its sums or an error."""
    while left:
        try:
            answer = answers.get(timeout=1.0)
        except queue.Empty:
            if any(worker.exitcode not in {None, 0} for worker in workers):
                raise BacktestError("a process died; is there enough memory?") from None
            continue
        left -= not isinstance(answer, _Done | _Total)
        yield answer


def _work(plan: Plan, part: int, answers: _Queue) -> None:
    """Do one process's part; what goes wrong is an answer too."""
    try:
        answers.put(asyncio.run(_part(plan, part, answers.put)))
    except KeyboardInterrupt:
        pass
    except Exception as error:  # noqa: BLE001 - the process that shows errors is another one
        where = traceback.extract_tb(error.__traceback__)[-1]
        answers.put(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")


async def _part(plan: Plan, part: int, say: _Say) -> Tally:
    draft = _compiled(ProgrammeText(plan.draft), DRAFT, undated=plan.undated)
    live = None if plan.live is None else _compiled(plan.live, OTHER)
    if plan.dataset is not None:
        assert live is not None, "receipts from elsewhere were booked by no version"
        batches: Batches = _dataset_batches(plan.dataset, part, plan.processes)
        return await _compare(draft, lambda _: live, batches, plan.processes, say)
    conn = await asyncpg.connect(plan.dsn, server_settings={"role": "tallypoint_reader"})
    try:
        booked_by = await _versions(conn) if live is None else {}
        batches = stored_cases(conn, plan.stretch, part, plan.processes)
        return await _compare(draft, lambda version: live or booked_by.get(version), batches, plan.processes, say)
    finally:
        await conn.close()


async def _compare(
    draft: Rules, live_of: Callable[[int], Rules | None], batches: Batches, parts: int, say: _Say
) -> Tally:
    say(_Total((await anext(batches))[0]))
    tally = Tally(draft.programme.point.money_per_points)
    before, after = Simulation(Fraction(1, parts)), Simulation(Fraction(1, parts))
    async for passed, cases in batches:
        for case in cases:
            if isinstance(case, str):
                tally.leave_out(case)
            else:
                _judge(tally, case, live_of(case.version), draft, before, after)
        say(_Done(passed))
    return tally


def _judge(tally: Tally, case: Case, live: Rules | None, draft: Rules, before: Simulation, after: Simulation) -> None:
    if live is None:
        tally.leave_out(f"version {case.version} cannot be read by this release")
        return
    if case.currency != draft.programme.currency or case.currency != live.programme.currency:
        tally.leave_out(f"its currency is {case.currency}")
        return
    try:
        now = before.judge(live, case)
        tally.old += case.old is not None
        if case.old is not None and live.version == case.version:
            now = _effects_as_booked(tally, case.old, live, now)
        tally.add(case, now, after.judge(draft, case))
    except ReceiptError as error:
        tally.leave_out(f"it makes no sense: {error.field}")


def _effects_as_booked(tally: Tally, old: journal_pb2.Event, rules: Rules, now: Effects) -> Effects:
    """Return what an old receipt gave as it was booked, where its own version gives something else today."""
    found = judged(old, rules)
    if not found.kinds:
        return now
    tally.mended[" or ".join(one.kind for one in found.kinds)] += 1
    return as_booked(old.purchase, now)


async def _versions(conn: asyncpg.Connection[asyncpg.Record]) -> dict[int, Rules]:
    versions: dict[int, Rules] = {}
    for record in await conn.fetch(READ_NEW_TEXTS, 0):
        loaded = ProgrammeText(record["text"], record["semantics"]).load()
        if not isinstance(loaded, list):
            versions[record["version"]] = compile_rules(loaded, record["version"])
    return versions


async def _dataset_batches(dataset: DatasetPart, part: int, parts: int) -> Batches:
    cases = importlib.import_module(_DATASET_MODULE).cases
    for batch in cases(dataset.month, dataset.limit, part, parts):
        yield batch


def _compiled(text: ProgrammeText, version: int, *, undated: bool = False) -> Rules:
    loaded = text.load()
    if isinstance(loaded, list):
        raise BacktestError(str(loaded[0]))
    if undated:
        always = tuple(replace(one, valid_from=None, valid_until=None) for one in loaded.promotions)
        loaded = replace(loaded, promotions=always)
    return compile_rules(loaded, version)
