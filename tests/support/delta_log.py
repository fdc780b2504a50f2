"""Events as the Delta table that an ingest would have made of them, written without Spark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from coeval.spec.model import BatchSource, EventSource
from coeval.spec.records import Event
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.tables import payload


def log_table(source: EventSource | BatchSource, events: Sequence[Event]) -> pa.Table:
    """Events as the log of their source holds them."""
    longs = ("event_ts", "available_at", "offset", "declared_ts")
    return pa.table(
        {
            "event_id": pa.array([event.event_id for event in events], pa.string()),
            **{name: pa.array([getattr(event, name) for event in events], pa.int64()) for name in longs},
            "topic": pa.array([""] * len(events), pa.string()),
            "partition": pa.array([event.partition for event in events], pa.int32()),
            "batch": pa.array([1] * len(events), pa.int64()),
            **{f.name: logical_array(f.type, [event.values[f.name] for event in events]) for f in payload(source)},
        }
    )


def write_log(path: Path, source: EventSource, events: Sequence[Event]) -> None:
    """Write a log anew."""
    from deltalake import write_deltalake

    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), log_table(source, events), mode="overwrite")
