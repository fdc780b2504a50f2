"""Windowed views over a spine: groups of keys, cogrouped in Arrow, answered by the interval kernel. It knows Spark.

All views of one source and key share one shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coeval.aggregations.tiles import tile_plan
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, FeatureRef, Field, WindowedView
from coeval.spec.types import Kind
from coeval_pipelines.arrow import physical_numpy
from coeval_pipelines.offline.columns import finalised_array, physical_sql, quoted, sql_type
from coeval_pipelines.offline.groups import ROWS, Grouping, count_buckets, grouping, is_small
from coeval_pipelines.offline.kernel import Events, Spine, Values, window_values
from coeval_pipelines.offline.seen import Sight, seen_together
from coeval_pipelines.offline.spine import ROW, Q, StagedSpine
from coeval_pipelines.offline.tables import ddl, physical_of
from coeval_pipelines.offline.tiles import encoded_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, GroupedData

_GROUPS_PER_PARTITION = 2
"""Groups per shuffle partition: enough to even out, few enough to keep each call long."""


@dataclass(frozen=True, slots=True)
class _Seeing:
    """A view as a worker needs it: its source as it sees it, and in which columns what it selects and reads stands."""

    view: WindowedView
    source: EventSource
    selected: str | None
    columns: Mapping[str, str]


def window_features(
    manifest: Manifest,
    views: Sequence[WindowedView],
    events: DataFrame,
    spine: StagedSpine,
    knowledge: str = "available",
) -> DataFrame:
    """One row per spine row: its number and the features of views that have one source and key, named view__feature.

    `events` are good events of the source, in any order. `knowledge="final"` ignores when they became available.
    """
    known_at = "available_at" if knowledge == "available" else "event_ts"
    reach = max(view.reach for view in views)
    frame, sights = seen_together(views, manifest.sources[views[0].source], events)
    seeing, columns = _seeing(manifest, views, sights)
    key = _key(views[0])
    right = frame.where(
        f"{known_at} < LEAST({spine.latest}, event_ts + {reach}) AND event_ts >= {spine.earliest - reach}"
    ).selectExpr(f"{key} AS key", "event_ts", f"{known_at} AS available_at", *_positions(views), *columns)
    left = spine.keyed(views[0].key).selectExpr(f"{key} AS key", ROW, Q)
    grouped = _grouping(left, right, spine, reach)
    schema = {_name(view, field): sql_type(field.type) for view in views for field in view.features}
    pairs = _bracketed(left, grouped, Q, Q).cogroup(
        _bracketed(
            right,
            grouped,
            f"GREATEST(available_at + 1, {spine.earliest})",
            f"LEAST(event_ts + {reach}, {spine.latest})",
        )
    )
    return pairs.applyInArrow(_answer(seeing, bool(_positions(views))), ddl({ROW: "BIGINT", **schema}))


def _positions(views: Sequence[WindowedView]) -> tuple[str, ...]:
    """What decides ties, where a feature depends on them."""
    ordered = any(item.function in ("first", "last") for view in views for item in view.aggregates)
    return ("CAST(partition AS BIGINT) AS partition", "offset") if ordered else ()


def _key(view: WindowedView) -> str:
    """The SQL of one column for the key: itself where it is one integer, else its text."""
    single = len(view.key) == 1 and view.key[0].type.kind is Kind.INT64
    return quoted(view.key[0].name) if single else encoded_key(view)


def _grouping(left: DataFrame, right: DataFrame, spine: StagedSpine, reach: int) -> Grouping:
    least = int(str(left.sparkSession.conf.get("spark.sql.shuffle.partitions"))) * _GROUPS_PER_PARTITION
    rows = [1] * least
    if spine.rows > ROWS or not is_small(right):
        rows = count_buckets([left, right], "key")
    return grouping(rows, spine.latest - spine.earliest, reach, least)


def _bracketed(frame: DataFrame, grouped: Grouping, first: str, last: str) -> GroupedData:
    """Rows by group and bracket: each in every bracket from that of one instant to that of another."""
    frame = frame.selectExpr("*", f"{grouped.group_sql('key')} AS bucket")
    if grouped.brackets:
        one, other = grouped.bracket_sql("bucket", first), grouped.bracket_sql("bucket", last)
        frame = frame.selectExpr("*", f"EXPLODE(SEQUENCE({one}, {other})) AS bracket")
        return frame.groupBy("bucket", "bracket")
    return frame.groupBy("bucket")


def _seeing(
    manifest: Manifest, views: Sequence[WindowedView], sights: Sequence[Sight]
) -> tuple[list[_Seeing], list[str]]:
    """How each view reads the events, and the SQL of the columns that all of them need."""
    values: dict[str, str] = {}
    found = []
    for view, sight in zip(views, sights, strict=True):
        source = manifest.event_source(view)
        columns = {name: values.setdefault(sql, f"value{len(values)}") for name, sql in _read(view, source, sight)}
        found.append(_Seeing(view, source, None if sight.condition == "TRUE" else sight.condition, columns))
    selected = [item.selected for item in found if item.selected]
    return found, [*selected, *(f"{sql} AS {name}" for sql, name in values.items())]


def _read(view: WindowedView, source: EventSource, sight: Sight) -> Iterator[tuple[str, str]]:
    """The columns that a view aggregates, and the SQL of their physical values."""
    components = [item for granularity in tile_plan(view, source).granularities for item in granularity.components]
    for name in sorted({item.column for item in components}):
        column = quoted(sight.column(name))
        counted_only = all(item.function == "count" for item in view.aggregates if item.column == name)
        if counted_only:
            yield name, f"IF({column} IS NULL, NULL, 1L)"
        elif name in sight.names:
            yield name, physical_sql(source.field(name), column)
        else:
            yield name, physical_of(source.field(name))


def _name(view: WindowedView, field: Field) -> str:
    return FeatureRef(view.name, field.name).full_name


def _answer(seeing: Sequence[_Seeing], ordered: bool) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """The function that answers one group of keys, to be shipped to Spark's workers."""

    def answer(spine: pa.Table, events: pa.Table) -> pa.Table:
        keys = pc.unique(spine.column("key"))
        events = events.append_column("code", pc.index_in(events.column("key"), value_set=keys))
        events = events.filter(pc.is_valid(events.column("code")))
        asked = Spine(_ints(pc.index_in(spine.column("key"), value_set=keys)), _ints(spine.column(Q)))
        features: dict[str, pa.Array] = {}
        for item in seeing:
            mine = events.filter(events.column(item.selected)) if item.selected else events
            found = window_values(item.view, item.source, _events(item, mine, ordered), asked)
            features |= {_name(item.view, f): finalised_array(f.type, found[f.name]) for f in item.view.features}
        return pa.table({ROW: spine.column(ROW).combine_chunks(), **features})

    return answer


def _events(seeing: _Seeing, table: pa.Table, ordered: bool) -> Events:
    return Events(
        _ints(table.column("code")),
        _ints(table.column("event_ts")),
        _ints(table.column("available_at")),
        {name: Values(*physical_numpy(table.column(column))) for name, column in seeing.columns.items()},
        (_ints(table.column("partition")), _ints(table.column("offset"))) if ordered else None,
    )


def _ints(column: pa.Array | pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return column.to_numpy().astype(np.int64, copy=False)  # type: ignore[no-any-return]
