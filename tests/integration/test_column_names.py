"""A column may be called what an engine calls something of its own: no value changes by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from coeval.aggregations import AGGREGATIONS
from coeval.reference import value_at
from coeval.settings import Settings
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import RESERVED, Aggregate, BatchSource, EventSource, Field, RowView, View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import HOUR, MINUTE
from coeval.spec.types import INT64, STRING, TIMESTAMP, Physical, to_physical
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.event_log import ingest_history, read_log
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.tables import ENVELOPE
from coeval_pipelines.offline.tiles import batch_tiles, latest_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NAMES = (
    *("ordinal", "reason", "value", "fate", "fresh", "same", "rank", "original", "conflict", "content", "count"),
    *("at", "latest", "key", "tile", "events", "bucket", "hop", "marker", "entity_key", "arrival", "copy_number"),
)
KEY = Field("tag", INT64, nullable=False)
FIELDS = (
    Field("event_id", STRING, nullable=False),
    Field("event_ts", TIMESTAMP, nullable=False),
    KEY,
    *(Field(name, INT64) for name in NAMES),
)
SOURCE = EventSource("odd", "odd", FIELDS, event_id="event_id", event_ts="event_ts", history="odd.parquet")
TABLE = BatchSource("table", "table.parquet", "parquet", FIELDS[1:], event_ts="event_ts")
START = 1_774_000_000_000_000 // HOUR * HOUR


def _views() -> tuple[WindowedView, RowView, RowView]:
    asked = [(function, name) for name in NAMES for function in ("sum", "last")] + [("last", "event_ts")]
    aggregates = tuple(Aggregate(f"{f}_{name}_1h", f, name, HOUR, 5 * MINUTE) for f, name in asked)
    results = [AGGREGATIONS[f].result(SOURCE.field(name).type) for f, name in asked]
    fields = tuple(Field(item.feature, kind) for item, kind in zip(aggregates, results, strict=True))
    features = tuple(Field(name, INT64) for name in NAMES)
    window = with_version(WindowedView("odd_hour", ("tag",), (KEY,), "odd", aggregates, fields), SOURCE)
    latest = with_version(RowView("odd_latest", ("tag",), (KEY,), "odd", features, stream=True), SOURCE)
    row = with_version(RowView("table_row", ("tag",), (KEY,), "table", features, stream=False), TABLE)
    assert isinstance(window, WindowedView)
    assert isinstance(latest, RowView)
    assert isinstance(row, RowView)
    return window, latest, row


WINDOW, LATEST, ROW = _views()
MANIFEST = Manifest(
    "odd", "odd", event_sources=(SOURCE,), batch_sources=(TABLE,), windowed_views=(WINDOW,), row_views=(LATEST, ROW)
)


def _events(partition: int = -1) -> list[Event]:
    found = []
    for number in range(12):
        at = START + number * 4 * MINUTE
        payload: dict[str, Physical] = {name: 100 * number + place for place, name in enumerate(NAMES)}
        values = {"event_id": f"e{number:02}", "event_ts": at, "tag": number % 2} | payload
        found.append(Event(f"e{number:02}", at, at, partition, number, values, at))
    return found


def _write(settings: Settings, events: list[Event]) -> None:
    for name, fields in (("odd.parquet", FIELDS), ("table.parquet", FIELDS[1:])):
        columns = {f.name: logical_array(f.type, [event.values[f.name] for event in events]) for f in fields}
        pq.write_table(pa.table(columns), settings.home / name)


def test_no_name_of_an_engine_changes_a_value(spark: SparkSession, tmp_path: Path) -> None:
    settings, events = Settings(home=tmp_path), _events()
    _write(settings, events)
    report = ingest_history(spark, settings, MANIFEST, SOURCE)
    assert (report.good, report.rejected) == (len(events), {})
    for view in (WINDOW, LATEST, ROW):
        _check_training(spark, settings, view, events)
    log = read_log(spark, settings, MANIFEST, SOURCE)
    latest = {row["__key"]: row for row in latest_rows(LATEST, log, START + 10 * HOUR).collect()}
    tile = {(row["__key"], row["tile"]): row for row in _tiles(spark, settings)}
    for event in events[-2:]:
        key = f"i{event.values['tag']}"
        assert [latest[key][f"value_{name}"] for name in NAMES] == [event.values[name] for name in NAMES]
        found = tile[key, event.event_ts // (5 * MINUTE)]
        assert [found[f"last_{name}"] for name in NAMES] == [event.values[name] for name in NAMES]
        assert found["last_event_ts"] == found["newest_event_ts"] == event.event_ts


def _tiles(spark: SparkSession, settings: Settings) -> list[dict[str, int]]:
    from coeval.aggregations.tiles import tile_plan

    granularity = tile_plan(WINDOW, SOURCE).granularities[0]
    log = read_log(spark, settings, MANIFEST, SOURCE)
    return [row.asDict() for row in batch_tiles(WINDOW, SOURCE, granularity, log, START + 70 * MINUTE).collect()]


def _check_training(spark: SparkSession, settings: Settings, view: View, events: list[Event]) -> None:
    spine = [(tag, START + minutes * MINUTE) for tag in (0, 1, 2) for minutes in (1, 30, 50)]
    frame = spark.createDataFrame(spine, "tag BIGINT, event_timestamp BIGINT")
    rows = point_in_time(spark, settings, MANIFEST, view, frame).toArrow().to_pylist()
    assert len(rows) == len(spine)
    for row in rows:
        truth = value_at(view, MANIFEST.source_of(view), events, (row["tag"],), row["event_timestamp"])
        found = {f.name: to_physical(f.type, row[f"{view.name}__{f.name}"]) for f in view.features}
        assert found == {name: item.value for name, item in truth.items()}, (
            view.name,
            row["tag"],
            row["event_timestamp"],
        )


def test_what_the_log_keeps_is_what_the_catalog_reserves() -> None:
    assert set(ENVELOPE) == RESERVED
