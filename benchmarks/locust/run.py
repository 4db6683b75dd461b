"""A run as one process of Locust sees it: its lanes, what its calls came to, and at the end the summary.

Workers have lanes and tell the master what is new; the master adds up and judges. Without `--processes` one process
does both.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import gevent
from gevent import GreenletExit
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner
from rich.console import Console

from benchmarks.locust import results
from benchmarks.locust.ceiling import Ceiling
from benchmarks.locust.lane import Lane
from benchmarks.locust.options import Options
from benchmarks.locust.prepared import Prepared
from benchmarks.locust.register import Outcome, Register
from benchmarks.locust.results import Finding, Tally, Total
from benchmarks.locust.wire import NoAnswer

TAKE_LANES: Final = "tallypoint_take_lanes"
"""The message by which the master tells a worker which lanes are its own."""
LAST_WORD: Final = "tallypoint_last_word"
"""The message by which the master, at the end, asks a worker what is new, and by which that answers."""
_LAST_WORD_SECONDS: Final = 15.0
_SECONDS_BETWEEN_LOOKS: Final = 0.05
_NEWS: Final = "tallypoint"
_LOGGED_OF_A_REASON: Final = 3
_RESOURCE_EXHAUSTED: Final = 8

logger: Final = logging.getLogger(__name__)


class Failure(Exception):
    """Why a call failed, as Locust's tables show it."""

    def __repr__(self) -> str:
        """Return the reason alone."""
        return str(self)


