"""The report's text from the results of the benchmarks: what was aimed at, what was measured, and tables of it.

Everything here is pure: a dictionary as `results.json` has it goes in, Markdown comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

UNARY_TARGET: Final = 0.60
STREAM_TARGET: Final = 0.50
LEDGER_TARGET: Final = 4.0
LATENCY_TARGET: Final = 4.0
GROWTH_TARGET: Final = 0.9
DISK_TARGET_BYTES: Final = 1_500
CRM_LAG_TARGET_MS: Final = 1_000
CRM_DRAIN_TARGET: Final = 3.0
MANY_PROMOTIONS_TARGET: Final = 1.5
LONG_RECEIPT_TARGET: Final = 9.0
QUOTE_TARGET_US: Final = 60.0

Result = Mapping[str, Any]


class Measure(NamedTuple):
    """One figure of the report beside its target."""

    benchmark: str
    what: str
    target: str
    measured: str
    spread: str
    met: bool | None
    """None where nothing is aimed at."""

    @property
    def verdict(self) -> str:
        """Say whether the target was met."""
        return {True: "met", False: "**missed**", None: ""}[self.met]


class Section(NamedTuple):
    """How one benchmark stands in the report."""

    title: str
    measures: Callable[[Any], Iterator[Measure]]
    table: Callable[[Any], list[str]]
    pictures: Sequence[str] = ()
    """Names of plots, without ending; those that were not drawn are left out."""


# --- measures -----------------------------------------------------------------------------------------------------


def _spread(result: Result, key: str = "ratio") -> str:
    return f"{result[f'{key}_min']:,} to {result[f'{key}_max']:,}"


def _at_least(benchmark: str, what: str, result: Result, target: float) -> Measure:
    ratio = result["ratio"]
    return Measure(benchmark, what, f"≥ {target:g}", f"{ratio:.3f}", _spread(result), ratio >= target)


def _commit(result: Result) -> Iterator[Measure]:
    if "stream" in result:
        yield _at_least("commit_vs_echo", "`Commit`, unary, of a bare echo", result, UNARY_TARGET)
        yield _at_least("commit_vs_echo", "`Session` streams, of a bare echo", result["stream"], STREAM_TARGET)
    else:
        yield _at_least("commit_vs_echo", "`Commit`, of a bare echo", result, UNARY_TARGET)


def _ledger(result: Result) -> Iterator[Measure]:
    yield _at_least("ledger_vs_pgbench", "the ledger alone, of pgbench TPC-B", result, LEDGER_TARGET)


def _latency(result: Result) -> Iterator[Measure]:
    ratio = result["ratio"]
    what = "p99 at half the saturation, of the echo's"
    yield Measure("latency", what, f"≤ {LATENCY_TARGET:g}", f"{ratio:.2f}", _spread(result), ratio <= LATENCY_TARGET)


def _overload(result: Result) -> Iterator[Measure]:
    name = "overload"
    times = result["settings"]["times_saturation"]
    what = f"goodput at {times:g} times saturation, of saturation"
    yield Measure(name, what, "", f"{result['ratio']:.2f}", _spread(result), None)
    recovery = result["recovery_seconds"]
    worst = result["recovery_seconds_max"]
    text = "did not" if recovery is None else f"{recovery:.2f} s"
    longest = "did not" if worst is None else f"at most {worst:.2f} s"
    yield Measure(name, "p99 is normal again after", "", text, longest, None)
    growth = result["memory_growth_mib"]
    yield Measure(name, "memory of the workers grew by", "", f"{growth:,.0f} MiB", "", None)


def _growth(result: Result) -> Iterator[Measure]:
    entries = result["entries"]
    what = f"throughput with {entries:,} entries, of an empty ledger"
    yield _at_least("growth", what, result, GROWTH_TARGET)
    size = result["bytes_without_payload"]
    yield Measure(
        "growth",
        f"disk a receipt without its payload, {entries:,} entries",
        f"≤ {DISK_TARGET_BYTES:,} B",
        f"{size:,.0f} B",
        f"payload {result['payload_bytes']:,.0f} B",
        size <= DISK_TARGET_BYTES,
    )


def _crm_lag(result: Result) -> Iterator[Measure]:
    lag = result["lag_ms"]
    what, target = "lag at saturation, p99", f"≤ {CRM_LAG_TARGET_MS:,} ms"
    spread = f"p50 {lag['p50']:,}, highest {lag['max']:,} ms"
    yield Measure("crm_lag", what, target, f"{lag['p99']:,} ms", spread, lag["p99"] <= CRM_LAG_TARGET_MS)
    yield _at_least("crm_lag", "speed of draining a backlog, of the commits'", result, CRM_DRAIN_TARGET)


def _promotions(result: Sequence[Result]) -> Iterator[Measure]:
    name = "promotions"
    equal = {(cell["lines"], cell["promotions"]): cell["median_us"] for cell in result if cell["mix"] == "equal"}
    many = equal[10, 10_000] / equal[10, 10]
    long = equal[100, 200] / equal[10, 200]
    quote = equal[10, 200]
    yield Measure(
        name,
        "a quote under 10,000 promotions, of one under 10",
        f"≤ {MANY_PROMOTIONS_TARGET:g}",
        f"{many:.2f}",
        "",
        many <= MANY_PROMOTIONS_TARGET,
    )
    yield Measure(
        name,
        "a quote of 100 lines, of one of 10",
        f"≤ {LONG_RECEIPT_TARGET:g}",
        f"{long:.2f}",
        "",
        long <= LONG_RECEIPT_TARGET,
    )
    yield Measure(
        name,
        "a quote of 10 lines under 200 promotions, median",
        f"≤ {QUOTE_TARGET_US:g} µs",
        f"{quote:.0f} µs",
        "",
        quote <= QUOTE_TARGET_US,
    )


def _workers(result: Result) -> Iterator[Measure]:
    for each in result["workers"]:
        what = f"`Commit` with {each['workers']} workers, of an echo with {result['settings']['echo_workers']}"
        yield Measure("workers", what, "", f"{each['ratio']:.3f}", _spread(each), None)


# --- tables -------------------------------------------------------------------------------------------------------


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"  # noqa: PLR2004 - three digits say enough
    return f"{value:,}" if isinstance(value, int) else str(value)


def _sides(named: Sequence[tuple[str, Result]]) -> list[str]:
    headings = ("", "ours/s (median)", "baseline/s", "ratio (lowest to highest)", "rounds", "errors")
    keys = ("ours_per_s", "baseline_per_s")
    rows = [
        [
            name,
            *(_number(each[key]) for key in keys),
            f"{each['ratio']} ({each['ratio_min']} to {each['ratio_max']})",
            each.get("rounds", ""),
            each["errors"],
        ]
        for name, each in named
    ]
    return _table(headings, rows)


def _commit_table(result: Result) -> list[str]:
    kinds = [("unary", result), *([("`Session` streams", result["stream"])] if "stream" in result else [])]
    lines = _sides(kinds)
    lines += ["", "Processor time of one commit, µs:", "", *_processor(kinds)]
    if "matrix" in result:
        cells = result["matrix"]
        named = [(f"{cell['lines']:,} lines, {cell['promotions']:,} promotions", cell) for cell in cells]
        lines += ["", "Unary, by lines and promotions:", "", *_sides(named)]
    return lines


def _processor(kinds: Sequence[tuple[str, Result]]) -> list[str]:
    rows: list[tuple[str, Mapping[str, float]]] = []
    for name, each in kinds:
        spent = each.get("processor_us", {})
        rows += [(f"{name}, {side}", spent[side]) for side in ("baseline", "ours") if side in spent]
    parts = list(dict.fromkeys(part for _, spent in rows for part in spent))
    return _table(["", *parts], [[name, *(_number(spent.get(part, "")) for part in parts)] for name, spent in rows])


def _plain_table(result: Result) -> list[str]:
    kinds = [("", result)]
    return [*_sides(kinds), "", "Processor time each, µs:", "", *_processor(kinds)]


def _latency_table(result: Result) -> list[str]:
    headings = ("load", "side", "offered/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "client late, p99 ms", "refused")
    keys = ("offered_per_s", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "client_late_p99_ms", "refused")
    names = {"ours": "ours", "echo": "echo, same share", "echo_at_same_rate": "echo, same rate"}
    rows = [
        [f"{level['load_percent']} %", name, *(_number(level[side].get(key, "")) for key in keys)]
        for level in result["levels"]
        for side, name in names.items()
    ]
    saturation = f"Saturation: ours {result['ours_per_s']:,.0f}/s, echo {result['baseline_per_s']:,.0f}/s."
    return [saturation, "", *_table(headings, rows)]


def _overload_table(result: Result) -> list[str]:
    headings = ("times saturation", "offered/s", "really sent/s", "goodput/s", "refused", "errors", "p50 ms", "p99 ms")
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
    lines = _table(headings, [[_number(each.get(key, "")) for key in keys] for each in result["offered"]])
    lines += ["", "Refused at the highest load, by status and message:", ""]
    lines += _table(("reason", "calls"), [(reason, _number(n)) for reason, n in result["refusals"].items()])
    lines += ["", "Memory, MiB (resident; PostgreSQL's shared memory counts in each of its processes):", ""]
    before, highest = result["memory_before_mib"], result["memory_highest_mib"]
    rows = [(part, _number(before.get(part, "")), _number(highest[part])) for part in highest]
    return [*lines, *_table(("part", "before", "highest under overload"), rows)]


def _growth_table(result: Result) -> list[str]:
    named = [(f"{each['entries']:,} entries", each) for each in result["sizes"]]
    lines = _sides(named)
    tables = list(dict.fromkeys(name for _, each in named for name in each["tables"]))
    headings = ("entries", "filled at/s", "bytes a receipt", "of them payload", "without payload", *tables)
    rows = [
        [
            f"{each['entries']:,}",
            *(
                _number(each[key])
                for key in ("fill_per_s", "bytes_a_receipt", "payload_bytes", "bytes_without_payload")
            ),
            *(_number(each["tables"].get(name, "")) for name in tables),
        ]
        for _, each in named
    ]
    return [*lines, "", "Disk, with indexes:", "", *_table(headings, rows)]


def _crm_table(result: Result) -> list[str]:
    lag = result["lag_ms"]
    lines = ["Ours: draining what gathered while the stream stood still. Baseline: commits that it follows.", ""]
    lines += [*_plain_table(result), "", "Lag of an entry while commits come as fast as they can:", ""]
    return [
        *lines,
        *_table(
            [name if name == "entries" else f"{name}, ms" for name in lag], [[_number(value) for value in lag.values()]]
        ),
    ]


def _promotions_table(result: Sequence[Result]) -> list[str]:
    promotions = sorted({cell["promotions"] for cell in result})
    rows = []
    for mix, lines in dict.fromkeys((cell["mix"], cell["lines"]) for cell in result):
        cells = {cell["promotions"]: cell for cell in result if (cell["mix"], cell["lines"]) == (mix, lines)}
        figures = (cells.get(count) for count in promotions)
        texts = (f"{_number(cell['median_us'])} / {_number(cell['p99_us'])}" if cell else "" for cell in figures)
        rows.append([mix, f"{lines:,}", *texts])
    heading = "µs a quote, median / 99th percentile, by the number of promotions:"
    return [heading, "", *_table(["mix", "lines", *(f"{count:,}" for count in promotions)], rows)]


def _workers_table(result: Result) -> list[str]:
    return _sides([(f"{each['workers']} workers", each) for each in result["workers"]])


SECTIONS: Final[dict[str, Section]] = {
    "commit_vs_echo": Section(
        "A durable commit beside an empty call", _commit, _commit_table, ("processor_time", "batch_sizes", "matrix")
    ),
    "ledger_vs_pgbench": Section("The ledger alone beside pgbench", _ledger, _plain_table),
    "latency": Section("Latency by load", _latency, _latency_table, ("latency", "latency_by_load")),
    "overload": Section("Overload", _overload, _overload_table, ("overload", "recovery")),
    "growth": Section("Growth of the books", _growth, _growth_table, ("growth", "disk")),
    "workers": Section("Worker processes", _workers, _workers_table, ("workers",)),
    "crm_lag": Section("The CRM stream", _crm_lag, _crm_table, ("crm_lag",)),
    "promotions": Section("The evaluator alone", _promotions, _promotions_table, ("promotions",)),
}


def measures(results: Result) -> list[Measure]:
    """Return every figure that the report puts beside a target, also of benchmarks that failed."""
    found: list[Measure] = []
    for name, run in results["benchmarks"].items():
        section = SECTIONS[name]
        if run["status"] != "ok":
            found.append(Measure(name, section.title, "", run["status"], "", None))
            continue
        try:
            found += list(section.measures(run["result"]))
        except (KeyError, TypeError, ZeroDivisionError) as error:
            found.append(Measure(name, section.title, "", f"its result lacks {error}", "", None))
        errors = errors_of(run["result"])
        if errors:
            found.append(Measure(name, "errors", "0", f"{errors:,}", "", met=False))
    return found


def errors_of(result: object) -> int:
    """Return how many wrong or missing answers a result counted, in all of its parts."""
    if isinstance(result, Mapping):
        own = result.get("errors", 0)
        return max(own if isinstance(own, int) else 0, *(errors_of(part) for part in result.values()), 0)
    if isinstance(result, list):
        return max((errors_of(part) for part in result), default=0)
    return 0


def markdown(results: Result, pictures: Sequence[str] = ()) -> str:
    """Return the report.

    Args:
        results: What `results.json` holds.
        pictures: The plots that were drawn, without ending; there is an SVG and a PNG of each.
    """
    lines = ["# Benchmarks", "", f"{results['began_at']}, a {results['length']} round of {results['seconds']:,.0f} s."]
    lines += ["Both sides of every ratio took turns within one run, on one machine that the clients share;"]
    lines += ["`benchmarks/README.md` says what each measures.", "", "## Targets", ""]
    headings = ("benchmark", "what", "target", "measured (median)", "spread", "")
    lines += _table(headings, [(*each[:5], each.verdict) for each in measures(results)])
    lines += ["", "## Machine", "", *_table(("", ""), list(results["machine"].items()))]
    for name, run in results["benchmarks"].items():
        lines += ["", *_section(name, run, pictures)]
    return "\n".join(lines) + "\n"


def _section(name: str, run: Result, pictures: Sequence[str]) -> list[str]:
    section = SECTIONS[name]
    lines = [f"## {section.title}", "", f"`{run['command']}`, {run['seconds']:,.0f} s", ""]
    if run["status"] != "ok":
        return [*lines, f"**{run['status']}**; the end of its output:", "", "```", *run["output_end"], "```"]
    result = run["result"]
    try:
        lines += section.table(result)
    except (KeyError, TypeError) as error:
        lines += [f"Its result has another form than this report knows: {error!r}."]
    for picture in section.pictures:
        if picture in pictures:
            lines += ["", f"![{picture.replace('_', ' ')}]({picture}.svg)"]
    if isinstance(result, Mapping) and "settings" in result:
        lines += ["", *_table(("setting", "value"), _flat(result["settings"]))]
    return lines


def _flat(settings: Result) -> list[tuple[str, object]]:
    """Return settings line by line; the machine stands above."""
    rows: list[tuple[str, object]] = []
    for name, value in settings.items():
        if name == "machine":
            rows.append(("load before", value.get("load_before", "")))
        elif isinstance(value, Mapping):
            rows += [(f"{name}: {key}", each) for key, each in value.items()]
        else:
            rows.append((name.replace("_", " "), value))
    return rows
