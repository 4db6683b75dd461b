"""A Saturday in December, compressed: give it to Locust beside the locustfile.

    locust -f benchmarks/locust/locustfile.py,benchmarks/locust/december_saturday.py --users 60 --day-minutes 20

Lanes open and close as the day goes: three times as many in the evening as in the morning. `--users` is the peak.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, ClassVar, Final

from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser

DAY: Final = (
    (8.0, 1.0),
    (11.0, 1.5),
    (12.5, 2.2),
    (14.5, 1.6),
    (17.0, 2.6),
    (18.5, 3.0),
    (19.5, 2.6),
    (22.0, 0.6),
)
"""Hour of the day, and how much is going on, as multiples of the morning; straight lines between."""
PEAK: Final = max(load for _, load in DAY)
_SPAWN_SECONDS: Final = 5.0
"""Lanes of a step open or close within so many seconds."""
_SECONDS_PER_MINUTE: Final = 60.0


def load_at(share_of_day: float) -> float:
    """Return how much is going on as a share of the peak, `share_of_day` of opening time (0 to 1) gone."""
    hour = DAY[0][0] + share_of_day * (DAY[-1][0] - DAY[0][0])
    for (before, load_before), (after, load_after) in itertools.pairwise(DAY):
        if hour <= after:
            return (load_before + (load_after - load_before) * (hour - before) / (after - before)) / PEAK
    return DAY[-1][1] / PEAK


class DecemberSaturday(LoadTestShape):
    """Opening time from 8 to 22 o'clock in `--day-minutes`."""

    use_common_options: ClassVar[bool] = True

    def tick(self) -> tuple[int, float] | None:
        """Say how many lanes are open now; None at the end of the day."""
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        share = (time.perf_counter() - self.start_time) / (options.day_minutes * _SECONDS_PER_MINUTE)
        if share >= 1:
            return None
        peak = options.num_users or 1
        return max(1, round(peak * load_at(share))), max(1.0, peak / _SPAWN_SECONDS)


def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--day-minutes", type=float, default=10.0, help="How long the Saturday takes.")


_listen: Any = events.init_command_line_parser.add_listener
_listen(_add_options)
