"""The evaluator as checkout calls it: timed for the metrics, since `server.promotions` measures nothing."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from server import promotions
from server.measuring.metrics import EVALUATION

P = ParamSpec("P")
T = TypeVar("T")


def _timed(evaluate: Callable[P, T]) -> Callable[P, T]:
    """Return the same function, which also says how long it took."""

    @functools.wraps(evaluate)
    def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        begun = time.perf_counter()
        try:
            return evaluate(*args, **kwargs)
        finally:
            EVALUATION.observe(time.perf_counter() - begun)

    return timed


quote: Final = _timed(promotions.quote)
earn_as_paid: Final = _timed(promotions.earn_as_paid)
