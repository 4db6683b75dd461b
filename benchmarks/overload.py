"""What becomes of a server that is asked for three times what it can do: goodput, refusals, memory and recovery.

Run ``python -m benchmarks.overload``; README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import statistics
import threading
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich import box
from rich.table import Table

from benchmarks.arena import Arena, LoadShape, facts, open_arena, saturation
from benchmarks.harness import machine, narrator, print_json, results_console
from benchmarks.open_loop import OpenTurn, histogram_of, latencies, milliseconds_at, percentiles, schedule
from benchmarks.shop import Shop, ShopSize

REGISTER_TIMEOUT_SECONDS: Final = 3.0
"""What a register waits for an answer."""
NORMAL_SHARE: Final = 0.5
NORMAL_FACTOR: Final = 2.0
"""A 99th percentile is normal again if it is at most so many times what it was before."""
WINDOW_SECONDS: Final = 0.25
NORMAL_WINDOWS: Final = 2
"""So many normal windows in a row end the recovery."""
_SAMPLE_SECONDS: Final = 0.25
_SATURATION_SECONDS: Final = 1.5
_WARM_UP_SECONDS: Final = 1.0
_NANOSECONDS: Final = 1_000_000_000
_REASON_LENGTH: Final = 100


class Stretch(NamedTuple):
    """What became of the requests that were due in a stretch of a turn."""

    times_saturation: float
    seconds: float
    offered: int
    sent: int
    """How many the clients really sent in that time: fewer if they are too slow themselves."""
    answered: int
    """How many were answered with OK in that time, whenever they were due."""
    refused: int
    errors: int
    latencies_nanoseconds: array[int]
    """Of those that were due in that time and were answered with OK."""

    def result(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "times_saturation": self.times_saturation,
            "offered_per_s": round(self.offered / self.seconds, 1),
            "sent_per_s": round(self.sent / self.seconds, 1),
            "answered_per_s": round(self.answered / self.seconds, 1),
            "refused": self.refused,
            "errors": self.errors,
            **percentiles(histogram_of(self.latencies_nanoseconds)),
        }


def stretch(turn: OpenTurn, times_saturation: float, seconds: float) -> Stretch:
    """Return what became of the first so many seconds of a turn."""
    end = int(seconds * _NANOSECONDS)
    due = [index for index, moment in enumerate(turn.due_nanoseconds) if moment < end]
    took = latencies(turn.due_nanoseconds, turn.answered_nanoseconds)
    in_time = zip(turn.answered_nanoseconds, turn.statuses, strict=True)
    return Stretch(
        times_saturation,
        seconds,
        offered=len(due),
        sent=sum(moment < end for moment in turn.sent_nanoseconds),
        answered=sum(moment < end and status == "OK" for moment, status in in_time),
        refused=turn.refused,
        errors=turn.errors,
        latencies_nanoseconds=array("q", (took[index] for index in due if turn.statuses[index] == "OK")),
    )


class Window(NamedTuple):
    """A short time after the overload."""

    seconds_after: float
    """Its beginning, counted from the end of the overload."""
    p99_ms: float
    failed: int
    """How many of the requests that were due then were not answered with OK."""


def timeline(turn: OpenTurn, overload_seconds: float) -> list[Window]:
    """Return the 99th percentiles of what was due after the overload, window by window."""
    begin = int(overload_seconds * _NANOSECONDS)
    width = int(WINDOW_SECONDS * _NANOSECONDS)
    took: dict[int, list[int]] = {}
    failed: Counter[int] = Counter()
    everything = zip(turn.due_nanoseconds, latencies(turn.due_nanoseconds, turn.answered_nanoseconds), strict=True)
    for (due, latency), status in zip(everything, turn.statuses, strict=True):
        if due >= begin:
            window = (due - begin) // width
            took.setdefault(window, []).append(latency)
            failed[window] += status != "OK"
    return [
        Window(round(window * WINDOW_SECONDS, 3), milliseconds_at(histogram_of(took[window]), 99.0), failed[window])
        for window in sorted(took)
    ]


def recovery_seconds(windows: Sequence[Window], normal_p99_ms: float) -> float | None:
    """Return how long after the overload the 99th percentile was normal again; None if it never was.

    Normal are the first windows in a row in which everything was answered, at most `NORMAL_FACTOR` as slowly as before.
    """
    limit = NORMAL_FACTOR * normal_p99_ms
    normal = [window.p99_ms <= limit and not window.failed for window in windows]
    for index in range(len(windows) - NORMAL_WINDOWS + 1):
        if all(normal[index : index + NORMAL_WINDOWS]):
            return windows[index].seconds_after
    return None


class Memory:
    """The memory of the server's parts while something goes on, in MiB."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.before = shop.resident_mebibytes()
        self.highest = dict(self.before)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take note of the highest figures until the end of the block."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_SAMPLE_SECONDS):
            for part, mebibytes in self._shop.resident_mebibytes().items():
                self.highest[part] = max(mebibytes, self.highest[part])


