"""What came of a run: calls, latencies and failures of all processes, and whether they pass.

Locust rounds latencies to two digits and whole milliseconds; so they are kept here as well, in HDR histograms of
microseconds, exact to three digits. Each process sends what is new to the one that adds up, every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from hdrh.histogram import HdrHistogram
from rich import box
from rich.table import Table

from benchmarks.locust.checks import WrongAnswer
from benchmarks.locust.register import Outcome
from benchmarks.locust.wire import NoAnswer

PERCENTILES: Final = (50.0, 95.0, 99.0, 99.9)
CHECKOUT: Final = "Checkout"
"""Not a call: all the time that a shopper waits, from the moment at which the lane should have begun."""
KINDS: Final = (
    "Connect",
    "Identify",
    "Identify refused",
    "Quote",
    "Hold",
    "Cancel",
    "Commit",
    "Commit again",
    "Return",
    "Return refused",
    CHECKOUT,
)
"""What a limit may be given for."""
_LONGEST_MICROSECONDS: Final = 600_000_000
_DIGITS: Final = 3
_NANOSECONDS_PER_MICROSECOND: Final = 1000
_MICROSECONDS_PER_MILLISECOND: Final = 1000
_BITS: Final = 8
_PER_CENT: Final = 100


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, _LONGEST_MICROSECONDS, _DIGITS)


@dataclass
class Row:
    """What came of the calls of one kind: answered ones by latency, all others by reason."""

    latencies: HdrHistogram = field(default_factory=_histogram)
    failures: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    """How many of the failures were answers that cannot be right."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first failure of each reason, in full."""

    @property
    def calls(self) -> int:
        """All calls, answered or not."""
        return int(self.latencies.get_total_count()) + self.failures.total()

    def milliseconds(self, percentile: float) -> float:
        """Return a percentile of the answered calls."""
        return float(self.latencies.get_value_at_percentile(percentile)) / _MICROSECONDS_PER_MILLISECOND


