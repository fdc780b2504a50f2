"""Parity of a sound store at scale: five million payments, every view and key; beside plain diffs of the same tables.

The state is loaded by `coeval backfill` from a log that was written directly. QUICK=1 takes a fiftieth.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import rig
from benchmarks.bench_backfill import Beside
from benchmarks.payments_log import COUNTRIES, Payments, write_payments
from benchmarks.report import QUICK, Figures, aim
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.time import DAY, HOUR
from tests.support.payments import catalog
from tests.support.payments.shape import HOT_CARD

SEED = 20261122
EVENTS = 100_000 if QUICK else 5_000_000
CARDS, MERCHANTS, MERCHANTS_OF_A_CARD = EVENTS // 100, 1000, 4
"""So many that ten views of them fit in a Redis beside Spark, Flink and the broker: some gigabytes."""
DAYS = 7


def write_log(settings: Settings, made: Manifest, since: int) -> None:
    """A week of payments; one in ten became available up to two days late."""
    rng = np.random.default_rng(SEED)
    at = np.sort(since - rng.integers(1, DAYS * DAY, EVENTS))
    delay = np.where(rng.random(EVENTS) < 0.1, rng.integers(1, 2 * DAY, EVENTS), 0)
    card = rng.integers(0, CARDS, EVENTS)
    merchant = (card * 7 + rng.integers(0, MERCHANTS_OF_A_CARD, EVENTS)) % MERCHANTS
    country = (card + (rng.random(EVENTS) < 0.1)) % len(COUNTRIES)
    known = np.minimum(at + delay, since - 1)
    write_payments(settings, made, rng, Payments(at, known, card + HOT_CARD, merchant, country))


def measure() -> tuple[list[Figures], list[Figures]]:
    """The cases and their aims."""
    made, since = catalog.manifest(10, tenant="clean", topic_prefix="clean."), (rig.now() - HOUR) // DAY * DAY
    with rig.bench_stack(worker_memory="3g") as stack, rig.case(stack, made) as case:
        (case.settings.home / "manifest.json").write_text(made.to_json())
        began = time.monotonic()
        write_log(case.settings, made, since)
        _say(f"a log of {EVENTS:,} events is written in {time.monotonic() - began:.0f} s")
        case.deploy(since)
        began = time.monotonic()
        Beside(case, Path()).finished("backfill", "run", "--latency-budget-ms", "0")
        loading = round(time.monotonic() - began, 1)
        size, _ = rig.redis_bytes(case.settings)
        _say(f"{len(made.views)} views loaded in {loading:.0f} s, {size >> 20:,} MB in Redis")
        world: Figures = {"events": EVENTS, "cards": CARDS, "views": len(made.views), "redis_mb": size >> 20}
        found = [_run(case.settings, system) for system in ("coeval", "duckdb", "spark")]
    cases: list[Figures] = [{"case": "clean, the world", "system": "coeval backfill", **world, "seconds": loading}]
    ours = found[0]
    aims = [
        aim("clean, unexplained values", ours["unexplained"], 0, at_least=False),
        aim("clean, values that differ", ours["differences"], 0, at_least=False),
    ]
    return [*cases, *found, *_ratios(found)], aims


def _run(settings: Settings, system: str) -> Figures:
    """One system in a cold process."""
    work = {"system": system, "tables": str(settings.home / "tables")}
    command = [sys.executable, "-m", "benchmarks.parity_case", json.dumps(work)]
    with (settings.home / f"{system}.log").open("wb") as log:
        done = subprocess.run(command, env=rig.environment(settings), stdout=subprocess.PIPE, stderr=log, check=False)
    if done.returncode:
        raise SystemExit((settings.home / f"{system}.log").read_text()[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    _say(f"{system}: {found}")
    case = "clean, the whole run" if system == "coeval" else "clean, a full outer join of both tables"
    return {"case": case, "system": system, **found, "values_per_s": round(found["values"] / found["seconds"])}


def _ratios(found: Sequence[Figures]) -> list[Figures]:
    """The peers are given the expected values, which our run computes: so its compare step alone, and all of it."""
    ours, *peers = found
    return [
        {
            "case": "clean, ours over a plain join",
            "system": f"coeval over {peer['system']}",
            "compare_step_seconds_ratio": round(ours["compare_seconds"] / peer["seconds"], 3),
            "whole_run_seconds_ratio": round(ours["seconds"] / peer["seconds"], 2),
            "whole_run_cpu_ratio": round(ours["cpu_seconds"] / peer["cpu_seconds"], 2),
        }
        for peer in peers
    ]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
