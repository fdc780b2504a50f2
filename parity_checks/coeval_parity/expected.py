"""What the log says the store should serve: recomputed by the offline engine, and the events behind it. It knows Spark.

Every read of one run sees the same version of a source's log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coeval.arrow import arrow_type
from coeval.settings import Settings
from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.keys import decode_key, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, FeatureRef, Field, RowView, View, columns_read
from coeval.spec.records import Event
from coeval.spec.types import DataType, Kind, Physical, to_physical
from coeval_parity.compare import Values
from coeval_parity.evidence import Floor
from coeval_pipelines.arrow import physical_numpy
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.columns import logical_array, quoted
from coeval_pipelines.offline.erased import ERASED, marked_erased, without_erased
from coeval_pipelines.offline.event_log import ingest_topic, read_duplicates, totals
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.tables import ENVELOPE, latest_version, read_batch_source, read_whole_log, table_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Key = tuple[Physical, ...]
_ROW = "parity_row"


@dataclass(frozen=True)
class Log:
    """The event logs of a manifest, pinned to one moment.

    `versions` of the tables, and by source the topic offsets (next to read) that count; without an entry, all do.
    """

    spark: SparkSession
    settings: Settings
    manifest: Manifest
    versions: Mapping[str, int | None]
    reached: Mapping[str, Mapping[int, int]]
    erasures: tuple[Erasure, ...] = ()

    def events(self, view: View) -> DataFrame:
        """The events that a view is computed from."""
        source = self.manifest.sources[view.source]
        return without_erased(self._every(source), source, self.erasures)

    def erased(self, view: View) -> DataFrame | None:
        """The events of erased subjects that a view's own key does not hold; None where there are none."""
        source = self.manifest.sources[view.source]
        elsewhere = [item for item in self.erasures if place_in_key(view, item.column) is None]
        marked = marked_erased(self._every(source), source, elsewhere)
        return marked.where(ERASED).drop(ERASED) if ERASED in marked.columns else None

    def _every(self, source: EventSource | BatchSource) -> DataFrame:
        if isinstance(source, BatchSource):
            return read_batch_source(self.spark, self.settings, source)
        pinned = self.reached.get(source.name), self.versions[source.name]
        return read_whole_log(self.spark, self.settings, self.manifest, source, *pinned)

    def holds(self, source: str, event: Event) -> bool:
        """Whether an event of a source is among those that count."""
        reached = self.reached.get(source)
        return event.partition < 0 or reached is None or event.offset < reached.get(event.partition, 0)


def open_log(
    spark: SparkSession, settings: Settings, manifest: Manifest, views: Iterable[View], *, ingest: bool
) -> Log:
    """The logs of some views as they are now; with `ingest`, after everything in the topics has been read into them.

    Raises:
        BrokerError: the broker does not answer.
    """
    names = {view.source for view in views}
    sources = [source for source in manifest.event_sources if source.name in names]
    reached: dict[str, Mapping[int, int]] = {}
    for source in sources if ingest else ():
        ingest_topic(spark, settings, manifest, source)
        reached[source.name] = totals(settings, manifest, source).offsets
    # Others may ingest at the same time: the tables are at least as new as the offsets, which bound what is read.
    versions = {source.name: latest_version(table_path(settings, manifest, "log", source.name)) for source in sources}
    return Log(spark, settings, manifest, versions, reached, ErasureTable(settings, manifest.tenant).erasures())


def logged_keys(log: Log, view: View) -> list[str]:
    """Every entity key that the log has an event of, encoded and sorted."""
    names = [quoted(field.name) for field in view.key]
    known = " AND ".join(f"{name} IS NOT NULL" for name in names)
    table = log.events(view).where(known).select(*names).distinct().toArrow()
    columns = [_physical_list(field, table.column(field.name)) for field in view.key]
    return sorted(encode_key(view.key, values) for values in zip(*columns, strict=True))


def _physical_list(field: Field, column: pa.ChunkedArray) -> list[Physical]:
    return [to_physical(field.type, value) for value in column.to_pylist()]


def expected_values(log: Log, view: View, keys: Sequence[str], at: NDArray[np.int64]) -> dict[str, Values]:
    """The value of every feature for each key at its instant, as the offline engine computes it; in the keys' order."""
    spine = log.spark.createDataFrame(_spine(view, keys, at))
    frame = point_in_time(log.spark, log.settings, log.manifest, view, spine, events=log.events(view))
    try:
        table = frame.toArrow().sort_by(_ROW)
    finally:
        frame.unpersist()
    if table.num_rows != len(keys):
        raise AssertionError(f"{len(keys)} keys became {table.num_rows} expected values")
    return {
        field.name: physical_values(field.type, table.column(FeatureRef(view.name, field.name).full_name))
        for field in view.features
    }


