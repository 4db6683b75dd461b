"""Randomness for the tests of adversity: another seed in each run, printed, and the same one again on demand."""

from __future__ import annotations

import os
import random

import pytest

SEED_VARIABLE = "ADVERSITY_SEED"


@pytest.fixture
def dice() -> random.Random:
    """A source of randomness whose seed is shown when the test fails."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    print(f"to repeat: {SEED_VARIABLE}={seed}")
    return random.Random(seed)
