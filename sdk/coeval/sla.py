"""What services promise and keep: latency, availability, freshness, as their views' SLAs say. It takes its clock.

A service promises what the weakest of its views promises: their greatest p99, their least availability, and of each
view its own freshness. What is kept is counted minute by minute for six hours, in this process.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from coeval.online.result import FeatureResult, Status

if TYPE_CHECKING:
    from coeval.spec.manifest import Manifest
    from coeval.spec.model import ServiceView

BOUNDS = tuple(round(5e-5 * 2 ** (step / 2), 7) for step in range(41))
"""Upper bounds of the latency histogram in seconds: 50 us to 52 s, each 1.41 times the one before."""
WINDOWS = {"5m": 5, "1h": 60, "6h": 360}
"""Minutes over which the burning of an error budget is told."""
LATENCY_SHARE = 0.99
"""Of requests that have to be as fast as promised."""
_UNAVAILABLE = bytes([Status.UNAVAILABLE])
_MINUTES = max(WINDOWS.values())
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Promise:
    """What a service promises. 0: nothing. `freshness` is in seconds, by view."""

    p99_seconds: float = 0.0
    availability: float = 0.0
    freshness: Mapping[str, float] = field(default_factory=dict)


def promise(manifest: Manifest, views: Iterable[ServiceView]) -> Promise:
    """What a service that reads these views promises."""
    slas = {item.view: manifest.views[item.view].sla for item in views}
    return Promise(
        p99_seconds=max((sla.p99_ms for sla in slas.values()), default=0) / 1e3,
        availability=min((sla.availability for sla in slas.values() if sla.availability), default=0.0),
        freshness={name: sla.freshness / 1e6 for name, sla in slas.items()},
    )


@dataclass(slots=True)
class _Minute:
    number: int
    total: int = 0
    slow: int = 0
    failed: int = 0
    seconds: float = 0.0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, other: _Minute) -> None:
        """Count what another one counted, too."""
        self.total += other.total
        self.slow += other.slow
        self.failed += other.failed
        self.seconds += other.seconds
        self.latency = [one + two for one, two in zip(self.latency, other.latency, strict=True)]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a service kept over the last minutes. A burn of 1 uses up the budget exactly; None: nothing was promised."""

    requests: int
    slow: int
    failed: int
    latency_burn: float | None
    availability_burn: float | None
    p50_seconds: float | None
    p99_seconds: float | None
    p999_seconds: float | None


@dataclass(frozen=True, slots=True)
class ServiceSla:
    """A service's promise and what it kept, by window. `newest` is, by view, the age in seconds of the newest event
    that was served in the last hour: nothing that was served is known to be staler."""

    service: str
    promise: Promise
    kept: Mapping[str, Kept]
    newest: Mapping[str, float]


class _Service:
    def __init__(self, promised: Promise) -> None:
        self.promise = promised
        self.minutes: deque[_Minute] = deque(maxlen=_MINUTES)
        self.before = _Minute(0)
        """All minutes but the last."""
        self.newest: dict[str, int] = {}
        self.looked = 0.0

    def minute(self, number: int) -> _Minute:
        """What is counted in that minute, which is the last."""
        if not self.minutes or self.minutes[-1].number != number:
            if self.minutes:
                self.before.add(self.minutes[-1])
            self.minutes.append(_Minute(number))
        return self.minutes[-1]


class SlaBook:
    """Counts requests of services. Safe to share between threads; noting one takes a few microseconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._services: dict[str, _Service] = {}

    def note(self, service: str, promised: Promise, seconds: float, result: FeatureResult | None) -> None:
        """A request was answered after so many seconds, with a result, or failed on our side (None).

        A result in which anything is UNAVAILABLE counts as failed.
        """
        now = self._clock()
        # Codes are bytes: looking for one in them is ten times as fast as comparing each.
        failed = result is None or _UNAVAILABLE in result.codes.tobytes()
        at = bisect_left(BOUNDS, seconds)
        slow = 0 < promised.p99_seconds < seconds
        with self._lock:
            known = self._services.get(service)
            if known is None:
                known = self._services[service] = _Service(promised)
            known.promise = promised
            counts = known.minute(int(now // 60))
            counts.total += 1
            counts.slow += slow
            counts.failed += failed
            counts.seconds += seconds
            counts.latency[at] += 1
            if result is not None and now - known.looked >= _LOOK_SECONDS:
                known.looked = now
                _note_newest(known, result)

    def report(self) -> list[ServiceSla]:
        """What every service that was asked promised and kept."""
        now, wall = int(self._clock() // 60), self._wall()
        with self._lock:
            return [
                ServiceSla(
                    name,
                    item.promise,
                    {text: _kept(item.promise, item.minutes, now - size) for text, size in WINDOWS.items()},
                    {view: round(wall - at / 1e6, 3) for view, at in item.newest.items()},
                )
                for name, item in sorted(self._services.items())
            ]

    def totals(self) -> Iterator[tuple[str, int, int, int, Sequence[int], float]]:
        """By service since the beginning: requests, slow, failed, how many per bound (and beyond), seconds."""
        found: list[tuple[str, int, int, int, Sequence[int], float]] = []
        with self._lock:
            for name, item in self._services.items():
                all_time = _Minute(0)
                for part in (item.before, item.minutes[-1]):
                    all_time.add(part)
                counts = (all_time.total, all_time.slow, all_time.failed)
                found.append((name, *counts, all_time.latency, all_time.seconds))
        yield from found


def _note_newest(known: _Service, result: FeatureResult) -> None:
    for view, instants in result.event_ts.items():
        newest = int(np.max(instants, initial=0))
        if newest > known.newest.get(view, 0):
            known.newest[view] = newest


def _kept(promised: Promise, minutes: Iterable[_Minute], after: int) -> Kept:
    chosen = [item for item in minutes if item.number > after]
    total, slow, failed = (sum(getattr(item, name) for item in chosen) for name in ("total", "slow", "failed"))
    latency = np.sum([item.latency for item in chosen], axis=0) if chosen else np.zeros(len(BOUNDS) + 1)
    return Kept(
        total,
        slow,
        failed,
        _burn(slow, total, LATENCY_SHARE if promised.p99_seconds else 0.0),
        _burn(failed, total, promised.availability),
        *(_quantile(latency, share) for share in (0.5, 0.99, 0.999)),
    )


def _burn(bad: int, total: int, target: float) -> float | None:
    if not total or not 0 < target < 1:
        return None
    return round(bad / total / (1 - target), 3)


def _quantile(counts: Any, share: float) -> float | None:
    """The upper bound of the bucket in which the quantile lies; None without requests, or beyond the last bound."""
    total = int(np.sum(counts))
    if not total:
        return None
    at = int(np.searchsorted(np.cumsum(counts), share * total))
    return BOUNDS[at] if at < len(BOUNDS) else None
