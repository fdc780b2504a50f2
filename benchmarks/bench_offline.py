"""What offline features cost: as-of joins and windows beside Feast, Spark and DuckDB doing the same, and bare numpy.

Each case is a process of its own, in turns on one machine; its processor seconds are those of its whole process tree
(Java, Python workers) from when its engine had started. Writes benchmarks/results/offline.json and prints it as a
table. QUICK=1 takes smaller sizes; the shape is the same.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.offline_catalog import write_world
from benchmarks.report import QUICK, ROOT, Figures, aim, publish

SCALE = 20 if QUICK else 1
TIMEOUT = 120 if QUICK else 900
CAP = 4 * 2**30
"""Bytes that a capped case may use, its whole process tree together."""
_GROUPS = Path("/sys/fs/cgroup/memory")


def main() -> None:
    """Measure everything, write the result, print the table."""
    with tempfile.TemporaryDirectory(prefix="coeval-bench-") as directory:
        bench = Bench(Path(directory))
        cases = [*_asof(bench), *_windows(bench), *_growth(bench), *_memory(bench)]
    publish("offline", cases, _aims(cases))


class Bench:
    """Worlds by size, each made once, and the cases over them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cases = 0

    def world(self, events: int, spine: int, *, hot: bool = False) -> Path:
        """The home directory of a world."""
        home = self.directory / f"{events}-{spine}{'-hot' if hot else ''}"
        if not home.exists():
            write_world(home, events // SCALE, spine // SCALE, hot=hot)
        return home

    def run(self, case: str, system: str, view: str, home: Path, **more: Any) -> Figures:
        """A case's figures; where it did not end well, why."""
        self.cases += 1
        out = self.directory / f"out{self.cases}"
        group = more.pop("group", None)
        work = {"system": system, "view": view, "home": str(home), "out": str(out), **more}
        command = [sys.executable, "-m", "benchmarks.offline_case", json.dumps(work)]
        join = (lambda: (group / "cgroup.procs").write_text("0")) if group else None
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False, preexec_fn=join
            )
        except subprocess.TimeoutExpired:
            return {"case": case, "system": system, "failed": f"not done after {TIMEOUT} s"}
        if done.returncode:
            return {"case": case, "system": system, "failed": done.stderr.strip().splitlines()[-1][:200]}
        figures = {"case": case, "system": system, **json.loads(done.stdout.splitlines()[-1])}
        print(figures, file=sys.stderr)
        return figures | {"out": str(out)}


def _sized(what: str, events: int, spine: int) -> str:
    return f"{what} {events // SCALE:,} x {spine // SCALE:,}"


def _asof(bench: Bench) -> Iterator[Figures]:
    for events, spine, systems in (
        (100_000, 20_000, ("coeval on spark", "coeval locally", "feast")),
        (500_000, 100_000, ("coeval on spark", "coeval locally", "feast")),
        (5_000_000, 1_000_000, ("coeval on spark", "coeval locally", "duckdb", "duckdb asof")),
    ):
        name, home = _sized("as-of", events, spine), bench.world(events, spine)
        found = [bench.run(name, system, "latest", home) for system in systems]
        yield from _compared(found, exclude=("feast", "duckdb asof"))
    shutil.rmtree(home)


def _windows(bench: Bench) -> Iterator[Figures]:
    name, home = _sized("windows", 200_000, 50_000), bench.world(200_000, 50_000)
    systems = ("coeval on spark", "coeval locally", "spark range join", "duckdb", "numpy kernel")
    yield from _compared([bench.run(name, system, "spend", home) for system in systems], exclude=("numpy kernel",))