class Round(NamedTuple):
    """What one round showed."""

    normal_p99_ms: float
    stretches: list[Stretch]
    windows: list[Window]
    refusals: Counter[str]
    errors: int

    @property
    def recovery(self) -> float | None:
        """How long the recovery took, in seconds; None if it did not come."""
        return recovery_seconds(self.windows, self.normal_p99_ms)


class Plan(NamedTuple):
    """How a round goes."""

    saturated_per_second: float
    times: Sequence[float]
    """Loads in times of saturation, the highest last: only after it the load falls to half the saturation."""
    seconds: float
    recovery_seconds: float


def play(arena: Arena, plan: Plan, memory: Memory, seed: int) -> Round:
    """Measure what is normal, then overload the server, then let the load fall."""
    calm = NORMAL_SHARE * plan.saturated_per_second

    def send(due: array[int]) -> OpenTurn:
        return arena.on_schedule("ours", due, REGISTER_TIMEOUT_SECONDS, lean=True)

    normal = send(schedule("poisson", calm, plan.seconds, seed))
    turns, stretches = [normal], []
    for times in plan.times:
        due = schedule("poisson", times * plan.saturated_per_second, plan.seconds, seed + 1)
        if times == plan.times[-1]:
            due += schedule("poisson", calm, plan.recovery_seconds, seed + 2, from_second=plan.seconds)
        with memory.watched():
            turns.append(send(due))
        stretches.append(stretch(turns[-1], times, plan.seconds))
    return Round(
        milliseconds_at(normal.histogram(), 99.0),
        stretches,
        timeline(turns[-1], plan.seconds),
        _refusals(turns[-1]),
        sum(turn.errors for turn in turns) + normal.refused,
    )


def _refusals(turn: OpenTurn) -> Counter[str]:
    counted: Counter[str] = Counter()
    for reason, calls in turn.reasons.items():
        counted[reason[:_REASON_LENGTH]] += calls
    return counted


def unproven(arena: Arena, heads_before: Mapping[int, int]) -> int:
    """Return how many of the receipts that were answered OK are not in the ledger under their own message, once."""
    stored = arena.shop.message_ids_after(heads_before)
    wrong = sum(stored.get(entry) != message_id.bytes for entry, message_id in arena.booked.items())
    return wrong + len(stored) - len(set(stored.values()))


