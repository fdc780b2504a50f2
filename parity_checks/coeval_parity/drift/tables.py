"""What drift is looked for in, as Arrow: a training set, the log of a source, or any Delta table or Parquet files.

It knows where the tables are and what the manifest says of their columns, and no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from coeval.errors import UsageError
from coeval.files import place
from coeval.settings import Settings
from coeval.spec.erasure import Erasure, concerning
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field
from coeval_parity.drift.windows import Span
from coeval_parity.served_features import SERVED, served_files
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.arrow_events import Facts, not_erased
from coeval_pipelines.offline.arrow_files import INSTANT, Files, delta_files, parquet_files
from coeval_pipelines.offline.tables import ORDER, latest_version, payload, table_path

TRAINING, LOG = "training:", "log:"
TIMES = ("event_timestamp", "at", "served_at", "event_ts", "available_at")
"""What a column of instants is looked for as, where none is named."""
_ROWS = 20_000
"""Rows of a side that are looked at: chosen at random, the same every time."""
_SERVED_TABLE = {"entities", "features", "statuses"}
_PRIVATE = ("personal", "sensitive")


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is not read yet. `time` is its column of instants ('': none); `features` what is compared of it.

    `ids` are features that are no sizes whatever their type, `keys` the entity keys, `private` those whose values are
    not to be shown. Of a log: its `source`, and the `erasures` that concern it, whose events are not read.
    """

    name: str
    files: Files
    time: str
    features: tuple[str, ...]
    ids: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    source: EventSource | None = None
    erasures: tuple[Erasure, ...] = ()

    def bounds(self) -> tuple[int, int]:
        """The first and the last instant.

        Raises:
            UsageError: there are no rows.
        """
        found = pc.min_max(_micros(self.files.read([self.time]).column(self.time)))
        if found["min"].as_py() is None:
            raise UsageError(f"{self.name} has no rows.", "Name a table that has.")
        return found["min"].as_py(), found["max"].as_py()

    def read(self, columns: Collection[str], spans: Sequence[Span] = ()) -> Rows:
        """Some columns of the rows in these spans, or of all; of many rows, some at random."""
        wanted = [*columns, *([self.time] if self.time else [])]
        return some_rows(self.rows(wanted, spans), self.time)

    def rows(self, columns: Collection[str], spans: Sequence[Span] = ()) -> pa.Table:
        """Some columns of every row in these spans, or of all rows."""
        wanted = list(dict.fromkeys(columns))
        where = reduce(or_, map(self._within, spans)) if spans else None
        if self.source is not None and self.erasures:
            return _not_erased(self.files, self.source, self.erasures, wanted, where)
        return self.files.read(wanted, where)

    def _within(self, span: Span) -> ds.Expression:
        kind = self.files.data.schema.field(self.time).type
        start, end = (pc.cast(pa.scalar(value, INSTANT), kind, safe=False) for value in span)
        return (ds.field(self.time) >= start) & (ds.field(self.time) < end)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that were read: columns, instants (microseconds UTC; None: the table has none), and of how many."""

    table: pa.Table
    instants: NDArray[np.int64] | None
    of: int


def some_rows(table: pa.Table, time: str) -> Rows:
    """The rows of a table that are looked at: all, or some at random. `time` is its column of instants; '': none."""
    whole = table.num_rows
    if whole > _ROWS:
        chosen = np.random.default_rng(whole).choice(whole, _ROWS, replace=False)
        table = table.take(pa.array(np.sort(chosen)))
    return Rows(table, _micros(table.column(time)).to_numpy() if time else None, whole)


def _micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants of any unit in microseconds UTC."""
    return column.cast(INSTANT, safe=False).cast(pa.int64())


