"""One case of the offline benchmark, in a process of its own: a world's features by one system, into a Parquet file.

Its argument is JSON (system, view, home, out); it prints seconds and the processor seconds of its whole process tree,
both from when its engine had started.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.offline_catalog import FUNCTIONS, SPAN, WINDOWS, manifest
from coeval.settings import Settings
from coeval.spec.time import DAY, duration, hop_of


def tree_cpu() -> float:
    """Processor seconds of this process and of all below it, of those that have ended too."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def _measured(report: dict[str, float]) -> Iterator[None]:
    begin, used = time.perf_counter(), tree_cpu()
    yield
    report["seconds"] = round(time.perf_counter() - begin, 2)
    report["cpu_seconds"] = round(tree_cpu() - used, 2)


def coeval_spark(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """As a training set is computed: the log from Delta, the service's features, on Spark."""
    from coeval_pipelines.offline.asked import Asked, Inputs
    from coeval_pipelines.offline.service_features import service_features
    from coeval_pipelines.offline.session import spark_session
    from coeval_pipelines.offline.spine import read_spine, staged

    settings = Settings(home=Path(work["home"]))
    settings.spark.driver_memory = work.get("driver_memory", settings.spark.driver_memory)
    asked = Asked.of(manifest(), work["view"])
    with spark_session(settings) as spark, _measured(report):
        frame = read_spine(spark, str(Path(work["home"]) / "spine.parquet"), asked)
        with staged(spark, settings, frame, asked.views) as rows:
            found = service_features(spark, settings, asked, rows, Inputs({"payments": 0}, 0), "available")
            found.write.parquet(work["out"])


def coeval_local(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """The same in this process, without Spark."""
    import pyarrow.parquet as pq

    from coeval_pipelines.offline.arrow_spine import read_table
    from coeval_pipelines.offline.asked import Asked, Inputs
    from coeval_pipelines.offline.small import small_features

    settings = Settings(home=Path(work["home"]))
    asked = Asked.of(manifest(), work["view"])
    with _measured(report):
        spine = read_table(str(Path(work["home"]) / "spine.parquet"), asked)
        pq.write_table(small_features(settings, asked, spine, Inputs({"payments": 0}, 0)), work["out"])
    report["peak_mb"] = _peak_mb()


def _peak_mb() -> int:
    """The most memory that this process had; not getrusage's figure, which begins with that of the process before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


def numpy_kernel(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """The interval kernel over arrays that are there: what the arithmetic alone costs."""
    import pyarrow.parquet as pq

    from coeval_pipelines.arrow import physical_numpy
    from coeval_pipelines.offline.kernel import Events, Spine, Values, window_values

    home = Path(work["home"])
    events, spine = pq.read_table(home / "events.parquet"), pq.read_table(home / "spine.parquet")
    (view,) = manifest().windowed_views
    columns = {"amount": Values(*physical_numpy(events.column("amount")))}
    numbers = {name: events.column(name).to_numpy() for name in ("card_id", "event_ts", "available_at")}
    q = spine.column("event_timestamp").cast("int64").to_numpy()
    asked = Spine(spine.column("card_id").to_numpy(), q)
    with _measured(report):
        window_values(view, manifest().sources["payments"], Events(*numbers.values(), columns), asked)  # type: ignore[arg-type]


def duckdb(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """The same answer in DuckDB's SQL: `latest` by a running maximum, `spend` by a range join."""
    _in_duckdb(work, report, _LATEST if work["view"] == "latest" else _spend("duckdb"))


def duckdb_asof(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """DuckDB's own ASOF join, which knows nothing of when an event became available."""
    _in_duckdb(work, report, _ASOF)


def _in_duckdb(work: Mapping[str, Any], report: dict[str, float], query: str) -> None:
    import duckdb as engine

    with engine.connect(str(Path(work["out"] + ".db"))) as connection:
        connection.execute("SET threads = 2")
        connection.execute("SET TimeZone = 'UTC'")
        for name in ("events", "spine"):
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM '{work['home']}/{name}.parquet'")  # noqa: S608
        with _measured(report):
            connection.execute(f"COPY ({query}) TO '{work['out']}' (FORMAT parquet)")


def spark_naive(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """A range join in Spark's SQL, grouped by spine row: what one writes who has no kernel."""
    from coeval_pipelines.offline.session import spark_session

    settings = Settings(home=Path(work["home"]))
    with spark_session(settings) as spark, _measured(report):
        for name in ("events", "spine"):
            spark.read.parquet(f"{work['home']}/{name}.parquet").createOrReplaceTempView(name)
        spark.sql(_spend("spark")).write.parquet(work["out"])


def feast(work: Mapping[str, Any], report: dict[str, float]) -> None:
    """Feast's Spark offline store, over the same files; it knows nothing of when an event became available."""
    from datetime import timedelta

    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, ValueType
    from feast import Field as FeastField
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.types import Float64, Int64, String

    from coeval_pipelines.offline.session import spark_session

    home = Path(work["home"])
    (home / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: {home}/registry.db\noffline_store: {{type: spark}}\n"
        "online_store: null\nentity_key_serialization_version: 3\n"
    )
    with spark_session(Settings(home=home)):
        store = FeatureStore(repo_path=str(home))
        card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
        types = {"amount": Float64, "points": Int64, "country": String}
        schema = [FeastField(name=name, dtype=kind) for name, kind in types.items()]
        path = f"{home}/events.parquet"
        source = SparkSource(name="payments", path=path, file_format="parquet", timestamp_field="at")
        view = FeatureView(name="latest", entities=[card], schema=schema, source=source, ttl=timedelta(days=3650))
        store.apply([card, view])
        spine = pd.read_parquet(home / "spine.parquet")
        with _measured(report):
            job = store.get_historical_features(entity_df=spine, features=[f"latest:{name}" for name in types])
            job.to_spark_df().write.parquet(work["out"])


_LATEST = """
SELECT n, card_id, event_timestamp, best.amount AS latest__amount, best.points AS latest__points,
       best.country AS latest__country
FROM (
    SELECT n, card_id, t, tag,
           max(fact) OVER (PARTITION BY card_id ORDER BY t, tag ROWS UNBOUNDED PRECEDING) AS best,
           event_timestamp
    FROM (
        SELECT NULL AS n, card_id, available_at AS t, 1 AS tag, NULL::TIMESTAMPTZ AS event_timestamp,
               {'event_ts': event_ts, 'available_at': available_at, 'partition': partition, 'offset': "offset",
                'amount': amount, 'points': points, 'country': country} AS fact
        FROM events
        UNION ALL
        SELECT n, card_id, epoch_us(event_timestamp), 0, event_timestamp, NULL FROM spine
    )
) WHERE tag = 0
"""
_ASOF = """
SELECT n, s.card_id, s.event_timestamp, e.amount AS latest__amount, e.points AS latest__points,
       e.country AS latest__country
FROM spine s ASOF LEFT JOIN events e ON s.card_id = e.card_id AND epoch_us(s.event_timestamp) > e.event_ts
"""


_CALLS: Mapping[str, str] = {
    "count": "COUNT(e.event_ts)",
    "mean": "AVG(CAST(e.amount AS DOUBLE))",
    "stddev": "STDDEV_POP(CAST(e.amount AS DOUBLE))",
}


def _spend(dialect: str) -> str:
    """Every window of every spine row by one range join; sawtooth and availability as the contract has them."""
    q = "epoch_us(s.event_timestamp)" if dialect == "duckdb" else "UNIX_MICROS(s.event_timestamp)"
    columns = []
    for window in WINDOWS:
        hop = hop_of(window)
        inside = f"e.event_ts >= {q} - {window} - ({q} - {window}) % {hop}"
        for name in FUNCTIONS:
            call = _CALLS.get(name, f"{name}(e.amount)")
            columns.append(f"{call} FILTER (WHERE {inside}) AS spend__{name}_{duration(window)}")
    longest, hop = max(WINDOWS), hop_of(max(WINDOWS))
    return f"""
SELECT s.n, s.card_id, s.event_timestamp, {", ".join(columns)}
FROM spine s LEFT JOIN events e
  ON s.card_id = e.card_id AND e.available_at < {q} AND e.event_ts >= {q} - {longest} - ({q} - {longest}) % {hop}
GROUP BY ALL
"""  # noqa: S608


SYSTEMS: Mapping[str, Callable[[Mapping[str, Any], dict[str, float]], None]] = {
    "coeval on spark": coeval_spark,
    "coeval locally": coeval_local,
    "numpy kernel": numpy_kernel,
    "duckdb": duckdb,
    "duckdb asof": duckdb_asof,
    "spark range join": spark_naive,
    "feast": feast,
}


def main() -> None:
    """Run the case."""
    work = json.loads(sys.argv[1])
    report: dict[str, float] = {}
    SYSTEMS[work["system"]](work, report)
    print(json.dumps(report))


if __name__ == "__main__":
    assert SPAN > 30 * DAY
    main()
