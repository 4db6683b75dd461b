"""The load tests' own options of the command `locust`, beside those that Locust has."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple, Self

from locust.argument_parser import LocustArgumentParser

from benchmarks.locust.prepared import DEFAULT_PATH
from benchmarks.locust.results import Limits


class Options(NamedTuple):
    """The options of a run, read."""

    prepared: Path
    pace_seconds: float
    scan_seconds: float
    tour: bool
    limits: Limits
    ceiling_seconds: float
    summary_json: Path | None

    @classmethod
    def of(cls, parsed: Namespace) -> Self:
        """Read them.

        Raises:
            ValueError: one of them is not as it must be; the message says how.
        """
        if parsed.pace_seconds < 0 or parsed.scan_seconds < 0:
            raise ValueError("--pace-seconds and --scan-seconds cannot be negative")
        return cls(
            Path(parsed.prepared),
            parsed.pace_seconds,
            parsed.scan_seconds,
            parsed.tour,
            Limits.parse(parsed.p99_ms, parsed.error_budget),
            parsed.ceiling_seconds,
            Path(parsed.summary_json) if parsed.summary_json else None,
        )


def add_options(parser: LocustArgumentParser) -> None:
    """Add them to Locust's own."""
    parser.add_argument(
        "--prepared",
        default=str(DEFAULT_PATH),
        env_var="TALLYPOINT_LOCUST_PREPARED",
        include_in_web_ui=False,
        help="The file that `python -m benchmarks.locust.prepare` wrote.",
    )
    parser.add_argument(
        "--pace-seconds",
        type=float,
        default=10.0,
        help="A lane begins a checkout every so many seconds, by a schedule that waits for nobody. "
        "0 begins the next one when the last one is over.",
    )
    parser.add_argument(
        "--scan-seconds",
        type=float,
        default=0.0,
        help="The mean time for which goods are scanned between two quotes of a basket.",
    )
    parser.add_argument(
        "--tour",
        action="store_true",
        help="Every lane begins with a checkout of each kind, one after the other: a quick look whether all is well.",
    )
    parser.add_argument(
        "--p99-ms",
        default="",
        help="What must not be exceeded, in milliseconds: 250 for all calls, or by kind: "
        "'Commit=250, Quote=100, Checkout=2000, 500' (the last one for all others).",
    )
    parser.add_argument(
        "--error-budget",
        type=float,
        default=Limits().error_budget,
        help="The share of calls that may fail. Wrong answers are never within it.",
    )
    parser.add_argument(
        "--ceiling-seconds",
        type=float,
        default=3.0,
        include_in_web_ui=False,
        help="How long to measure, before the run, how many calls this generator manages at all; 0 does not.",
    )
    parser.add_argument(
        "--summary-json", default="", include_in_web_ui=False, help="A file for the summary as JSON, for pipelines."
    )