def _spine(view: View, keys: Sequence[str], at: NDArray[np.int64]) -> pa.Table:
    parts = [decode_key(view.key, key) for key in keys]
    columns: dict[str, pa.Array] = {
        field.name: logical_array(field.type, [part[index] for part in parts]) for index, field in enumerate(view.key)
    }
    return pa.table({**columns, "event_timestamp": pa.array(at), _ROW: pa.array(np.arange(len(keys), dtype=np.int64))})


def physical_values(data_type: DataType, column: pa.ChunkedArray) -> Values:
    """An Arrow column of logical values as physical ones."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], arrow_type(data_type))
    null = array.is_null().to_numpy(zero_copy_only=False)
    if data_type.kind is Kind.STRING:
        return Values(np.array(array.to_pylist(), dtype=object), null)
    return Values(_filled(data_type, array), null)


def _filled(data_type: DataType, array: pa.Array) -> NDArray[Any]:
    if data_type.kind is Kind.DECIMAL:
        return physical_numpy(array)[0]
    if data_type.kind is Kind.FLOAT64:
        return pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    if data_type.kind is Kind.DATE:
        array = array.cast(pa.int32())
    whole = pc.fill_null(array.cast(pa.int64()), 0)
    return whole.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def events_of(log: Log, view: View, keys: Sequence[str], earliest: int | None) -> dict[str, list[Event]]:
    """The good events of some keys that happened at or after `earliest`, visible or not, by encoded key."""
    frame = log.events(view)
    return _collect(log, view, frame if earliest is None else frame.where(f"event_ts >= {earliest}"), keys)


def erased_of(log: Log, view: View, keys: Sequence[str], earliest: int | None) -> dict[str, list[Event]]:
    """The events of erased subjects under some keys of a view that is not keyed by them, by encoded key."""
    frame = log.erased(view)
    if frame is None:
        return {}
    return _collect(log, view, frame if earliest is None else frame.where(f"event_ts >= {earliest}"), keys)


def floors_of(log: Log, view: View, key: Key, erased: Sequence[Event]) -> tuple[Floor, ...]:
    """What was erased of a key that holds a subject; of a row of others, what the newest erased event reaches."""
    places = [(place_in_key(view, item.column), item) for item in log.erasures]
    floors = tuple(
        Floor(item.at, item.epoch) for place, item in places if place is not None and key[place] == item.value
    )
    if isinstance(view, RowView) and erased:
        newest = max(event.event_ts for event in erased)
        return (*floors, Floor(newest, max(item.epoch for item in log.erasures)))
    return floors


def duplicates_of(log: Log, view: View, keys: Sequence[str], earliest: int | None) -> dict[str, list[Event]]:
    """The discarded deliveries of some keys' events, by encoded key; batch sources have none."""
    source = log.manifest.sources[view.source]
    if not isinstance(source, EventSource):
        return {}
    frame = read_duplicates(log.spark, log.settings, log.manifest, source)
    return _collect(log, view, frame if earliest is None else frame.where(f"event_ts >= {earliest}"), keys)


def _collect(log: Log, view: View, frame: DataFrame, keys: Sequence[str]) -> dict[str, list[Event]]:
    from pyspark.sql import functions as F

    names = [field.name for field in view.key]
    fields = [log.manifest.sources[view.source].field(name) for name in _needed(view)]
    wanted = log.spark.createDataFrame(_spine(view, keys, np.zeros(len(keys), dtype=np.int64))).select(*names)
    columns = [*ENVELOPE, *(field.name for field in fields if field.name not in ENVELOPE)]
    table = frame.join(F.broadcast(wanted), names, "left_semi").select(*map(quoted, columns)).toArrow()
    found: dict[str, list[Event]] = defaultdict(list)
    for row in table.to_pylist():
        event = _event(fields, row)
        found[encode_key(view.key, [event.values[name] for name in names])].append(event)
    return dict(found)


def _needed(view: View) -> list[str]:
    """The source fields that a view reads, its keys first."""
    keys = [field.name for field in view.key]
    return [*keys, *sorted(columns_read(view).difference(keys))]


def _event(fields: Sequence[Field], row: Mapping[str, Any]) -> Event:
    values = {field.name: _physical(field, row[field.name]) for field in fields}
    return Event(
        event_id=row["event_id"],
        event_ts=row["event_ts"],
        available_at=row["available_at"],
        partition=row["partition"],
        offset=row["offset"],
        values=values,
        declared_ts=row["declared_ts"],
    )


def _physical(field: Field, value: Any) -> Physical:
    # A field that has an envelope column's name is kept there, already physical.
    return value if field.name in ENVELOPE else to_physical(field.type, value)
