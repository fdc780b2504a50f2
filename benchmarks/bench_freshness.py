"""From producing an event to reading it: percentiles at 100 to 10,000 events a second, all on one machine.

Writes benchmarks/results/freshness.json. QUICK=1 measures for a shorter time.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import rig
from benchmarks.probe import POLL_SECONDS, Probe, probes, quantiles, read_seen, shifted
from benchmarks.report import QUICK, Figures, aim, publish
from coeval_pipelines.streaming.options import job_options
from coeval_pipelines.streaming.submit import job_of
from tests.support.payments.catalog import manifest
from tests.support.payments.produce import Sender
from tests.support.payments.shape import Spec

SEED = 20261122
RATES = (100, 1_000, 3_000, 10_000)
SECONDS = 12 if QUICK else 60
WARM_SECONDS = 10 if QUICK else 90
PER_SECOND = 30
"""Probes."""
COUNTS = ("count_1h", "count_24h", "count_7d")
"""One of each granularity: 5 minutes, an hour, a day."""
_AHEAD_MILLISECONDS = 4_000
"""Time to start who watches before the first event is due."""


def faultless(seed: int, rate: float, seconds: float, start: int = 0, **shape: float) -> Spec:
    """Payments only, all good, on time and once: so that the counts of a card are known beforehand.

    `start` is in whole milliseconds, so that moving it moves every time alike.
    """
    none = {f"{name}_share": 0.0 for name in ("refund", "score", "late", "ahead", "boundary", "duplicate", "malformed")}
    return Spec(seed, round(rate * seconds), start, rate, **{**none, **shape})  # type: ignore[arg-type]


def main() -> None:
    """Measure every rate over one deployed stream."""
    counts: Counter[int] = Counter()
    with rig.bench_stack() as stack:
        made = manifest(3, tenant="fresh", topic_prefix="fresh.")
        with rig.deployed(stack, made, rig.now() - 8 * 86_400_000_000) as case:
            case.mark_ready()
            # Java compiles what it runs often, for a minute and more: nothing is measured of that.
            _measure(case, faultless(SEED, 2_000, WARM_SECONDS), counts)
            cases = [_measure(case, faultless(SEED, rate, SECONDS), counts) for rate in RATES]
            settings = _settings(case)
    fastest = cases[-1]
    aims = [
        aim("row view at 10,000 events/s, p50 ms", fastest["row_p50_ms"], 200, at_least=False),
        aim("row view at 10,000 events/s, p99 ms", fastest["row_p99_ms"], 500, at_least=False),
        aim("windowed view at 10,000 events/s, p50 ms", fastest["window_p50_ms"], 200, at_least=False),
        aim("windowed view at 10,000 events/s, p99 ms", fastest["window_p99_ms"], 500, at_least=False),
    ]
    publish("freshness", cases, aims, settings=settings)


def soon() -> int:
    """A moment in whole milliseconds by which whoever watches has started."""
    return (rig.now() // 1000 + _AHEAD_MILLISECONDS) * 1000


def _measure(case: rig.Case, draft: Spec, counts: Counter[int]) -> Figures:
    chosen = probes(draft, PER_SECOND, counts)
    with Sender(case.settings, case.manifest, paced=True) as sender:
        spec = replace(draft, start=soon())
        with watching(case, shifted(chosen, spec.start - draft.start), COUNTS) as out:
            sleep_until(spec.start)
            with rig.Usage(case.stack, writer=case.writer.pid, sender=sender.pid) as usage:
                sender.send(spec)
            sent = sender.finish()
    assert sent == spec.events
    seen = read_seen(out)
    print(f"{spec.rate:g}/s: {len(seen)} probes", file=sys.stderr, flush=True)
    rows, windows = quantiles(item.row for item in seen), quantiles(item.window for item in seen)
    return {
        "case": f"{spec.rate:g} events/s",
        "system": "coeval",
        **{f"row_{name}": value for name, value in rows.items()},
        **{f"window_{name}": value for name, value in windows.items()},
        "probes": len(seen),
        "cpu_cores": {name: cores for name, cores in usage.cores.items() if cores >= 0.02},
    }


def sleep_until(instant: int) -> None:
    """Wait for an instant (microseconds UTC)."""
    time.sleep(max(0.0, (instant - rig.now()) / 1e6))


@contextmanager
def watching(case: rig.Case, chosen: list[Probe], counts: tuple[str, ...]) -> Iterator[Path]:
    """A process that watches these probes; left when it has seen them all. Gives the file that it writes."""
    home = case.settings.home
    paths = {"manifest": home / "probe.manifest.json", "probes": home / "probes.jsonl", "out": home / "seen.jsonl"}
    paths["manifest"].write_text(case.manifest.to_json())
    paths["probes"].write_text("".join(json.dumps(asdict(item)) + "\n" for item in chosen))
    argument = json.dumps({name: str(path) for name, path in paths.items()} | {"counts": counts})
    command = [sys.executable, "-m", "benchmarks.probe", argument]
    with subprocess.Popen(command, env=rig.environment(case.settings)) as watcher:
        try:
            yield paths["out"]
            watcher.wait(90)
        finally:
            watcher.kill()


def _settings(case: rig.Case) -> Figures:
    """What the figures depend on, as it was set."""
    run = case.control.runs()[0]
    job = job_of(case.settings, case.manifest, run)
    options = job_options(case.settings, run, job, "")
    wanted = r"mini-batch|buffer-timeout|checkpointing.interval|parallelism.default|state.backend"
    lingers = sorted(set(re.findall(r"linger\.ms' = '(\d+)'", "\n".join(job.statements))))
    return {
        **{name: value for name, value in options.items() if re.search(wanted, name)},
        "sink linger.ms": ", ".join(lingers),
        "sender linger.ms": "2",
        "poll_ms": POLL_SECONDS * 1000,
    }


if __name__ == "__main__":
    main()