class Run:
    """One process' part of a run."""

    def __init__(self, environment: Environment, options: Options, prepared: Prepared) -> None:
        self.environment = environment
        self.options = options
        self.prepared = prepared
        self.ceilings: Sequence[Ceiling] = ()
        self.working: list[Register] = []
        """The registers of this process' users."""
        self.tally = Tally()
        self._total = Total()
        self._lanes: deque[Lane] = deque()
        self._logged: Counter[str] = Counter()
        self._begun: float | None = None
        self._ended: float | None = None
        self._objection = ""
        self._workers: set[str] = set()
        """The workers that the master began with."""
        self._lost: set[str] = set()
        """Those of them that did not answer any more when the run ended."""
        self._silent: set[str] = set()
        """The workers whose last calls the master has not heard of yet."""
        self._told: set[str] = set()
        """Those that have told, whether they still answer or not: who was stopped tells before it goes."""
        if not isinstance(environment.runner, MasterRunner | WorkerRunner):
            self._make_lanes(0, 1)

    # --- lanes ---

    def share_lanes(self) -> None:
        """Tell each worker which lanes are its own: no lane works in two processes."""
        runner = self.environment.runner
        if isinstance(runner, MasterRunner):
            workers = list(runner.clients)
            self._workers = set(workers)
            for share, worker in enumerate(workers):
                runner.send_message(TAKE_LANES, {"share": share, "of": len(workers)}, worker)

    def take_lanes(self, message: Mapping[str, int]) -> None:
        """Do as the master says, unless that is how it is."""
        self._make_lanes(message["share"], message["of"])

    def _make_lanes(self, share: int, of: int) -> None:
        self._lanes = deque(Lane(self.prepared, number) for number in range(share, len(self.prepared.terminals), of))

    def take_lane(self) -> Lane:
        """Return a lane that no user has; without one the user ends, which counts as a failure."""
        if self._lanes:
            return self._lanes.popleft()
        text = f"only {len(self.prepared.terminals)} terminals are prepared, which is fewer than users: prepare more"
        error = NoAnswer(_RESOURCE_EXHAUSTED, "NO_TERMINAL_LEFT", text)
        self.report("lane", Outcome("Connect", 0, 0, error))
        raise GreenletExit  # which Locust takes as a user's end; of a StopUser at this point it logs a traceback

    def give_back(self, lane: Lane) -> None:
        """Take back the lane of a user who ends, with all that it knows."""
        self._lanes.append(lane)

    # --- calls ---

    def report(self, transport: str, outcome: Outcome) -> None:
        """Take note of a call: in our own tables and in Locust's. One that ends after the run does not count."""
        if self._ended is not None:
            return
        self.tally.record(transport, outcome)
        reason = results.reason_of(outcome.error) if outcome.error else None
        if reason is not None:
            self._logged[reason] += 1
            if self._logged[reason] <= _LOGGED_OF_A_REASON:
                logger.warning("%s (%s) failed: %s", outcome.kind, transport, outcome.error)
        fire: Any = self.environment.events.request.fire  # not typed
        fire(
            request_type=transport,
            name=outcome.kind,
            response_time=outcome.nanoseconds / 1e6,
            response_length=outcome.size_bytes,
            # By reason alone, since Locust keeps a row for each text.
            exception=None if reason is None else Failure(reason),
            context={},
        )

    def report_checkout(self, transport: str, nanoseconds: int) -> None:
        """Take note of how long a shopper waited in all. It is no call, so Locust's tables do not have it."""
        if self._ended is None:
            self.tally.record(transport, Outcome(results.CHECKOUT, nanoseconds, 0, None))

    # --- adding up ---

    def begin(self, options: Options, objection: str = "") -> None:
        """Begin anew, with the options of this run: the web page may have changed some. An objection fails it."""
        self.options = options
        self._objection = objection
        self.reset()
        self._begun, self._ended = time.monotonic(), None
        self._lost, self._silent, self._told = set(), set(), set()

    def end(self) -> None:
        """Stop the clock. The master waits for the workers' last calls, which Locust does for half a second only."""
        if not self.was_begun or self._ended is not None:
            return
        self._ended = time.monotonic()
        runner = self.environment.runner
        if isinstance(runner, MasterRunner):
            at_work = {worker for worker, node in runner.clients.items() if node.state != STATE_MISSING}
            self._lost = self._workers - at_work - self._told
            self._silent = set(runner.clients) - self._told
            runner.send_message(LAST_WORD)
            give_up_at = time.monotonic() + _LAST_WORD_SECONDS
            while self._silent and time.monotonic() < give_up_at:
                gevent.sleep(_SECONDS_BETWEEN_LOOKS)

    def say_last_word(self) -> None:
        """Tell the master what is new, and count no further calls."""
        self.end()
        assert self.environment.runner is not None
        self.environment.runner.send_message(LAST_WORD, self.tally.news())

    def leave(self) -> None:
        """End as a worker: Ctrl-C and SIGTERM may reach it before the master asks for anything."""
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner) and self.was_begun:
            runner._send_stats()  # noqa: SLF001  - for Locust's tables and files; it would do so only if told to quit
            self.say_last_word()

    def hear_last_word(self, worker: str, news: Mapping[str, Any]) -> None:
        """Add a worker's last calls."""
        self._total.add(news)
        self._told.add(worker)
        self._silent.discard(worker)

    def reset(self) -> None:
        """Forget all calls so far."""
        self.tally, self._total = Tally(), Total()
        self._begun = time.monotonic() if self._begun is not None else None

    def tell(self, data: dict[str, Any]) -> None:
        """Put what is new into a worker's report to the master."""
        data[_NEWS] = self.tally.news()

    def hear(self, data: Mapping[str, Any]) -> None:
        """Add what a worker reports."""
        if _NEWS in data:
            self._total.add(data[_NEWS])

    @property
    def was_begun(self) -> bool:
        """Whether there is anything to judge."""
        return self._begun is not None

    @property
    def seconds(self) -> float:
        """How long the run has lasted."""
        assert self._begun is not None
        return max((self._ended or time.monotonic()) - self._begun, 1e-3)

    @property
    def total(self) -> Total:
        """All calls so far."""
        self._total.add(self.tally.news())
        return self._total

    def findings(self) -> list[Finding]:
        """Judge the run."""
        found = [Finding(passed=False, text=self._objection)] if self._objection else []
        found += results.judge(self.total, self.options.limits)
        runner = self.environment.runner
        for exception in runner.exceptions.values() if runner else ():
            found.append(Finding(passed=False, text=f"the generator itself stumbled: {exception['msg']}"))
        if self._lost:
            text = f"{len(self._lost)} of the generator's processes died, or did not answer Locust for seconds"
            found.append(Finding(passed=False, text=text))
        if self._silent:
            text = f"{len(self._silent)} of the generator's processes did not say what their last calls came to"
            found.append(Finding(passed=False, text=text))
        return found

    def show(self, console: Console) -> bool:
        """Print the summary; return whether the run passed. Writes the JSON file as well, if one is wanted."""
        total, findings = self.total, self.findings()
        passed = all(finding.passed for finding in findings)
        console.print(results.table(total, self.seconds))
        if (failures := results.failure_table(total)) is not None:
            console.print(failures)
        console.print(self._how_to_read(), markup=False)
        for finding in findings:
            console.print("[green]pass[/green]" if finding.passed else "[red]FAIL[/red]", finding.text)
        console.print("[bold green]PASS[/bold green]" if passed else "[bold red]FAIL[/bold red]")
        if self.options.summary_json is not None:
            further = {"ceilings": [ceiling._asdict() for ceiling in self.ceilings]}
            summary = results.as_json(total, self.seconds, findings, further)
            self.options.summary_json.parent.mkdir(parents=True, exist_ok=True)
            self.options.summary_json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return passed

    def _ceiling_in_words(self, ceiling: Ceiling) -> str:
        """Say how near to its ceiling the generator came."""
        rows = self.total.calls().items()
        rate = sum(row.calls for (transport, _), row in rows if transport == ceiling.transport) / self.seconds
        share = rate / max(ceiling.calls_per_s, 1e-9)
        return f"{ceiling} This run's {rate:,.0f} calls/s are {share * 100:.0f} % of it."

    def _how_to_read(self) -> str:
        pace = self.options.pace_seconds
        lines = [
            f"Lanes began a checkout every {pace:g} s; Checkout counts from then, waiting for a late lane included."
            if pace
            else "Closed loop: a lane began the next checkout when the last one was over.",
            "Calls count from when they were sent: a lane makes one at a time, so a slow answer delays the next call.",
            *(self._ceiling_in_words(ceiling) for ceiling in self.ceilings),
        ]
        if not self.options.limits.p99_milliseconds:
            lines.append("Latencies are not judged: --p99-ms sets limits.")
        return "\n".join(lines)