def _growth(bench: Bench) -> Iterator[Figures]:
    for factor in (1, 2, 4, 8):
        events, spine = factor * 1_000_000, factor * 250_000
        name, home = _sized("windows", events, spine), bench.world(events, spine)
        for system in ("coeval on spark", "coeval locally", "numpy kernel"):
            yield _told(bench.run(name, system, "spend", home))
    name, home = (
        _sized("windows, half of it one card,", 4_000_000, 1_000_000),
        bench.world(4_000_000, 1_000_000, hot=True),
    )
    for system in ("coeval on spark", "coeval locally", "numpy kernel"):
        yield _told(bench.run(name, system, "spend", home))


def _memory(bench: Bench) -> Iterator[Figures]:
    """The largest world and the hot one with four gigabytes for Java, Python and what they buffer, all together."""
    with _capped() as group:
        for events, spine, hot in ((8_000_000, 2_000_000, False), (4_000_000, 1_000_000, True)):
            name = _sized(f"{'hot ' if hot else ''}windows in 4 GB", events, spine)
            if group is None:
                yield {"case": name, "system": "coeval on spark", "failed": "no memory control group to be had here"}
                continue
            home = bench.world(events, spine, hot=hot)
            (group / "memory.max_usage_in_bytes").write_text("0")
            found = _told(bench.run(name, "coeval on spark", "spend", home, driver_memory="1g", group=group))
            yield found | {"peak_mb": int((group / "memory.max_usage_in_bytes").read_text()) >> 20}


@contextmanager
def _capped() -> Iterator[Path | None]:
    """A control group that ends what takes more memory than the cap; None where there is none to be had."""
    group = _GROUPS / "coeval-bench"
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(CAP))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def _compared(found: Sequence[Figures], exclude: Sequence[str]) -> Iterator[Figures]:
    """The cases, each with the number of values in which it differs from the first one."""
    first = _answer(found[0])
    for case in found:
        if case is found[0] or "out" not in case or case["system"] in exclude:
            yield _told(case)
        else:
            yield _told(case) | {"differences": _differences(first, _answer(case))}


def _told(case: Figures) -> Figures:
    return {name: value for name, value in case.items() if name != "out"}


def _answer(case: Figures) -> pa.Table:
    return pq.read_table(case["out"]).sort_by("n")


def _differences(one: pa.Table, other: pa.Table) -> int:
    """Values that differ; what is counted, added up or chosen exactly, means to nine digits."""
    names = [name for name in one.column_names if "__" in name]
    return sum(
        not _same(a, b)
        for name in names
        for a, b in zip(one.column(name).to_pylist(), other.column(name).to_pylist(), strict=True)
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return bool(one == other)


def _aims(cases: Sequence[Figures]) -> list[Figures]:
    """Of ours as it is chosen for such sizes (without Spark, up to 4 GB), and of ours on Spark."""
    few, asof, small, large = "as-of 100,000", "as-of 5,000,000", "windows 200,000", "windows 8,000,000"
    found: list[Figures] = []
    for ours, named in (("coeval locally", "as chosen"), ("coeval on spark", "on Spark")):
        feast, duckdb = _ratio(cases, few, "feast", ours), _ratio(cases, asof, ours, "duckdb")
        naive, bare = _ratio(cases, small, "spark range join", ours), _ratio(cases, large, ours, "numpy kernel")
        found += [
            aim(f"as-of 100k x 20k, CPU of Feast over ours {named}", feast, 15, True),
            aim(f"as-of 5M x 1M, CPU of ours {named} over exact DuckDB", duckdb, 0.7, False),
            aim(f"windows 200k x 50k, CPU of Spark's range join over ours {named}", naive, 5, True),
            aim(f"windows 8M x 2M, CPU of ours {named} over the bare kernel", bare, 6, False),
        ]
    return found


def _ratio(cases: Sequence[Figures], case: str, one: str, other: str) -> float | None:
    """CPU seconds of one system over those of another."""
    used = {item["system"]: item.get("cpu_seconds") for item in cases if item["case"].startswith(case)}
    mine, theirs = used.get(one), used.get(other)
    return round(mine / theirs, 2) if mine and theirs else None


if __name__ == "__main__":
    main()
