"""The event logs that fit this process, read without Spark: see `expected.Log`. It knows Arrow and deltalake.

What the topics hold beyond the tables is read from them (`tail`), so that nothing has to be ingested first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from coeval.reference.oracle import is_erased
from coeval.settings import Settings
from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.keys import decode_key, encode_keys
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, FeatureRef, FeatureService, Field, ServiceView, View
from coeval.spec.records import Event, Reason, Record
from coeval.spec.types import INT64_MAX, INT64_MIN
from coeval_parity.compare import Values
from coeval_parity.expected import (
    Events,
    fields_read,
    key_columns,
    merged,
    physical_list,
    physical_values,
    rejected,
)
from coeval_parity.tail import Tail, read_tail
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.arrow_events import Facts, Span, column_type, conformed, source_facts
from coeval_pipelines.offline.arrow_files import INSTANT, delta_files
from coeval_pipelines.offline.arrow_spine import checked
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.erased import REMOVED
from coeval_pipelines.offline.event_log import totals
from coeval_pipelines.offline.small import features_of
from coeval_pipelines.offline.tables import TIMES, latest_version, table_path

_EVERYTHING = Span(INT64_MIN, INT64_MAX, "available")
_NEWEST = "newest event"
"""A column beside those of a source, whose names are words."""
_ENVELOPE = ("event_id", "event_ts", "available_at", "partition", "offset", "declared_ts")


@dataclass(frozen=True)
class LocalLog:
    """A `Log` whose tables have these `versions`; `tails` are what their topics hold beyond them, by source."""

    settings: Settings
    manifest: Manifest
    versions: Mapping[str, int | None]
    tails: Mapping[str, Tail] = field(default_factory=dict)
    erasures: tuple[Erasure, ...] = ()
    reached: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def holds(self, source: str, event: Event) -> bool:
        """See `Log`."""
        reached = self.reached.get(source)
        return event.partition < 0 or reached is None or event.offset < reached.get(event.partition, 0)

    def newest(self, view: View) -> dict[str, int]:
        """See `Log`."""
        source = self.manifest.sources[view.source]
        names = [item.name for item in view.key]
        facts = self._facts(source, frozenset(names), _EVERYTHING)
        columns = facts.columns.select(names).append_column(_NEWEST, pa.array(facts.event_ts))
        known = columns.group_by(names).aggregate([(_NEWEST, "max")]).drop_null()
        parts = [physical_list(item, known.column(item.name)) for item in view.key]
        times = known.column(f"{_NEWEST}_max").to_pylist()
        return dict(sorted(zip(encode_keys(view.key, parts), times, strict=True)))

    def values(self, view: View, keys: Sequence[str], at: NDArray[np.int64]) -> dict[str, Values]:
        """See `Log`."""
        asked = service_of(self.manifest, [view])
        spine = pa.table({**key_columns(view, keys), "event_timestamp": pa.array(at).cast(INSTANT)})
        table = features_of(asked, checked(spine, asked), self._facts)
        return {
            item.name: physical_values(item.type, _chunked(table.column(FeatureRef(view.name, item.name).full_name)))
            for item in view.features
        }

    def events(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """See `Log`."""
        source = self.manifest.sources[view.source]
        if isinstance(source, BatchSource):
            return self._rows(view, source, keys, earliest)
        every = merged([self._read(view, "log", keys, earliest), self._tail(view, keys, earliest)])
        kept = {
            key: [event for event in events if not is_erased(event, self.erasures)] for key, events in every.items()
        }
        return {key: events for key, events in kept.items() if events}

    def erased(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """See `Log`."""
        elsewhere = [item for item in self.erasures if place_in_key(view, item.column) is None]
        source = self.manifest.sources[view.source]
        if not elsewhere or isinstance(source, BatchSource):
            return {}
        every = merged([self._read(view, "log", keys, earliest), self._tail(view, keys, earliest)])
        gone = {key: [event for event in events if is_erased(event, elsewhere)] for key, events in every.items()}
        columns = frozenset(item.column for item in elsewhere)
        removed = self._read(view, "removed", keys, earliest, columns)
        return {key: events for key, events in merged([gone, removed]).items() if events}

    def duplicates(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """See `Log`."""
        source = self.manifest.sources[view.source]
        if isinstance(source, BatchSource):
            return {}
        tail = self.tails.get(source.name, Tail())
        known = self._read(view, "duplicates", keys, earliest)
        return merged([known, beyond(known, _of_keys(view, tail.duplicates, keys, earliest))])

    def rejects(self, view: View) -> list[tuple[Record, Reason]]:
        """See `Log`."""
        path = table_path(self.settings, self.manifest, "rejects", view.source)
        found: list[tuple[Record, Reason]] = []
        if latest_version(path) is not None:
            columns = ["reason", "value", "available_at", "partition", "offset"]
            found = rejected(delta_files(path).read(columns))
        known = {(record.partition, record.offset) for record, _ in found}
        tail = self.tails.get(view.source, Tail()).rejected
        return [*found, *(item for item in tail if (item[0].partition, item[0].offset) not in known)]

    def _facts(self, source: EventSource | BatchSource, columns: frozenset[str], span: Span) -> Facts:
        inputs = Inputs({**self.versions}, len(self.erasures))
        facts = source_facts(self.settings, self.manifest, source, columns, inputs, span)
        facts = facts.of(columns)
        tail = self.tails.get(source.name, Tail()).good
        late = [event for event in tail if not is_erased(event, self.erasures)]
        return _joined(facts, source, late) if late else facts

    def _rows(self, view: View, source: BatchSource, keys: Sequence[str], earliest: int | None) -> Events:
        names = frozenset(item.name for item in fields_read(view, _fields(source)))
        facts = self._facts(source, names, _EVERYTHING)
        wanted = pa.array(np.isin(facts.columns.column(view.key[0].name).to_pylist(), _first_parts(view, keys)))
        facts = facts.where(wanted.to_numpy(zero_copy_only=False))
        times = [facts.event_ts, facts.available_at, facts.partition, facts.offset]
        values = [physical_list(source.field(name), facts.columns.column(name)) for name in sorted(names)]
        rows = zip(*(column.tolist() for column in times), zip(*values, strict=True), strict=True)
        events = [
            Event("", ts, known, part, at, dict(zip(sorted(names), row, strict=True)), ts)
            for ts, known, part, at, row in rows
        ]
        return _of_keys(view, events, keys, earliest)

    def _read(
        self, view: View, kind: str, keys: Sequence[str], earliest: int | None, removed_by: frozenset[str] | None = None
    ) -> Events:
        """Rows of one of a source's tables as events, those of some keys."""
        source = self.manifest.event_source(view)
        path = table_path(self.settings, self.manifest, kind, source.name)
        version = self.versions[source.name] if kind == "log" else latest_version(path)
        if version is None:
            return {}
        table = self._table(view, path, version, keys, earliest, removed_by is not None)
        if removed_by is not None:
            mask = [bool(removed_by.intersection(by or ())) for by in table.column(REMOVED).to_pylist()]
            table = table.filter(pa.array(mask, pa.bool_()))
        return _of_keys(view, _events(self._fields(view, source), table), keys, None)

    def _fields(self, view: View, source: EventSource) -> list[Field]:
        """What the view reads, and what an erasure is known by."""
        subjects = {item.column for item in self.erasures}
        read = fields_read(view, _fields(source))
        return [*read, *(item for item in source.fields if item.name in subjects and item not in read)]

    def _table(
        self, view: View, path: Path, version: int, keys: Sequence[str], earliest: int | None, removed: bool
    ) -> pa.Table:
        source = self.manifest.event_source(view)
        files = delta_files(path, version)
        names = [*_ENVELOPE, *(TIMES.get(item.name, item.name) for item in self._fields(view, source))]
        first = view.key[0].name
        if first not in files.types:
            return files.data.schema.empty_table()
        condition = ds.field(first).isin(_first_column(view, keys))
        if earliest is not None:
            condition &= ds.field("event_ts") >= earliest
        wanted = [*dict.fromkeys(names), *([REMOVED] if removed else [])]
        return files.read([name for name in wanted if name in files.types], condition)

    def _tail(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        return _of_keys(view, self.tails.get(view.source, Tail()).good, keys, earliest)


def open_local_log(settings: Settings, manifest: Manifest, views: Iterable[View], *, ingest: bool) -> LocalLog:
    """The logs of some views as they are now; with `ingest`, with everything that their topics hold beyond them.

    Raises:
        BrokerError: the broker does not answer.
        NeedsSparkError: a topic is too far ahead of its log, or only Spark reads the log.
    """
    names = {view.source for view in views}
    sources = [source for source in manifest.event_sources if source.name in names]
    erasures = ErasureTable(settings, manifest.tenant).erasures()
    # Asked before the tables are: what an ingest adds in between is there twice, and told by its position.
    offsets = {source.name: totals(settings, manifest, source).offsets for source in sources}
    versions: dict[str, int | None] = {
        source.name: latest_version(table_path(settings, manifest, "log", source.name)) for source in sources
    }
    versions |= {source.name: None for source in manifest.batch_sources}
    tails = {
        source.name: read_tail(settings, manifest, source, offsets[source.name], versions[source.name])
        for source in (sources if ingest else ())
    }
    reached = {name: tail.reached for name, tail in tails.items()}
    return LocalLog(settings, manifest, versions, tails, erasures, reached)


def beyond(known: Events, more: Events) -> Events:
    """Those of some more events that are not known yet, by position."""
    places = {(event.partition, event.offset) for events in known.values() for event in events}
    return {key: [e for e in events if (e.partition, e.offset) not in places] for key, events in more.items()}


def service_of(manifest: Manifest, views: Iterable[View]) -> Asked:
    """Every feature of some views, as a service asks for them."""
    used = tuple(ServiceView(view.name, view.version, tuple(item.name for item in view.features)) for view in views)
    return Asked(manifest, FeatureService("parity", used), ())


def _fields(source: EventSource | BatchSource) -> dict[str, Field]:
    return {item.name: item for item in source.fields}


def _events(fields: Sequence[Field], table: pa.Table) -> list[Event]:
    """Rows of a log as events; what the log lacks is null."""
    envelope = [table.column(name).to_pylist() for name in _ENVELOPE]
    columns = [physical_list(item, conformed(table, item)) for item in fields]
    names = [item.name for item in fields]
    values = zip(*columns, strict=True)
    return [
        Event(name, ts, known, part, offset, dict(zip(names, row, strict=True)), declared)
        for (name, ts, known, part, offset, declared), row in zip(zip(*envelope, strict=True), values, strict=True)
    ]


def _of_keys(view: View, events: Iterable[Event], keys: Sequence[str], earliest: int | None) -> Events:
    wanted = {decode_key(view.key, key): key for key in keys}
    names = [item.name for item in view.key]
    found: Events = {}
    for event in events:
        key = wanted.get(tuple(event.values[name] for name in names))
        if key is not None and (earliest is None or event.event_ts >= earliest):
            found.setdefault(key, []).append(event)
    return found


def _first_column(view: View, keys: Sequence[str]) -> pa.Array:
    return logical_array(view.key[0].type, [*dict.fromkeys(decode_key(view.key, key)[0] for key in keys)])


def _first_parts(view: View, keys: Sequence[str]) -> list[Any]:
    return _first_column(view, keys).to_pylist()  # type: ignore[no-any-return]


def _joined(facts: Facts, source: EventSource | BatchSource, events: Sequence[Event]) -> Facts:
    """Facts and some events beside them."""

    def more(known: NDArray[np.int64], name: str) -> NDArray[np.int64]:
        return np.concatenate([known, np.array([getattr(event, name) for event in events], dtype=np.int64)])

    columns = {
        name: logical_array(source.field(name).type, [event.values[name] for event in events]).cast(
            column_type(source.field(name).type)
        )
        for name in facts.columns.column_names
    }
    return Facts(
        more(facts.event_ts, "event_ts"),
        more(facts.available_at, "available_at"),
        more(facts.partition, "partition"),
        more(facts.offset, "offset"),
        pa.concat_tables([facts.columns, pa.table(columns)]),
    )


def _chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
