"""How fast a load may write: a set rate, and a rate that leaves readers their latency. Pure, but for the waiting.

The law is AIMD, as TCP's: while the p99 of the reads that were measured is within the budget, the rate rises by a fixed
step a second; once it is not, the rate falls to a share of itself. A single call holds the store up for as long as it
takes, whatever the rate, so a call is made no larger than what takes half the budget.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

CALL_SIZE = 1000
"""Updates per call of the store: a few large calls, each short enough not to hold the others up."""
CALLS = 5
"""Calls per round trip, where nobody reads beside."""
SMALLEST_CALL = 20
START, STEP, FLOOR, CEILING = 5_000.0, 1_000.0, 1_000.0, 200_000.0
"""Updates a second: where the rate begins, by how much it rises in a second, and between what it stays.

At the least, a server is busy with them for some 30 ms of a second: what makes reads slow then is something else."""
BACK_OFF = 0.7
"""What is left of the rate once reads are too slow."""
SHARE_OF_BUDGET = 0.5
"""How much of the latency budget one call may take."""
ADAPT_SECONDS = 1.0
"""How often the rate is adapted."""
REMEMBERED = 100
"""Reads that are looked at: of so many, one may be slower than the p99."""
_FORGET = 0.2
"""The weight of the newest call in how long an update takes."""

Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of a load: updates a second (0: any), and milliseconds that reads may take beside (0: any)."""

    writes_per_second: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Flow:
    """How fast is written: updates a second (0: as fast as it goes), how many in a call, how many calls at once."""

    per_second: float = 0.0
    call_size: int = CALL_SIZE
    calls: int = CALLS


def first_flow(limits: Limits) -> Flow:
    """How a load begins."""
    if limits.latency_ms:
        return Flow(_capped(START, limits), SMALLEST_CALL, 1)
    if limits.writes_per_second:
        # A second's worth in one call would be a burst.
        return Flow(limits.writes_per_second, max(1, min(CALL_SIZE, round(limits.writes_per_second / 10))), 1)
    return Flow()


def adapted(flow: Flow, p99_ms: float, limits: Limits) -> Flow:
    """The flow of the next second, where the p99 of the last reads is so long: the law."""
    if p99_ms > limits.latency_ms:
        return replace(flow, per_second=max(FLOOR, flow.per_second * BACK_OFF))
    return replace(flow, per_second=min(CEILING, _capped(flow.per_second + STEP, limits)))


def resized(flow: Flow, seconds_per_update: float, limits: Limits) -> Flow:
    """The flow with calls that take no more than their share of the budget."""
    fits = int(limits.latency_ms / 1000 * SHARE_OF_BUDGET / seconds_per_update) if seconds_per_update else CALL_SIZE
    return replace(flow, call_size=max(SMALLEST_CALL, min(CALL_SIZE, fits)))


def _capped(rate: float, limits: Limits) -> float:
    return min(rate, limits.writes_per_second) if limits.writes_per_second else rate


class TokenBucket:
    """Waits so that on average no more than a rate is taken; a call is taken whole, and waited for before the next.

    What was not taken for a while is not made up for: at most a tenth of a second's worth is kept.
    """

    def __init__(self, clock: Clock = time.monotonic, sleep: Sleep = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._tokens = 0.0
        self._at = clock()

    def take(self, count: int, per_second: float) -> None:
        """Wait until what was taken before is paid for, at that rate, then take `count`."""
        if not per_second:
            return
        self._earn(per_second)
        if self._tokens < 0:
            self._sleep(-self._tokens / per_second)
            self._earn(per_second)
        self._tokens -= count

    def _earn(self, per_second: float) -> None:
        now = self._clock()
        self._tokens = min(per_second / 10, self._tokens + (now - self._at) * per_second)
        self._at = now


class Reads:
    """How long the last reads took; one thread adds, another one looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, milliseconds: float) -> None:
        """A read took so long."""
        with self._lock:
            self._last.append(milliseconds)

    def p99(self) -> float | None:
        """What all of the last reads but one were within, in milliseconds; None: there were not two."""
        with self._lock:
            return sorted(self._last)[-2] if len(self._last) > 1 else None

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._last.clear()


class Throttle:
    """The pace of one load: asked before every call, told after it how long it took."""

    def __init__(
        self,
        limits: Limits = Limits(),
        reads: Reads | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = time.sleep,
    ) -> None:
        self.limits = limits
        self.flow = first_flow(limits)
        self._reads = reads or Reads()
        self._clock = clock
        self._bucket = TokenBucket(clock, sleep)
        self._adapted_at = clock()
        self._per_update = 0.0

    def before(self, updates: int) -> None:
        """Wait until so many updates may be written."""
        self._bucket.take(updates, self.flow.per_second)

    def after(self, updates: int, seconds: float) -> None:
        """A call of so many updates took so long."""
        if not self.limits.latency_ms or not updates:
            return
        each = seconds / updates
        self._per_update = each if not self._per_update else self._per_update + _FORGET * (each - self._per_update)
        self.flow = resized(self.flow, self._per_update, self.limits)
        if self._clock() - self._adapted_at >= ADAPT_SECONDS:
            self._adapt()

    def _adapt(self) -> None:
        p99 = self._reads.p99()
        if p99 is None:
            return
        self._adapted_at = self._clock()
        self.flow = adapted(self.flow, p99, self.limits)
        if p99 > self.limits.latency_ms:
            # What was slow at the old rate says nothing of the new one.
            self._reads.forget()