class Entries:
    """Which entries of the books were answered, one bit each: an entry belongs to one call alone."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}
        self._seen: dict[int, bytearray] = {}
        self.twice: list[tuple[int, int]] = []
        """Book and number of entries that two calls were answered with."""

    def add(self, book: int, number: int) -> None:
        """Take note of an entry."""
        first = self._first.setdefault(book, number // _BITS * _BITS)
        seen = self._seen.setdefault(book, bytearray())
        if number < first:  # seldom: only the first answers arrive out of order
            more = (first - number + _BITS - 1) // _BITS
            seen[:0] = bytes(more)
            self._first[book] = first = first - more * _BITS
        place, bit = divmod(number - first, _BITS)
        if place >= len(seen):
            seen.extend(bytes(place + 1 - len(seen)))
        if seen[place] >> bit & 1:
            self.twice.append((book, number))
        seen[place] |= 1 << bit


class Tally:
    """The rows of a table, by transport ("unary", "session", "lane") and kind of call."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self._entries: dict[int, list[int]] = {}

    def record(self, transport: str, outcome: Outcome) -> None:
        """Take note of a call."""
        row = self.rows.setdefault((transport, outcome.kind), Row())
        error = outcome.error
        if error is None:
            row.latencies.record_value(max(1, outcome.nanoseconds // _NANOSECONDS_PER_MICROSECOND))
        else:
            reason = reason_of(error)
            row.failures[reason] += 1
            row.wrong += isinstance(error, WrongAnswer)
            row.examples.setdefault(reason, str(error))
        if outcome.entry is not None:
            self._entries.setdefault(outcome.entry.book, []).append(outcome.entry.number)

    def news(self) -> dict[str, Any]:
        """Return all that was recorded since the last time, as plain data, and forget it."""
        rows = [
            [transport, kind, row.latencies.encode(), dict(row.failures), row.wrong, row.examples]
            for (transport, kind), row in self.rows.items()
        ]
        entries = list(self._entries.items())
        self.rows, self._entries = {}, {}
        return {"rows": rows, "entries": entries}


class Total:
    """The news of all processes, added up."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.entries = Entries()

    def add(self, news: Mapping[str, Any]) -> None:
        """Add what `Tally.news` gave."""
        for transport, kind, latencies, failures, wrong, examples in news["rows"]:
            row = self.rows.setdefault((transport, kind), Row())
            row.latencies.decode_and_add(latencies)
            row.failures.update(failures)
            row.wrong += wrong
            row.examples = {**examples, **row.examples}
        for book, numbers in news["entries"]:
            for number in numbers:
                self.entries.add(book, number)

    def calls(self) -> dict[tuple[str, str], Row]:
        """Return the rows of calls, without that of whole checkouts."""
        return {name: row for name, row in self.rows.items() if name[1] != CHECKOUT}


def reason_of(error: Exception) -> str:
    """Name a failure in few words, the same for all of a kind."""
    match error:
        case WrongAnswer():
            return f"wrong answer, {error.what}"
        case NoAnswer():
            return error.reason
        case _:
            return type(error).__name__


@dataclass(frozen=True)
class Limits:
    """What a run must keep to."""

    p99_milliseconds: Mapping[str, float] = field(default_factory=dict)
    """By kind of call; "" stands for all that are not named."""
    error_budget: float = 0.001
    """The share of calls that may fail. A wrong answer is never within it."""

    @classmethod
    def parse(cls, p99: str, error_budget: float) -> Limits:
        """Read "250" (for all kinds) or "Commit=250, Quote=100, 500" (the last one for all others).

        Raises:
            ValueError: it is not of that form, or there are no such calls.
        """
        limits: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in p99.split(","))):
            kind, _, milliseconds = (piece.strip() for piece in part.rpartition("="))
            if kind and kind not in KINDS:
                raise ValueError(f"--p99-ms {p99!r}: there are no calls named {kind!r}, but {', '.join(KINDS)}")
            try:
                limits[kind] = float(milliseconds)
            except ValueError:
                raise ValueError(
                    f"--p99-ms {p99!r}: {part!r} is neither milliseconds nor KIND=MILLISECONDS, such as Commit=250"
                ) from None
        if not 0 <= error_budget <= 1:
            raise ValueError(f"--error-budget {error_budget} is no share between 0 and 1")
        return cls(limits, error_budget)


class Finding(NamedTuple):
    """One thing that was judged."""

    passed: bool
    text: str


def judge(total: Total, limits: Limits) -> list[Finding]:
    """Judge a run; it passes if every finding does."""
    return [*_findings_on_amount(total), *_p99(total, limits), *_errors(total, limits.error_budget)]


def _findings_on_amount(total: Total) -> Iterable[Finding]:
    if not any(row.calls for row in total.calls().values()):
        yield Finding(passed=False, text="no call was made")


def _p99(total: Total, limits: Limits) -> Iterable[Finding]:
    others = limits.p99_milliseconds.get("")
    kept = 0
    for (transport, kind), row in sorted(total.rows.items()):
        limit = limits.p99_milliseconds.get(kind, None if kind == CHECKOUT else others)
        if limit is not None and row.latencies.get_total_count():
            p99 = row.milliseconds(99.0)
            if p99 > limit:
                text = f"p99 of {kind} ({transport}) is {p99:,.1f} ms, limit {limit:,g} ms"
                yield Finding(passed=False, text=f"{text}; {row.latencies.get_total_count():,} calls")
            else:
                kept += 1
    if kept:
        yield Finding(passed=True, text=f"p99 of {kept} kinds of call is within its limit")
    seen = {kind for (_, kind), row in total.rows.items() if row.latencies.get_total_count()}
    for kind in limits.p99_milliseconds:
        if kind and kind not in seen:
            yield Finding(passed=False, text=f"p99 of {kind}: no such call was answered")


def _errors(total: Total, budget: float) -> Iterable[Finding]:
    rows = total.calls().values()
    calls, failed = sum(row.calls for row in rows), sum(row.failures.total() for row in rows)
    share = failed / calls if calls else 0.0
    yield Finding(
        share <= budget,
        f"{failed:,} of {calls:,} calls failed: {share * _PER_CENT:.3f} %, budget {budget * _PER_CENT:g} %",
    )
    wrong = sum(row.wrong for row in rows)
    yield Finding(wrong == 0, f"{wrong:,} wrong answers")
    twice = total.entries.twice
    named = f", the first is {twice[0][1]} of book {twice[0][0]}" if twice else ""
    yield Finding(not twice, f"{len(twice):,} entries that two calls were answered with{named}")


def table(total: Total, seconds: float) -> Table:
    """Return the calls of a run of that many seconds for people."""
    shown = Table(title="Calls", title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("")
    shown.add_column("by")
    for heading in ("calls", "calls/s", *(f"p{percentile:g} ms" for percentile in PERCENTILES), "failed"):
        shown.add_column(heading, justify="right")
    for (transport, kind), row in sorted(total.rows.items(), key=lambda item: (item[0][1] == CHECKOUT, item[0])):
        answered = row.latencies.get_total_count() > 0
        times = (f"{row.milliseconds(percentile):,.1f}" if answered else "-" for percentile in PERCENTILES)
        rate = f"{row.calls / seconds:,.1f}"
        shown.add_row(kind, transport, f"{row.calls:,}", rate, *times, f"{row.failures.total():,}")
    return shown


def failure_table(total: Total) -> Table | None:
    """Return the failures by reason, each with an example; None if there were none."""
    failed = [
        (count, kind, transport, reason, row.examples.get(reason, ""))
        for (transport, kind), row in total.rows.items()
        for reason, count in row.failures.items()
    ]
    if not failed:
        return None
    shown = Table(title="Failures", title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("", justify="right")
    for heading in ("call", "by", "reason", "the first one"):
        shown.add_column(heading, overflow="fold")
    for count, *texts in sorted(failed, reverse=True):
        shown.add_row(f"{count:,}", *texts)
    return shown


def as_json(total: Total, seconds: float, findings: Iterable[Finding], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as plain data."""
    findings = list(findings)
    return {
        "passed": all(finding.passed for finding in findings),
        "findings": [finding._asdict() for finding in findings],
        "seconds": round(seconds, 1),
        "calls": [
            {
                "kind": kind,
                "by": transport,
                "calls": row.calls,
                "calls_per_s": round(row.calls / seconds, 1),
                **{f"p{percentile:g}_ms": row.milliseconds(percentile) for percentile in PERCENTILES},
                "failures": dict(row.failures),
            }
            for (transport, kind), row in sorted(total.rows.items())
        ],
        **further,
    }