def result(
    rounds: Sequence[Round], memory: Memory, plan: Plan, lost: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    highest = [each.stretches[-1] for each in rounds]
    goodputs = [each.answered / each.seconds for each in highest]
    ratios = [goodput / plan.saturated_per_second for goodput in goodputs]
    recoveries = [each.recovery for each in rounds]
    came = [each for each in recoveries if each is not None]
    offered = [[each.stretches[index].result() for each in rounds] for index in range(len(plan.times))]
    return {
        "ours_per_s": round(statistics.median(goodputs), 1),
        "baseline_per_s": round(plan.saturated_per_second, 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(min(ratios), 4),
        "ratio_max": round(max(ratios), 4),
        "ratio_is": "goodput at the highest load over saturation",
        "errors": lost + sum(each.errors for each in rounds),
        "rounds": len(rounds),
        "recovery_seconds": statistics.median(came) if len(came) == len(recoveries) else None,
        "recovery_seconds_max": max(came) if len(came) == len(recoveries) else None,
        "normal_p99_ms": statistics.median(each.normal_p99_ms for each in rounds),
        "offered": [_medians(same) for same in offered],
        "refusals": dict(sum((each.refusals for each in rounds), Counter[str]()).most_common()),
        "memory_before_mib": {part: round(mebibytes, 1) for part, mebibytes in memory.before.items()},
        "memory_highest_mib": {part: round(mebibytes, 1) for part, mebibytes in memory.highest.items()},
        "memory_growth_mib": round(memory.highest["workers"] - memory.before["workers"], 1),
        "timeline": [window._asdict() for window in rounds[-1].windows],
        "settings": dict(settings),
    }


def _medians(same: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(each[key] for each in same), 3) for key in same[0]}


def table(whole: Mapping[str, Any]) -> Table:
    """Return the loads of a result for people."""
    shown = Table(title="Overload: commits a second", title_justify="left", box=box.SIMPLE_HEAD)
    keys = (
        "times_saturation",
        "offered_per_s",
        "sent_per_s",
        "answered_per_s",
        "refused",
        "errors",
        "p50_ms",
        "p99_ms",
    )
    for key in keys:
        shown.add_column(key.replace("_", " "), justify="right")
    for load in whole["offered"]:
        shown.add_row(*(f"{load[key]:,}" for key in keys))
    return shown


def main(  # noqa: PLR0913, PLR0917  - the options of the command line
    rounds: Annotated[int, typer.Option(help="How often everything is repeated.")] = 3,
    seconds: Annotated[float, typer.Option(help="How long each load lasts.")] = 8.0,
    recovery_seconds: Annotated[float, typer.Option(help="How long the load is low afterwards.")] = 6.0,
    offered: Annotated[str, typer.Option(help="Loads in times of saturation, the highest last.")] = "1,2,3",
    lines: Annotated[int, typer.Option(help="Lines of a receipt.")] = 10,
    promotions: Annotated[int, typer.Option(help="Promotions of the programme.")] = 200,
    concurrency: Annotated[int, typer.Option(help="Commits under way while the server warms up.")] = 128,
    workers: Annotated[int, typer.Option(help="Processes of the server.")] = 2,
    books: Annotated[int, typer.Option(help="Books of the ledger; the service's own default.")] = 4,
    members: Annotated[int, typer.Option(help="Members who shop.")] = 4_000,
    clients_count: Annotated[int, typer.Option("--clients", help="Processes of the client.")] = 2,
    connections: Annotated[int, typer.Option(help="Registers, each with a connection of its own.")] = 512,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Ask a server for more than it can do, as registers would that wait three seconds, and see what it does."""
    size = ShopSize(lines, promotions, members, terminals=connections)
    shape = LoadShape(workers, books, clients_count, connections, concurrency)
    times = sorted(float(each) for each in offered.split(","))
    settings: dict[str, Any] = {
        **size._asdict(),
        **shape._asdict(),
        "times_saturation": times[-1],
        "seconds": seconds,
        "recovery_seconds": recovery_seconds,
        "timeout_seconds": REGISTER_TIMEOUT_SECONDS,
        "machine": machine(),
    }
    with open_arena(size, shape) as arena:
        heads_before = arena.shop.heads()
        saturated = saturation(arena, ("ours",), _SATURATION_SECONDS, _WARM_UP_SECONDS, lean=True)["ours"]
        narrator.print(f"saturation: {saturated:,.0f}/s")
        plan, memory, played = Plan(saturated, times, seconds, recovery_seconds), Memory(arena.shop), []
        for number in range(1, rounds + 1):
            played.append(play(arena, plan, memory, seed=10 * number))
            worst = played[-1].stretches[-1]
            narrator.print(
                f"round {number} of {rounds}: goodput {worst.answered / worst.seconds:,.0f}/s at "
                f"{worst.times_saturation:g} times saturation, refused {worst.refused:,}, "
                f"normal again after {played[-1].recovery} s, errors {played[-1].errors}"
            )
        lost = unproven(arena, heads_before)
        settings |= facts(arena)
        whole = result(played, memory, plan, lost, settings)
    console = results_console()
    console.print(table(whole))
    for name, value in whole.items():
        if name not in {"offered", "timeline"}:
            console.print(f"{name}: {value}", markup=False)
    if json:
        print_json(whole)


if __name__ == "__main__":
    typer.run(main)
