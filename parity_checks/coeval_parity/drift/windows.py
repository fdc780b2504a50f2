"""Which instants a window holds, and which windows of the same weekday came before it. Pure.

Instants are microseconds since the epoch, UTC; spans are [start, end).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coeval.spec.time import DAY

WEEK = 7 * DAY
Span = tuple[int, int]


def last_window(latest: int, length: int, until: int | None = None) -> Span:
    """The window that ends at `until`; else with the last whole day before the latest instant, or that of a table that
    has less than one."""
    end = until if until is not None else (latest // DAY) * DAY
    return end - length, end


def earlier_windows(window: Span, weeks: int) -> list[Span]:
    """The windows of the same length and weekday before it, the latest first; none overlap."""
    start, end = window
    step = -(-(end - start) // WEEK) * WEEK
    return [(start - number * step, end - number * step) for number in range(1, weeks + 1)]


def members(instants: NDArray[np.int64], windows: list[Span]) -> NDArray[np.int64]:
    """To which window each instant belongs; -1: to none."""
    found = np.full(len(instants), -1, dtype=np.int64)
    for number, (start, end) in enumerate(windows):
        found[(instants >= start) & (instants < end)] = number
    return found
