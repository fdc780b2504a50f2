"""A steady rate for an hour: do memory, checkpoints, Redis and freshness stay flat?

Before it, a history of 80 minutes at a fifth of the rate fills every ring of five-minute tiles, which would grow until
each has been used once. Flatness is the slope of a line through the second half, in percent of its mean an hour.
Writes benchmarks/results/soak.json and soak.svg. MINUTES (60) and RATE (500 events a second) are environment variables.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import redis

from benchmarks import rig
from benchmarks.bench_freshness import faultless, sleep_until, soon, watching
from benchmarks.lines import Line, draw
from benchmarks.probe import Seen, probes, quantiles, read_seen, shifted
from benchmarks.report import RESULTS, Figures, aim, publish
from coeval.errors import CoevalError
from coeval_pipelines.streaming.progress import progress
from coeval_pipelines.streaming.sql import source_job
from tests.support.payments.catalog import manifest
from tests.support.payments.produce import Sender

SEED = 20261123
MINUTES = float(os.environ.get("MINUTES", "60"))
RATE = float(os.environ.get("RATE", "500"))
HISTORY_MINUTES = 80
SAMPLE_SECONDS = 10.0
PER_SECOND = 5
"""Probes."""
COUNTS = ("count_24h", "count_7d")
"""Of windows that hold everything there is; that of an hour forgets what came before."""
_KEYS: Mapping[str, float] = {"cards": 2_000, "merchants": 200}
"""Few enough that each is soon in every tile: Redis cannot grow for want of keys."""
FLAT_PERCENT = 5.0
_LATENCIES = ("p50_ms", "p99_ms")


@dataclass
class Samples:
    """What was seen, by name: minutes since the start, and values."""

    minutes: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, minutes: float, found: Mapping[str, float]) -> None:
        """Take one sample; what it does not know is not a number."""
        self.minutes.append(minutes)
        for name in found.keys() - self.values.keys():
            self.values[name] = [float("nan")] * (len(self.minutes) - 1)
        for name, values in self.values.items():
            values.append(found.get(name, float("nan")))


def slope(minutes: Sequence[float], values: Sequence[float]) -> float | None:
    """Percent of its mean by which a line through the second half rises in an hour; None: there are too few points."""
    x, y = np.array(minutes), np.array(values)
    late = (x >= MINUTES / 2) & np.isfinite(y)
    if late.sum() < 3 or not y[late].mean():
        return None
    return round(float(np.polyfit(x[late] / 60, y[late], 1)[0] / y[late].mean() * 100), 2)


def main() -> None:
    """Run the soak, judge it, write and draw it."""
    made = manifest(("card_spend", "latest_payment", "merchant_online"), tenant="soak", topic_prefix="soak.")
    counts: Counter[int] = Counter()
    with rig.bench_stack() as stack:
        start = soon() - HISTORY_MINUTES * 60_000_000
        history = faultless(SEED, RATE / 5, HISTORY_MINUTES * 60, start, **_KEYS)
        rig.preload(stack, made, history)
        probes(history, RATE, counts)
        with rig.deployed(stack, made, start - 8 * 86_400_000_000) as case:
            case.mark_ready()
            rig.await_covered(case)
            _say(f"history of {history.events} events is online; {MINUTES:g} minutes at {RATE:g} events/s follow")
            samples, seen, begun = _soak(case, counts)
            ttl = source_job(made, case.control.runs()[0], {}).state_ttl / 60e6
    _publish(samples, seen, begun, ttl)


def _soak(case: rig.Case, counts: Counter[int]) -> tuple[Samples, list[Seen], int]:
    draft = faultless(SEED + 1, RATE, MINUTES * 60, 0, **_KEYS)
    chosen, samples = probes(draft, PER_SECOND, counts), Samples()
    with Sender(case.settings, case.manifest, paced=True) as sender:
        spec = replace(draft, start=soon())
        with watching(case, shifted(chosen, spec.start), COUNTS) as out:
            usage = rig.Usage(case.stack, writer=case.writer.pid)
            sleep_until(spec.start)
            sending = threading.Thread(target=sender.send, args=(spec,))
            sending.start()
            _every(SAMPLE_SECONDS, sending, lambda: samples.add((rig.now() - spec.start) / 60e6, _sample(case, usage)))
            sender.finish()
    return samples, read_seen(out), spec.start


def _every(seconds: float, thread: threading.Thread, do: Callable[[], None]) -> None:
    while thread.is_alive():
        do()
        thread.join(seconds)


def _sample(case: rig.Case, usage: rig.Usage) -> dict[str, float]:
    found = {f"{name}_mb": size for name, size in usage.now_mb().items()}
    # A component that does not answer just now leaves a gap, which the picture shows.
    with suppress(CoevalError, redis.RedisError):
        found["checkpoint_mb"] = case.checkpoint_bytes() / 2**20
        found["redis_data_mb"] = rig.redis_bytes(case.settings)[0] / 2**20
        found["lag_events"] = float(progress(case.settings, case.manifest, case.control).lag)
    return found


def latencies(seen: Sequence[Seen], begun: int) -> Samples:
    """Percentiles of the windowed view's freshness, minute by minute."""
    by_minute: dict[int, list[float | None]] = {}
    for item in seen:
        by_minute.setdefault((item.due - begun) // 60_000_000, []).append(item.window)
    found = Samples()
    for minute, values in sorted(by_minute.items()):
        found.add(minute + 0.5, {name: quantiles(values)[name] for name in _LATENCIES})
    return found


def _publish(samples: Samples, seen: Sequence[Seen], begun: int, ttl_minutes: float) -> None:
    fresh = latencies(seen, begun)
    slopes = {name: slope(samples.minutes, values) for name, values in samples.values.items() if name != "lag_events"}
    slopes |= {name: slope(fresh.minutes, values) for name, values in fresh.values.items()}
    cases: list[Figures] = []
    for source in (samples, fresh):
        for name, values in source.values.items():
            late = [v for m, v in zip(source.minutes, values, strict=True) if m >= MINUTES / 2]
            figures = {"first": _round(values[0]), "second_half_mean": _round(float(np.nanmean(late or values)))}
            figures |= {"max": _round(float(np.nanmax(values))), "slope_percent_per_hour": slopes.get(name)}
            cases.append({"case": f"soak, {name}", "system": "coeval", **figures})
    aims = [
        aim(
            f"{name} in the second half, percent an hour",
            abs(found) if found is not None else None,
            FLAT_PERCENT,
            False,
        )
        for name, found in slopes.items()
    ]
    lines = [
        Line(name, source.minutes, values) for source in (samples, fresh) for name, values in source.values.items()
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "soak.svg").write_text(draw(lines, "minutes"))
    about = {"minutes": MINUTES, "rate_events_per_s": RATE, "state_ttl_minutes": round(ttl_minutes, 1), **_KEYS}
    publish("soak", cases, aims, settings=about)


def _round(value: float) -> float | None:
    return round(value, 1) if np.isfinite(value) else None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
