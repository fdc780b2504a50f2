"""Cases as Spark frames: their good events as the log would hold them, and the spine of a view. It knows Spark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from coeval.spec.model import BatchSource, EventSource
from coeval.spec.records import Event
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.tables import log_schema, payload
from tests.support.contract import catalog
from tests.support.contract.cases import Case

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PLACE = "place"
"""The place of a case in a run: a column of spines."""
GROUP = "group_number"
"""A number that says with which others an event is loaded: a column of frames of events."""


def event_frame(
    spark: SparkSession, source: EventSource | BatchSource, events: Sequence[Event], groups: Sequence[int]
) -> DataFrame:
    """Events as the log of their source holds them, with their groups."""
    longs = {
        "event_ts": [event.event_ts for event in events],
        "available_at": [event.available_at for event in events],
        "offset": [event.offset for event in events],
        "declared_ts": [event.declared_ts for event in events],
    }
    columns = {
        "event_id": pa.array([event.event_id for event in events], pa.string()),
        "event_ts": pa.array(longs["event_ts"], pa.int64()),
        "available_at": pa.array(longs["available_at"], pa.int64()),
        "topic": pa.array([""] * len(events), pa.string()),
        "partition": pa.array([event.partition for event in events], pa.int32()),
        "offset": pa.array(longs["offset"], pa.int64()),
        "declared_ts": pa.array(longs["declared_ts"], pa.int64()),
        "batch": pa.array([1] * len(events), pa.int64()),
        **{f.name: logical_array(f.type, [event.values[f.name] for event in events]) for f in payload(source)},
        GROUP: pa.array(groups, pa.int64()),
    }
    return spark.createDataFrame(pa.table(columns), f"{log_schema(source)}, {GROUP} BIGINT")


def spine_frame(spark: SparkSession, name: str, cases: Sequence[Case], places: Sequence[int]) -> DataFrame:
    """One row per case of a view: its key, its instant in microseconds, its place."""
    view = catalog.VIEWS[name]
    keys = {
        field.name: logical_array(field.type, [cases[place].key[index] for place in places])
        for index, field in enumerate(view.key)
    }
    instants = pa.array([cases[place].q for place in places], pa.int64())
    return spark.createDataFrame(pa.table({**keys, "event_timestamp": instants, PLACE: pa.array(places, pa.int64())}))
