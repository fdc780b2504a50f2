"""The event logs of any size, read by Spark: see `expected.Log`. It knows Spark.

Every read of one run sees the same version of a source's log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coeval.settings import Settings
from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, FeatureRef, Field, View
from coeval.spec.records import Event, Reason, Record
from coeval.spec.types import Physical, to_physical
from coeval_parity.compare import Values
from coeval_parity.expected import Events, fields_read, key_columns, physical_list, physical_values, rejected
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.erased import ERASED, marked_erased, without_erased
from coeval_pipelines.offline.event_log import ingest_topic, read_duplicates, read_rejects, totals
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.tables import (
    ENVELOPE,
    TIMES,
    latest_version,
    read_batch_source,
    read_whole_log,
    table_path,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ROW = "parity_row"
_NEWEST = "newest event"


@dataclass(frozen=True)
class SparkLog:
    """A `Log` whose tables have these `versions`.

    `reached` are, by source, the topic offsets (next to read) that count; without an entry, all do.
    """

    spark: SparkSession
    settings: Settings
    manifest: Manifest
    versions: Mapping[str, int | None]
    reached: Mapping[str, Mapping[int, int]]
    erasures: tuple[Erasure, ...] = ()

    def holds(self, source: str, event: Event) -> bool:
        """See `Log`."""
        reached = self.reached.get(source)
        return event.partition < 0 or reached is None or event.offset < reached.get(event.partition, 0)

    def newest(self, view: View) -> dict[str, int]:
        """See `Log`."""
        from pyspark.sql import functions as F

        names = [quoted(field.name) for field in view.key]
        known = " AND ".join(f"{name} IS NOT NULL" for name in names)
        frame = self._good(view).where(known).groupBy(*names).agg(F.max("event_ts").alias(_NEWEST))
        table = frame.toArrow()
        columns = [physical_list(field, table.column(field.name)) for field in view.key]
        keys = [encode_key(view.key, values) for values in zip(*columns, strict=True)]
        return dict(sorted(zip(keys, table.column(_NEWEST).to_pylist(), strict=True)))

    def values(self, view: View, keys: Sequence[str], at: NDArray[np.int64]) -> dict[str, Values]:
        """See `Log`."""
        rows = pa.array(np.arange(len(keys), dtype=np.int64))
        spine = self.spark.createDataFrame(
            pa.table({**key_columns(view, keys), "event_timestamp": pa.array(at), _ROW: rows})
        )
        frame = point_in_time(self.spark, self.settings, self.manifest, view, spine, events=self._good(view))
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

    def events(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """See `Log`."""
        return self._collect(view, _since(self._good(view), earliest), keys)

    def erased(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """See `Log`."""
        source = self.manifest.sources[view.source]
        elsewhere = [item for item in self.erasures if place_in_key(view, item.column) is None]
        marked = marked_erased(self._every(source), source, elsewhere)
        if ERASED not in marked.columns:
            return {}
        return self._collect(view, _since(marked.where(ERASED).drop(ERASED), earliest), keys)

    def duplicates(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """See `Log`."""
        source = self.manifest.sources[view.source]
        if not isinstance(source, EventSource):
            return {}
        frame = read_duplicates(self.spark, self.settings, self.manifest, source)
        return self._collect(view, _since(frame, earliest), keys)

    def rejects(self, view: View) -> list[tuple[Record, Reason]]:
        """See `Log`."""
        source = self.manifest.sources[view.source]
        if not isinstance(source, EventSource):
            return []
        frame = read_rejects(self.spark, self.settings, self.manifest, source)
        return rejected(frame.select("reason", "value", "available_at", "partition", "offset").toArrow())

    def _good(self, view: View) -> DataFrame:
        """The events that a view is computed from."""
        source = self.manifest.sources[view.source]
        return without_erased(self._every(source), source, self.erasures)

    def _every(self, source: EventSource | BatchSource) -> DataFrame:
        if isinstance(source, BatchSource):
            return read_batch_source(self.spark, self.settings, source)
        pinned = self.reached.get(source.name), self.versions[source.name]
        return read_whole_log(self.spark, self.settings, self.manifest, source, *pinned)

    def _collect(self, view: View, frame: DataFrame, keys: Sequence[str]) -> Events:
        from pyspark.sql import functions as F

        names = [field.name for field in view.key]
        source = self.manifest.sources[view.source]
        fields = fields_read(view, {field.name: field for field in source.fields})
        wanted = self.spark.createDataFrame(pa.table(key_columns(view, keys)))
        columns = [*ENVELOPE, *(field.name for field in fields if field.name not in ENVELOPE)]
        table = frame.join(F.broadcast(wanted), names, "left_semi").select(*map(quoted, columns)).toArrow()
        found: Events = {}
        for row in table.to_pylist():
            event = _event(fields, row)
            found.setdefault(encode_key(view.key, [event.values[name] for name in names]), []).append(event)
        return found


def open_spark_log(
    spark: SparkSession, settings: Settings, manifest: Manifest, views: Iterable[View], ingest: Manifest | None
) -> SparkLog:
    """The logs of some views as they are now; after everything in the topics has been read into them as `ingest` says.

    That is the manifest that is applied, which need not be the one that the log is read by.

    Raises:
        BrokerError: the broker does not answer.
    """
    names = {view.source for view in views}
    sources = [source for source in manifest.event_sources if source.name in names]
    reached: dict[str, Mapping[int, int]] = {}
    if ingest is not None:
        for source in ingested_sources(names, ingest):
            ingest_topic(spark, settings, ingest, source)
            reached[source.name] = totals(settings, ingest, source).offsets
    # Others may ingest at the same time: the tables are at least as new as the offsets, which bound what is read.
    versions = {source.name: latest_version(table_path(settings, manifest, "log", source.name)) for source in sources}
    return SparkLog(spark, settings, manifest, versions, reached, ErasureTable(settings, manifest.tenant).erasures())


def ingested_sources(names: Iterable[str], applied: Manifest) -> list[EventSource]:
    """The event sources of those names as the applied manifest defines them; what it no longer has is not read."""
    wanted = set(names)
    return [source for source in applied.event_sources if source.name in wanted]


def _since(frame: DataFrame, earliest: int | None) -> DataFrame:
    return frame if earliest is None else frame.where(f"event_ts >= {earliest}")


def _event(fields: Sequence[Field], row: Mapping[str, Any]) -> Event:
    values = {field.name: _physical(field, row[TIMES.get(field.name, field.name)]) for field in fields}
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
