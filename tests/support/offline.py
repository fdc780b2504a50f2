"""What the offline tests share: a catalog with a batch view, events as tables, answers in physical values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from coeval.settings import Settings
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import BatchSource, Field, RowView, ServiceView, View
from coeval.spec.records import Event, Record
from coeval.spec.types import FLOAT64, STRING, TIMESTAMP, Physical, to_physical
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.tables import log_schema
from tests.support import catalog

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LIMITS = BatchSource(
    name="limits",
    path="limits.parquet",
    format="parquet",
    fields=(
        catalog.CARD,
        Field("set_at", TIMESTAMP, nullable=False),
        Field("loaded_at", TIMESTAMP, nullable=False),
        Field("limit", catalog.MONEY),
        Field("score", FLOAT64),
        Field("tier", STRING),
    ),
    event_ts="set_at",
    available_at="loaded_at",
)


def manifest() -> Manifest:
    """The test catalog with a batch row view beside the streamed ones, and in its service."""
    base = catalog.manifest()
    features = tuple(LIMITS.field(name) for name in ("limit", "score", "tier"))
    view = with_version(RowView("card_limit", ("card",), (catalog.CARD,), "limits", features, stream=False), LIMITS)
    service = base.services[0]
    used = ServiceView(view.name, view.version, tuple(field.name for field in features))
    return replace(
        base,
        batch_sources=(LIMITS,),
        row_views=(view, *base.row_views),  # type: ignore[arg-type]
        services=(replace(service, views=(*service.views, used)),),
    )


def limit_rows(rows: Sequence[tuple[int, int, int, int, float, str]]) -> list[Event]:
    """Rows (card, set_at, loaded_at, limit in cents, score, tier) as the events that the oracle takes."""
    ordered = sorted(rows, key=lambda row: (row[1], row[0], row[2:]))
    return [
        Event(
            "", row[1], row[2], -1, number,
            dict(zip(("card_id", "set_at", "loaded_at", "limit", "score", "tier"), row, strict=True)), row[1],
        )
        for number, row in enumerate(ordered)
    ]  # fmt: skip


def write_limits(settings: Settings, rows: Sequence[Event]) -> None:
    """Write the batch source's file."""
    columns = {f.name: logical_array(f.type, [row.values[f.name] for row in rows]) for f in LIMITS.fields}
    pq.write_table(pa.table(columns), settings.home / LIMITS.path)


def event_frame(spark: SparkSession, events: Sequence[Event]) -> DataFrame:
    """Events of the payments as their log would hold them."""
    fields = [field for field in catalog.PAYMENTS.fields if field.name != "event_id"]
    table = pa.table(
        {
            "event_id": pa.array([event.event_id for event in events], pa.string()),
            "event_ts": pa.array([event.event_ts for event in events], pa.int64()),
            "available_at": pa.array([event.available_at for event in events], pa.int64()),
            "topic": pa.array(["payments"] * len(events), pa.string()),
            "partition": pa.array([event.partition for event in events], pa.int32()),
            "offset": pa.array([event.offset for event in events], pa.int64()),
            "declared_ts": pa.array([event.declared_ts for event in events], pa.int64()),
            "batch": pa.array([1] * len(events), pa.int64()),
            **{f.name: logical_array(f.type, [event.values[f.name] for event in events]) for f in fields},
        }
    )
    return spark.createDataFrame(table, log_schema(catalog.PAYMENTS))


def answers(view: View, frame: DataFrame) -> dict[int, dict[str, Physical]]:
    """The physical feature values of a result, by the spine's column `n`."""
    rows = frame.toArrow().to_pylist()
    return {
        row["n"]: {f.name: to_physical(f.type, row[f"{view.name}__{f.name}"]) for f in view.features} for row in rows
    }


def produce(bootstrap: str, topic: str, records: Sequence[Record]) -> None:
    """Put records on a topic, each in its partition, with its availability as the record's timestamp."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20)
    for record in records:
        at, headers = record.available_at // 1000, list(record.headers)
        producer.send(topic, record.value, record.key, headers, partition=record.partition, timestamp_ms=at)
    producer.flush()
    producer.close()


def spine_path(directory: Path, table: pa.Table, name: str = "spine.parquet") -> Path:
    """Write a spine."""
    path = directory / name
    pq.write_table(table, path)
    return path