def open_drift_table(settings: Settings, manifest: Manifest | None, name: str, time: str | None = None) -> Table:
    """The table of a name: training:NAME, log:SOURCE, served:SERVICE, or the path of a Delta table or Parquet files.

    Raises:
        UsageError: there is no such table, or no such column of instants, or it is that of what was served.
        UnknownFeatureError: there is no such service.
        NeedsSparkError: only Spark reads it.
    """
    if name.startswith(SERVED):
        return _served(settings, _known(manifest), name, time)
    try:
        if name.startswith(LOG):
            return _log(settings, _known(manifest), name, time)
        if name.startswith(TRAINING):
            path = table_path(settings, _known(manifest), "training_sets", name.removeprefix(TRAINING))
            return _described(name, delta_files(path), manifest, time)
        is_delta = latest_version(place(name)) is not None
        files = delta_files(name) if is_delta else parquet_files(name)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"There is no table {name}.",
            "Name training:NAME, log:SOURCE, served:SERVICE, or a path of a Delta table or Parquet files.",
        ) from error
    if files.types.keys() >= _SERVED_TABLE:
        raise UsageError(
            f"{name} is the table of what was served: its features are in one column, as JSON.",
            "Name one of its services: served:SERVICE",
        )
    return _described(name, files, manifest, time)


def _known(manifest: Manifest | None) -> Manifest:
    if manifest is None:
        raise UsageError("There is no manifest here.", "Apply the catalog first: coeval apply")
    return manifest


def _log(settings: Settings, manifest: Manifest, name: str, time: str | None) -> Table:
    source = next((item for item in manifest.event_sources if item.name == name.removeprefix(LOG)), None)
    if source is None:
        known = ", ".join(item.name for item in manifest.event_sources)
        raise UsageError(f"There is no event source {name.removeprefix(LOG)!r}.", f"Known: {known or 'none'}.")
    files = delta_files(table_path(settings, manifest, "log", source.name))
    fields = _compared(source, files)
    names = tuple(item.name for item in fields)
    table = Table(name, files, _time(name, files, time or "event_ts"), names, _ids(names))
    erasures = concerning(source, ErasureTable(settings, manifest.tenant).erasures())
    table = replace(table, source=source, erasures=tuple(erasures))
    return _with_fields(table, {item.name: item for item in source.fields}, manifest)


def _served(settings: Settings, manifest: Manifest, name: str, time: str | None) -> Table:
    files = served_files(settings, manifest, name.removeprefix(SERVED))
    features = files.columns.features
    table = Table(name, files, _time(name, files, time), tuple(features), _ids(features))
    return _with_fields(table, features, manifest)


def _not_erased(
    files: Files, source: EventSource, erasures: Collection[Erasure], columns: list[str], where: ds.Expression | None
) -> pa.Table:
    rows = files.read(list(dict.fromkeys([*columns, *ORDER, *(item.column for item in erasures)])), where)
    event_ts, available_at, partition, offset = (rows.column(name).to_numpy() for name in ORDER)
    return not_erased(Facts(event_ts, available_at, partition, offset, rows), source, erasures).columns.select(columns)


def _compared(source: EventSource, files: Files) -> list[Field]:
    """What an event says, but who it is and when it was."""
    known = {source.event_id, source.event_ts}
    return [item for item in payload(source) if item.name not in known and item.name in files.types]


def _described(name: str, files: Files, manifest: Manifest | None, time: str | None) -> Table:
    """A table of features: its columns named view__feature, or all of them where none is."""
    at = _time(name, files, time)
    features = tuple(column for column in files.types if "__" in column.strip("_"))
    features = features or tuple(column for column in files.types if column != at)
    table = Table(name, files, at, features, _ids(features))
    if manifest is None:
        return table
    fields = {f"{view.name}__{item.name}": item for view in manifest.views.values() for item in view.features}
    fields |= {f"{view.name}__{item.name}": item for view in manifest.derived_views for item in view.features}
    return _with_fields(table, fields, manifest)


def _with_fields(table: Table, fields: Mapping[str, Field], manifest: Manifest) -> Table:
    keys = frozenset(entity.key.name for entity in manifest.entities)
    private = frozenset(name for name, item in fields.items() if item.pii in _PRIVATE) | keys
    return replace(
        table,
        ids=table.ids | keys.intersection(table.features),
        keys=keys.intersection(table.files.types),
        private=private,
    )


def _ids(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.endswith("_id"))


def _time(name: str, files: Files, asked: str | None) -> str:
    instants = [column for column, kind in files.types.items() if pa.types.is_timestamp(kind) or column in TIMES]
    if asked is None:
        return next((column for column in TIMES if column in instants), "")
    if asked not in instants:
        raise UsageError(f"{name} has no column {asked} of instants.", f"It has: {', '.join(instants) or 'none'}.")
    return asked
