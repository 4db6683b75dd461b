"""The report's plots, each as SVG and PNG, from the results of the benchmarks. They need matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report_content import CRM_LAG_TARGET_MS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Mapping[str, Any]
Draw = Callable[["Axes"], None]

ENDINGS: Final = ("svg", "png")
OURS: Final = "#2f6f8f"
ECHO: Final = "#b0662f"
SAME_RATE: Final = "#8a8a8a"
_PARTS: Final = ("#8a8a8a", "#2f6f8f", "#7fb069", "#b0662f", "#6d5a93", "#c9a227")
_FEWEST_BARS: Final = 8
_FEW_DECADES: Final = 30
"""An axis with a smaller range would have one or two figures, if only powers of ten had one."""
_STYLE: Final[dict[str, object]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "svg.fonttype": "none",  # text stays text: small files, which can be searched
    "svg.hashsalt": "tallypoint",
}


def draw(results: Result, folder: Path) -> list[str]:
    """Draw what the results have figures for; return the names of the files, without ending.

    Args:
        results: What `results.json` holds.
        folder: Where the files go; there is an SVG and a PNG of each plot.
    """
    drawn = []
    for name, run in results["benchmarks"].items():
        if run["status"] != "ok":
            continue
        for picture, title, drawing in _PLOTS[name](run["result"]):
            _save(folder / picture, title, drawing)
            drawn.append(picture)
    return drawn


def _save(path: Path, title: str, drawing: Draw) -> None:
    from matplotlib import rc_context  # noqa: PLC0415 - only where something is drawn
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only where something is drawn
    from matplotlib.figure import Figure  # noqa: PLC0415 - only where something is drawn

    with rc_context(_STYLE):  # type: ignore[arg-type]  # the stub lists every key by name
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        drawing(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once is enough, and takes most of the time
        for ending in ENDINGS:
            metadata = {"Date": None} if ending == "svg" else None
            figure.savefig(path.with_suffix(f".{ending}"), dpi=130, metadata=metadata)


Plots = Iterator[tuple[str, str, Draw]]


def _commit_plots(result: Result) -> Plots:
    kinds = {"unary": result, **({"stream": result["stream"]} if "stream" in result else {})}
    bars = {
        f"{kind}, {'echo' if side == 'baseline' else side}": each["processor_us"][side]
        for kind, each in kinds.items()
        for side in ("baseline", "ours")
        if "processor_us" in each
    }
    if bars:
        yield "processor_time", "Processor time of one Commit, µs", lambda axes: _stacked(axes, bars)
    sizes = {kind: each["batches"]["up_to"] for kind, each in kinds.items() if each.get("batches", {}).get("up_to")}
    if sizes:
        yield "batch_sizes", "Commits in a batch: share of the batches", lambda axes: _batches(axes, sizes)
    if result.get("matrix"):
        cells = result["matrix"]
        yield "matrix", "Unary Commit of the echo, by lines and promotions", lambda axes: _matrix(axes, cells)


def _stacked(axes: Axes, bars: Mapping[str, Mapping[str, float]]) -> None:
    below = dict.fromkeys(bars, 0.0)
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    for part, colour in zip(parts, _PARTS * 2, strict=False):
        heights = [bar.get(part, 0.0) for bar in bars.values()]
        axes.barh(list(bars), heights, left=list(below.values()), label=part, color=colour)
        below = {name: below[name] + height for name, height in zip(bars, heights, strict=True)}
    _leave_room(axes.set_ylim, len(bars))
    axes.invert_yaxis()
    axes.set_xlabel("µs")
    axes.legend(ncols=len(parts), fontsize=8)


def _batches(axes: Axes, sizes: Mapping[str, Mapping[str, int]]) -> None:
    for offset, (kind, up_to) in enumerate(sizes.items()):
        whole = sum(up_to.values()) or 1
        shares = [count / whole for count in up_to.values()]
        places = [place + 0.4 * offset for place in range(len(up_to))]
        axes.bar(places, shares, width=0.4, label=kind, color=(OURS, ECHO)[offset % 2])
        axes.set_xticks(range(len(up_to)), [bound.removesuffix(".0") for bound in up_to])
    _leave_room(axes.set_xlim, max(map(len, sizes.values())))
    axes.set_xlabel("commits in a batch, up to")
    axes.legend()


def _matrix(axes: Axes, cells: Sequence[Result]) -> None:
    for lines, colour in zip(dict.fromkeys(cell["lines"] for cell in cells), _PARTS, strict=False):
        row = [cell for cell in cells if cell["lines"] == lines]
        label = f"{lines} lines"
        axes.plot([str(cell["promotions"]) for cell in row], [c["ratio"] for c in row], "o-", label=label, color=colour)
    axes.set_xlabel("promotions")
    axes.set_ylabel("ours over echo")
    _from_zero(axes)
    axes.legend()


def _latency_plots(result: Result) -> Plots:
    levels = result["levels"]
    if any(level[side].get("curve") for level in levels for side in ("ours", "echo")):
        yield "latency", "Latency by percentile and load, open loop", lambda axes: _curves(axes, levels)
    if levels:
        yield "latency_by_load", "p50 and p99 by load, open loop", lambda axes: _by_load(axes, levels)


def _curves(axes: Axes, levels: Sequence[Result]) -> None:
    dashes = ("-", "--", "-.", ":")
    for level, dash in zip(levels, dashes * 2, strict=False):
        for side, colour in (("ours", OURS), ("echo", ECHO)):
            points = level[side].get("curve", [])
            places = [100 / (100 - percentile) for percentile, _ in points]
            label = f"{side}, {level['load_percent']} %"
            marker = "o" if len(points) == 1 else ""
            axes.plot(places, [height for _, height in points], dash, marker=marker, label=label, color=colour)
    axes.set_xscale("log")
    _log_scale(axes)
    axes.set_xticks([2, 10, 100, 1000, 10_000], ["p50", "p90", "p99", "p99.9", "p99.99"])
    axes.set_ylabel("ms")
    axes.legend(ncols=2, fontsize=8)


def _by_load(axes: Axes, levels: Sequence[Result]) -> None:
    loads = [level["load_percent"] for level in levels]
    sides = (("ours", OURS), ("echo", ECHO), ("echo_at_same_rate", SAME_RATE))
    for side, colour in sides:
        for key, dash in (("p50_ms", "o--"), ("p99_ms", "o-")):
            label = f"{side.replace('_', ' ')}, {key.removesuffix('_ms')}"
            axes.plot(loads, [level[side].get(key, 0) for level in levels], dash, label=label, color=colour)
    _log_scale(axes)
    axes.set_xticks(loads)
    axes.set_xlabel("load, percent of saturation")
    axes.set_ylabel("ms")
    axes.legend(ncols=3, fontsize=8)


def _overload_plots(result: Result) -> Plots:
    if result["offered"]:
        yield "overload", "Goodput by offered load", lambda axes: _goodput(axes, result)
    if result.get("timeline"):
        yield "recovery", "p99 after the overload ends", lambda axes: _recovery(axes, result)


def _goodput(axes: Axes, result: Result) -> None:
    offered = [each["offered_per_s"] for each in result["offered"]]
    axes.plot(offered, [each["answered_per_s"] for each in result["offered"]], "o-", color=OURS, label="answered OK")
    axes.axhline(result["baseline_per_s"], color=SAME_RATE, linestyle="--", label="saturation")
    axes.set_xlabel("offered a second")
    axes.set_ylabel("a second")
    _from_zero(axes)
    axes.set_xlim(left=0)
    axes.legend()


def _recovery(axes: Axes, result: Result) -> None:
    moments = [each["seconds_after"] for each in result["timeline"]]
    axes.plot(moments, [each["p99_ms"] for each in result["timeline"]], "o-", color=OURS, label="p99")
    axes.axhline(result["normal_p99_ms"], color=SAME_RATE, linestyle="--", label="before the overload")
    axes.axvline(0, color=ECHO, label="load falls to half the saturation")
    _log_scale(axes)
    axes.set_xlabel("s")
    axes.set_ylabel("ms")
    axes.legend()


def _growth_plots(result: Result) -> Plots:
    sizes = result["sizes"]
    if not sizes:
        return
    yield "growth", "Receipts a second by entries in the books", lambda axes: _throughput(axes, sizes)
    yield "disk", "Disk a receipt, bytes with indexes", lambda axes: _disk(axes, sizes)


def _throughput(axes: Axes, sizes: Sequence[Result]) -> None:
    entries = [each["entries"] for each in sizes]
    axes.plot(entries, [each["ours_per_s"] for each in sizes], "o-", color=OURS, label="filled ledger")
    axes.plot(
        entries, [each["baseline_per_s"] for each in sizes], "o--", color=SAME_RATE, label="empty ledger, in turns"
    )
    axes.set_xscale("log")
    _from_zero(axes)
    axes.set_xlabel("entries")
    axes.set_ylabel("receipts a second")
    axes.legend()


def _disk(axes: Axes, sizes: Sequence[Result]) -> None:
    bars = {f"{each['entries']:,} entries": each["tables"] for each in sizes}
    _stacked(axes, bars)
    axes.set_xlabel("bytes")


def _workers_plots(result: Result) -> Plots:
    if result["workers"]:
        yield "workers", "Unary commits a second by worker processes", lambda axes: _workers(axes, result)


def _workers(axes: Axes, result: Result) -> None:
    counts = [str(each["workers"]) for each in result["workers"]]
    axes.bar(counts, [each["ours_per_s"] for each in result["workers"]], color=OURS, width=0.5, label="ours")
    label = f"echo with {result['settings']['echo_workers']} processes, in turns"
    axes.plot(counts, [each["baseline_per_s"] for each in result["workers"]], "o--", color=ECHO, label=label)
    _leave_room(axes.set_xlim, len(counts))
    axes.set_xlabel("workers")
    axes.set_ylabel("commits a second")
    axes.legend()


def _crm_plots(result: Result) -> Plots:
    if result["lag_ms"].keys() - {"entries"}:
        yield "crm_lag", "Lag of the CRM stream while commits come as fast as they can", lambda axes: _lag(axes, result)


def _lag(axes: Axes, result: Result) -> None:
    lag = {name: milliseconds for name, milliseconds in result["lag_ms"].items() if name != "entries"}
    axes.bar(list(lag), list(lag.values()), color=OURS, width=0.5)
    _leave_room(axes.set_xlim, len(lag))
    axes.axhline(CRM_LAG_TARGET_MS, color=SAME_RATE, linestyle="--", label="target of p99")
    axes.set_ylabel("ms")
    axes.legend()


def _promotions_plots(result: Sequence[Result]) -> Plots:
    if result:
        yield "promotions", "Time of a quote by live promotions, median", lambda axes: _quotes(axes, result)


def _quotes(axes: Axes, cells: Sequence[Result]) -> None:
    colours = dict(zip(dict.fromkeys(cell["lines"] for cell in cells), _PARTS, strict=False))
    for mix, lines in dict.fromkeys((cell["mix"], cell["lines"]) for cell in cells):
        row = [cell for cell in cells if (cell["mix"], cell["lines"]) == (mix, lines)]
        places = [cell["promotions"] for cell in row]
        dash = "o-" if mix == "equal" else "s--"
        label = f"{mix}, {lines:,} lines"
        axes.plot(places, [cell["median_us"] for cell in row], dash, label=label, color=colours[lines])
    axes.set_xscale("log")
    _log_scale(axes)
    axes.set_xlabel("promotions")
    axes.set_ylabel("µs")
    axes.legend(ncols=2, fontsize=8)


def _leave_room(set_limits: Callable[[float, float], object], bars: int) -> None:
    """Let bars be no wider than an eighth of the plot, be there only one."""
    middle, half = (bars - 1) / 2, max(bars, _FEWEST_BARS) / 2
    set_limits(middle - half, middle + half)


def _from_zero(axes: Axes) -> None:
    """Let the axis begin at zero, and show what is highest whole."""
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)


def _log_scale(axes: Axes) -> None:
    """Write the figures of a logarithmic axis as they are: 4 and not 4 times ten to the nought."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("{x:,g}" if high < low * _FEW_DECADES else "")


def _no_plots(result: Result) -> Plots:
    del result
    yield from ()


_PLOTS: Final[dict[str, Callable[[Any], Plots]]] = {
    "commit_vs_echo": _commit_plots,
    "ledger_vs_pgbench": _no_plots,
    "latency": _latency_plots,
    "overload": _overload_plots,
    "growth": _growth_plots,
    "workers": _workers_plots,
    "crm_lag": _crm_plots,
    "promotions": _promotions_plots,
}
