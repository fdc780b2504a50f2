"""What a view is computed from, without Spark: events of a log, or rows of a batch source, not erased. It knows Arrow.

The same rows as `point_in_time.source_events` gives, of the columns and the times that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from coeval.aggregations.states import Ints, Mask
from coeval.arrow import arrow_type
from coeval.errors import EngineError, NeedsSparkError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure, concerning, subject_field
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, Field
from coeval.spec.types import INT64_MIN, DataType, Kind
from coeval_pipelines.arrow import single
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.arrow_files import INSTANT, Files, delta_files, parquet_files
from coeval_pipelines.offline.asked import Inputs
from coeval_pipelines.offline.columns import physical_array, sql_name, sql_type
from coeval_pipelines.offline.erased import limits_of
from coeval_pipelines.offline.tables import (
    FILE_PARTITION,
    TIMES,
    check_typed,
    table_path,
    unreadable,
    warn_of_refused,
    widens,
)

_POSITION = ("event_ts", "available_at", "partition", "offset")


BEGINNING = -(2**62)
"""Before every event."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which rows are needed: those that happened from `since` up to `until`, and were known by then (microseconds)."""

    since: int
    until: int
    knowledge: str

    @property
    def known_by(self) -> str:
        """The time by which a row was known."""
        return "available_at" if self.knowledge == "available" else "event_ts"

    @property
    def condition(self) -> ds.Expression:
        """The span over a log: nothing in it was available before it happened."""
        since = max(self.since, INT64_MIN)
        return (ds.field("event_ts") >= since) & (ds.field(self.known_by) <= self.until)


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows in any order: times in microseconds UTC, the position that decides ties, logical values by field name."""

    event_ts: Ints
    available_at: Ints
    partition: Ints
    offset: Ints
    columns: pa.Table

    def of(self, columns: Iterable[str]) -> Facts:
        """The rows with these columns alone."""
        return replace(self, columns=self.columns.select(sorted(columns)))

    def where(self, mask: Mask) -> Facts:
        """The rows that a mask holds for."""
        if mask.all():
            return self
        position = (self.event_ts[mask], self.available_at[mask], self.partition[mask], self.offset[mask])
        return Facts(*position, self.columns.filter(pa.array(mask)))

    def physical(self, field: Field) -> pa.ChunkedArray:
        """The physical values of a column."""
        return physical_array(field.type, self.columns.column(field.name))


def column_type(data_type: DataType) -> pa.DataType:
    """The type of logical values here: of many rows, text may be more than 32-bit offsets reach."""
    return pa.large_string() if data_type.kind is Kind.STRING else arrow_type(data_type)


def source_facts(
    settings: Settings,
    manifest: Manifest,
    source: EventSource | BatchSource,
    columns: Iterable[str],
    inputs: Inputs,
    span: Span,
) -> Facts:
    """The rows of a source that a span needs, without what was erased, with these columns of it.

    Raises:
        UsageError: the files of a batch source are not there, or not of the declared types.
        NeedsSparkError: only Spark can read them.
    """
    erasures = concerning(source, ErasureTable(settings, manifest.tenant).erasures(inputs.erasures))
    wanted = {*columns, *(item.column for item in erasures)}
    fields = [field for field in source.fields if field.name in wanted]
    if isinstance(source, BatchSource):
        facts = _batch_facts(settings, source, fields)
    else:
        facts = _log_facts(settings, manifest, source, fields, inputs.logs[source.name], span)
    return not_erased(facts, source, erasures)


def source_files(
    settings: Settings, manifest: Manifest, source: EventSource | BatchSource, version: int | None
) -> Files:
    """The files of a source: a version of its log, or those of a batch source.

    Raises:
        UsageError: they are not there.
        NeedsSparkError: only Spark can read them.
    """
    if isinstance(source, BatchSource):
        return _batch_files(settings, source)
    path = table_path(settings, manifest, "log", source.name)
    try:
        return delta_files(path, version)
    except OSError as error:
        raise EngineError(f"The log {path} cannot be read: {error}.", "Was it moved away?") from error


def _log_facts(
    settings: Settings, manifest: Manifest, source: EventSource, fields: list[Field], version: int | None, span: Span
) -> Facts:
    if version is None:  # nothing was ingested yet
        return _facts(pa.schema(dict.fromkeys((*_POSITION, *TIMES.values()), pa.int64())).empty_table(), fields)
    files = source_files(settings, manifest, source, version)
    names = dict.fromkeys((*_POSITION, *(TIMES.get(field.name, field.name) for field in fields)))
    return _facts(files.read([name for name in names if name in files.types], span.condition), fields)


def _facts(log: pa.Table, fields: Iterable[Field]) -> Facts:
    """Rows as a log has them; a column that the log lacks is null, a decimal as wide as it is declared."""
    columns = pa.table({field.name: conformed(log, field) for field in fields})
    event_ts, available_at, partition, offset = (_ints(log.column(name)) for name in _POSITION)
    return Facts(event_ts, available_at, partition, offset, columns)


def conformed(log: pa.Table, field: Field) -> pa.ChunkedArray:
    """A field's logical values in rows of a log: null where the log lacks the column.

    Raises:
        NeedsSparkError: the log has it in another type.
    """
    wanted, name = column_type(field.type), TIMES.get(field.name, field.name)
    if name not in log.column_names:
        return pa.chunked_array([pa.nulls(log.num_rows, wanted)])
    column = log.column(name)
    found, declared = sql_name(column.type), sql_type(field.type).lower()
    if name != field.name or name in TIMES:
        return column.cast(INSTANT)
    if found != declared and not widens(found, declared):
        raise NeedsSparkError(f"The log has the column {name} as {found}, not as {declared}.", "Use Spark for it.")
    return column.cast(wanted)


def _ints(column: pa.Array | pa.ChunkedArray) -> Ints:
    return column.to_numpy().astype(np.int64, copy=False)  # type: ignore[no-any-return]


def _batch_files(settings: Settings, source: BatchSource) -> Files:
    place, kind = settings.data_path(source.path), source.format or "parquet"
    if kind not in ("parquet", "delta"):
        raise NeedsSparkError(f"{source.name} is kept as {kind} files, which only Spark reads.", "Use Spark for it.")
    try:
        files = parquet_files(place) if kind == "parquet" else delta_files(place)
    except (OSError, ValueError) as error:
        raise unreadable(source.name, place, kind) from error
    return files


def _batch_facts(settings: Settings, source: BatchSource, fields: list[Field]) -> Facts:
    """Every row that is an event; ties are ordered by the fields as declared, so all of them are read."""
    rows = batch_rows(settings, source)
    good = _good(source, rows)
    warn_of_refused(source, int(len(good) - good.sum()))
    rows = rows.filter(pa.array(good))
    times = [source.event_ts, source.available_at or source.event_ts]
    order = [(name, "ascending") for name in (source.event_ts, *(field.name for field in source.fields))]
    offsets = np.empty(rows.num_rows, dtype=np.int64)
    if rows.num_rows:
        offsets[pc.sort_indices(rows, sort_keys=order, null_placement="at_start").to_numpy()] = np.arange(rows.num_rows)
    event_ts, available_at = (_ints(rows.column(name).cast(pa.int64())) for name in times)
    partition = np.full(rows.num_rows, FILE_PARTITION, dtype=np.int64)
    return Facts(event_ts, available_at, partition, offsets, rows.select([field.name for field in fields]))


def batch_rows(settings: Settings, source: BatchSource) -> pa.Table:
    """The declared columns of a batch source's files, with their declared types.

    Raises:
        UsageError: the files are not there, or not of the declared types.
        NeedsSparkError: only Spark can read them.
    """
    files = _batch_files(settings, source)
    found = {name: sql_name(kind) for name, kind in files.types.items()}
    for field in source.fields:
        check_typed(source.name, field, found)
    rows = files.read([field.name for field in source.fields])
    return pa.table({field.name: _cast(field, rows.column(field.name)) for field in source.fields})


def _cast(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    # Finer instants than microseconds are cut, as Spark does.
    typed = column.cast(column_type(field.type), safe=field.type.kind is not Kind.TIMESTAMP)
    # There is one zero: what is read must not say which one a file held.
    return pc.add(typed, 0.0) if field.type.kind is Kind.FLOAT64 else typed


def _good(source: BatchSource, rows: pa.Table) -> Mask:
    """Which rows are events: required values and times are there, numbers are finite."""
    good = np.ones(rows.num_rows, dtype=bool)
    times = (source.event_ts, source.available_at)
    for field in source.fields:
        column = rows.column(field.name)
        if not field.nullable or field.name in times:
            good &= column.is_valid().to_numpy()
        if field.type.kind is Kind.FLOAT64:
            good &= pc.is_finite(column).fill_null(True).to_numpy()
    return good


def not_erased(facts: Facts, source: EventSource | BatchSource, erasures: Iterable[Erasure]) -> Facts:
    """The rows that were not erased."""
    erased = np.zeros(len(facts.event_ts), dtype=bool)
    for column, limits in limits_of(source, erasures).items():
        field = subject_field(source, column)
        assert field is not None
        subjects = pa.array(list(limits), column_type(field.type) if field.type.kind is Kind.STRING else pa.int64())
        which = single(pc.index_in(facts.physical(field), value_set=subjects))
        until = np.array([*limits.values(), INT64_MIN])[which.fill_null(len(limits)).to_numpy()]
        erased |= facts.available_at <= until
    return facts.where(~erased)
