"""One case of the clean parity benchmark, in a process of its own: our whole run, or a plain diff of its two tables.

Its argument is JSON (system, home, tables). It prints seconds and processor seconds: of the work, and of the whole
process with all below it, start included.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.offline_case import tree_cpu
from coeval.settings import load_settings
from coeval.spec.types import Kind

Report = dict[str, Any]


def coeval(work: Mapping[str, Any], report: Report) -> None:
    """`run_parity` over all keys and views; what it compared is written for the others, which does not count."""
    from coeval.client import read_manifest
    from coeval_parity import run, screen
    from coeval_parity.result import Cause

    spent = {"compare": 0.0, "export": 0.0}
    plain_compare, plain_screen = screen.compare, run.screen

    def compared(*arguments: Any) -> Any:
        begun = time.perf_counter()
        found = plain_compare(*arguments)
        spent["compare"] += time.perf_counter() - begun
        return found

    def screened(*arguments: Any) -> Any:
        found = plain_screen(*arguments)
        begun, used = time.perf_counter(), tree_cpu()
        _export(Path(work["tables"]), found)
        spent["export"] += time.perf_counter() - begun
        report["export_cpu"] = report.get("export_cpu", 0.0) + tree_cpu() - used
        return found

    screen.compare, run.screen = compared, screened
    settings = load_settings()
    begun, used, engine = time.perf_counter(), tree_cpu(), []
    result = run.run_parity(settings, read_manifest(settings.manifest_path), on_progress=engine.append)
    report |= {
        "seconds": time.perf_counter() - begun - spent["export"],
        "cpu_seconds": tree_cpu() - used - report.pop("export_cpu"),
        "compare_seconds": spent["compare"],
        "keys": result.keys,
        "values": result.compared,
        "differences": result.compared - result.matched,
        "unexplained": result.causes.get(Cause.UNEXPLAINED, 0),
        "engine": next(line for line in engine if "asked for" in line or "Spark" in line),
        "export_seconds": spent["export"],
    }


def _export(tables: Path, found: Any) -> None:
    """The two tables of a view: what was expected, and what was served."""
    sides = {"expected": found.expected, "served": found.served.columns}
    for side, columns in sides.items():
        (tables / side).mkdir(parents=True, exist_ok=True)
        table = pa.table({"key": pa.array(found.served.keys)} | {name: _array(one) for name, one in columns.items()})
        pq.write_table(table, tables / side / f"{found.look.view.name}.parquet")
    kinds = {field.name: field.type.kind.value for field in found.look.view.features}
    (tables / f"{found.look.view.name}.json").write_text(json.dumps(kinds))


def _array(column: Any) -> pa.Array:
    """Physical values; exact integers of more than 64 bits as decimals."""
    values = column.values
    wide = values.dtype == object and not any(isinstance(item, str) for item in values[~column.null][:1])
    if values.dtype == object:
        kind = pa.decimal128(38, 0) if wide else pa.string()
        known = np.where(column.null, None, values)
        return pa.array([None if item is None else item for item in known.tolist()], kind)
    return pa.array(values, mask=column.null)


def _query(tables: Path, view: str) -> str:
    """A full outer join of the two tables of a view: rows, and values that differ, doubles beyond 1e-9."""
    kinds = json.loads((tables / f"{view}.json").read_text())
    differs = " + ".join(_differs(name, kind) for name, kind in kinds.items())
    return (
        f"SELECT count(*), count(*) * {len(kinds)}, sum({differs}) "  # noqa: S608 - our own names
        f"FROM expected_{view} e FULL OUTER JOIN served_{view} s ON e.key = s.key"
    )


def _differs(name: str, kind: str) -> str:
    one, other = f"e.{name}", f"s.{name}"
    same = f"{one} IS NOT DISTINCT FROM {other}"
    if kind == Kind.FLOAT64.value:
        same += f" OR coalesce(abs({one} - {other}) <= 1e-9 * greatest(abs({one}), abs({other})), false)"
    return f"CASE WHEN {same} THEN 0 ELSE 1 END"


def duckdb(work: Mapping[str, Any], report: Report) -> None:
    """The diff in DuckDB, on both processors."""
    import duckdb as engine

    tables = Path(work["tables"])
    with engine.connect() as connection:
        connection.execute("SET threads = 2")

        def ask(view: str) -> Any:
            for side in ("expected", "served"):
                file = tables / side / f"{view}.parquet"
                connection.execute(f"CREATE VIEW {side}_{view} AS SELECT * FROM '{file}'")  # noqa: S608
            return connection.execute(_query(tables, view)).fetchone()

        _diff(tables, ask, report)


def spark(work: Mapping[str, Any], report: Report) -> None:
    """The diff in Spark, in the session that we would use."""
    from coeval_pipelines.offline.session import spark_session

    tables = Path(work["tables"])
    with spark_session(load_settings()) as session:

        def ask(view: str) -> Any:
            for side in ("expected", "served"):
                session.read.parquet(str(tables / side / f"{view}.parquet")).createOrReplaceTempView(f"{side}_{view}")
            return session.sql(_query(tables, view)).first()

        _diff(tables, ask, report)
        report |= _process()


def _diff(tables: Path, ask: Any, report: Report) -> None:
    begun, used = time.perf_counter(), tree_cpu()
    found = [ask(path.stem) for path in sorted(tables.glob("*.json"))]
    report |= {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": tree_cpu() - used,
        "keys": sum(int(rows) for rows, _, _ in found),
        "values": sum(int(values) for _, values, _ in found),
        "differences": sum(int(wrong) for _, _, wrong in found),
    }


def _process() -> Report:
    """What the process took from its start on, with all below it."""
    return {"process_seconds": time.time() - psutil.Process().create_time(), "process_cpu_seconds": tree_cpu()}


SYSTEMS = {"coeval": coeval, "duckdb": duckdb, "spark": spark}


def main() -> None:
    """Do the work, print the report."""
    work = json.loads(sys.argv[1])
    report: Report = {}
    SYSTEMS[work["system"]](work, report)
    report = _process() | report
    print(json.dumps({name: round(item, 2) if isinstance(item, float) else item for name, item in report.items()}))


if __name__ == "__main__":
    main()
