"""Which readings of the rules judged an entry: a number that each entry stores, so that old entries stay as booked.

A mended fault changes what the same receipt gives. What was booked before stays: `rules explain`, backtests and
`verify` know by the number which readings an entry was judged by, and show where today's would differ, which is no
fault of the entry.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 0
"""Entries and programme versions that carry no number: all that releases up to 0.4 booked and published."""

CURRENT: Final = 1
"""What new entries are judged by: spending within the rules at the fence, units apart, whole returns, 2026-11."""
