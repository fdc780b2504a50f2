"""Validation of raw records in Arrow batches, by the one written form of the rules. It runs inside Spark's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coeval.spec.model import EventSource
from coeval.spec.records import Event, Reason, Record, parse_record
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.tables import payload


def validator(
    source: EventSource, topic: str, batch: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for `mapInArrow`: records (value, available_at, partition, offset, key, headers) to parsed rows."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for records in batches:
            yield parse_batch(source, records, topic, batch)

    return run


def parse_batch(source: EventSource, records: pa.RecordBatch, topic: str, batch: int) -> pa.RecordBatch:
    """Parse one batch: good rows have a null reason; rejects keep their bytes, key, headers and position only."""
    names = ("value", "available_at", "partition", "offset", "key", "headers")
    raw = [_record(*row) for row in zip(*(records.column(name).to_pylist() for name in names), strict=True)]
    outcomes = [parse_record(source, record) for record in raw]
    events = [None if isinstance(outcome, Reason) else outcome for outcome in outcomes]
    reasons = [outcome.value if isinstance(outcome, Reason) else None for outcome in outcomes]
    good = pa.array([reason is None for reason in reasons], pa.bool_())
    kept = {
        f"__{name}": pc.if_else(good, pa.scalar(None, records.column(name).type), records.column(name))
        for name in ("value", "key", "headers")
    }
    columns = {
        **_envelope(events, records, topic, batch),
        **_payload(source, events),
        "__reason": pa.array(reasons, pa.string()),
        **kept,
    }
    return pa.RecordBatch.from_pydict(columns)


def _record(
    value: bytes | None,
    available_at: int,
    partition: int,
    offset: int,
    key: bytes | None,
    headers: list[dict[str, Any]] | None,
) -> Record:
    pairs = tuple((header["key"], header["value"]) for header in headers or ())
    return Record(value, available_at, partition, offset, key, pairs)


def _envelope(events: list[Event | None], records: pa.RecordBatch, topic: str, batch: int) -> dict[str, pa.Array]:
    rows = len(events)
    return {
        "event_id": pa.array([event and event.event_id for event in events], pa.string()),
        "event_ts": pa.array([event and event.event_ts for event in events], pa.int64()),
        "available_at": records.column("available_at"),
        "topic": pa.array([topic] * rows, pa.string()),
        "partition": records.column("partition").cast(pa.int32()),
        "offset": records.column("offset"),
        "declared_ts": pa.array([event and event.declared_ts for event in events], pa.int64()),
        "batch": pa.array([batch] * rows, pa.int64()),
    }


def _payload(source: EventSource, events: list[Event | None]) -> dict[str, pa.Array]:
    return {
        field.name: logical_array(field.type, [event.values[field.name] if event else None for event in events])
        for field in payload(source)
    }
