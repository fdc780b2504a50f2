"""Windowed views over a spine: buckets of keys, cogrouped in Arrow, answered by the interval kernel. It knows Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coeval.aggregations.tiles import tile_plan
from coeval.spec.model import EventSource, FeatureRef, Field, WindowedView
from coeval.spec.types import Kind
from coeval_pipelines.arrow import physical_numpy
from coeval_pipelines.offline.columns import finalised_array, quoted, sql_type
from coeval_pipelines.offline.kernel import Events, Spine, Values, window_values
from coeval_pipelines.offline.spine import ROW, Q, StagedSpine
from coeval_pipelines.offline.tables import ddl, physical_of
from coeval_pipelines.offline.tiles import encoded_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_GROUPS_PER_PARTITION = 2
"""Buckets of keys per shuffle partition: enough to even out, few enough to keep each call long."""


def window_features(
    view: WindowedView, source: EventSource, events: DataFrame, spine: StagedSpine, knowledge: str = "available"
) -> DataFrame:
    """One row per spine row: its number and the view's features, named view__feature.

    `events` are good events of the source, in any order. `knowledge="final"` ignores when they became available.
    """
    groups = _groups(events)
    left = spine.keyed(view.key).selectExpr(*_bucketed(view, groups), ROW, Q)
    known_at = "available_at" if knowledge == "available" else "event_ts"
    physical = {name: _physical(view, source, name) for name in _columns(view, source)}
    right = events.where(f"{known_at} < {spine.latest} AND event_ts >= {spine.earliest - _reach(view)}").selectExpr(
        *_bucketed(view, groups), "event_ts", f"{known_at} AS available_at", *_positions(view), *physical.values()
    )
    schema = ddl({ROW: "BIGINT", **{_name(view, field): sql_type(field.type) for field in view.features}})
    pairs = left.groupBy("bucket").cogroup(right.groupBy("bucket"))
    return pairs.applyInArrow(_answer(view, source, list(physical)), schema)


def _positions(view: WindowedView) -> tuple[str, ...]:
    """What decides ties, where a feature depends on them."""
    ordered = any(item.function in ("first", "last") for item in view.aggregates)
    return ("CAST(partition AS BIGINT) AS partition", "offset") if ordered else ()


def _groups(frame: DataFrame) -> int:
    return int(str(frame.sparkSession.conf.get("spark.sql.shuffle.partitions"))) * _GROUPS_PER_PARTITION


def _bucketed(view: WindowedView, groups: int) -> tuple[str, str]:
    """The bucket and one column for the key: itself where it is one integer, else its text."""
    single = len(view.key) == 1 and view.key[0].type.kind is Kind.INT64
    key = quoted(view.key[0].name) if single else encoded_key(view)
    return f"PMOD(XXHASH64({key}), {groups}) AS bucket", f"{key} AS key"


def _reach(view: WindowedView) -> int:
    """How far before a spine row an event may lie: the longest window, and the tile that it begins in."""
    return max(aggregate.window + aggregate.hop for aggregate in view.aggregates)


def _columns(view: WindowedView, source: EventSource) -> list[str]:
    components = [item for granularity in tile_plan(view, source).granularities for item in granularity.components]
    return sorted({item.column for item in components})


def _physical(view: WindowedView, source: EventSource, name: str) -> str:
    counted_only = all(item.function == "count" for item in view.aggregates if item.column == name)
    column = quoted(name)
    value = f"IF({column} IS NULL, NULL, 1L)" if counted_only else physical_of(source.field(name))
    return f"{value} AS {quoted('value_' + name)}"


def _name(view: WindowedView, field: Field) -> str:
    return FeatureRef(view.name, field.name).full_name


def _answer(view: WindowedView, source: EventSource, columns: list[str]) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """The function that answers one bucket of keys, to be shipped to Spark's workers."""

    def answer(spine: pa.Table, events: pa.Table) -> pa.Table:
        keys = pc.unique(spine.column("key"))
        codes = pc.index_in(events.column("key"), value_set=keys)
        events = events.filter(codes.is_valid())
        found = window_values(
            view,
            source,
            Events(
                _ints(codes.drop_null()),
                _ints(events.column("event_ts")),
                _ints(events.column("available_at")),
                {name: Values(*physical_numpy(events.column(f"value_{name}"))) for name in columns},
                (_ints(events.column("partition")), _ints(events.column("offset"))) if _positions(view) else None,
            ),
            Spine(_ints(pc.index_in(spine.column("key"), value_set=keys)), _ints(spine.column(Q))),
        )
        features = {_name(view, field): finalised_array(field.type, found[field.name]) for field in view.features}
        return pa.table({ROW: spine.column(ROW).combine_chunks(), **features})

    return answer


def _ints(column: pa.Array | pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return column.to_numpy().astype(np.int64, copy=False)  # type: ignore[no-any-return]
