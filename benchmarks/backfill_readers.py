"""Reads features at random instants of a given rate, whether or not those before were answered, until it is ended.

Run as a process of its own: `python -m benchmarks.backfill_readers MANIFEST OUT RATE`. Each line of OUT is when a read
was due (microseconds UTC) and how many milliseconds later it was answered: a store that stalls is charged for all reads
that waited. Reads are answered side by side, as a server's are, up to eight at a time.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coeval.client import FeatureStore, open_redis
from coeval.online.result import Status
from coeval.settings import load_settings
from coeval.spec.manifest import Manifest
from tests.support.payments.drawing import merchant_names

SERVICE = "merchants"
MERCHANTS = 1_000
ROWS, THREADS = 10, 8
_SEED = 20261122


def main() -> None:
    """Read until the process is ended."""
    manifest, out, rate = Manifest.from_json(Path(sys.argv[1]).read_text()), sys.argv[2], float(sys.argv[3])
    choose, names = random.Random(_SEED), merchant_names(MERCHANTS)  # noqa: S311
    settings = load_settings()
    with (
        open(out, "w", buffering=1) as sink,  # noqa: PTH123
        closing(open_redis(settings)) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        store = FeatureStore(manifest, client)

        def read(due: float, wanted: list[str]) -> None:
            found = store.get_features(SERVICE, {"merchant_id": wanted})
            lost = bool((found.codes == Status.UNAVAILABLE).any())
            sink.write(f"{int(due * 1e6)} {(time.time() - due) * 1000:.3f} {int(lost)}\n")

        due = time.time()
        while True:
            due += choose.expovariate(rate)
            time.sleep(max(0.0, due - time.time()))
            pool.submit(read, due, choose.choices(names, k=ROWS)).add_done_callback(_or_end)


def _or_end(done: Future[None]) -> None:
    """A read that fails ends the reader: what it would have measured is no answer."""
    if error := done.exception():
        print(f"a read failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)


@dataclass(frozen=True, slots=True)
class Read:
    """A read: when it was due (microseconds UTC), how long after that it was answered, whether it lacked a value."""

    due: int
    milliseconds: float
    lost: bool


def reads(out: Path) -> Iterator[Read]:
    """What a reader has written so far; a line that is being written is left out."""
    for line in out.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            due, milliseconds, lost = line.split()
            yield Read(int(due), float(milliseconds), lost == "1")


def figures(found: Iterable[Read], begin: int, end: int) -> dict[str, float | int | None]:
    """Percentiles of the reads that were due between two instants (microseconds UTC)."""
    inside = [item for item in found if begin <= item.due < end]
    times = [item.milliseconds for item in inside]
    p50, p99, worst = (float(value) for value in np.quantile(times, [0.5, 0.99, 1.0])) if times else (None, None, None)
    shown = {"p50_ms": p50, "p99_ms": p99, "max_ms": worst}
    rounded = {name: None if value is None else round(value, 2) for name, value in shown.items()}
    return {**rounded, "reads": len(inside), "unavailable": sum(item.lost for item in inside)}


if __name__ == "__main__":
    main()
