"""A spine as an Arrow table: read, checked, and its keys as small numbers. It knows Arrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coeval.aggregations.states import Ints
from coeval.arrow import arrow_type
from coeval.errors import NeedsSparkError, UsageError
from coeval.spec.model import Field
from coeval.spec.time import DAY
from coeval_pipelines.offline.arrow_events import column_type
from coeval_pipelines.offline.arrow_files import Files, delta_files, parquet_files, reached
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.columns import given_type, physical_array, sql_name
from coeval_pipelines.offline.spine_rules import (
    TIMESTAMP_COLUMN,
    check_columns,
    check_names,
    check_nulls,
    check_times,
    check_unique,
    is_select,
    key_fields,
    naive,
    unknown_form,
    unreadable,
)


@dataclass(frozen=True, slots=True)
class CheckedSpine:
    """A spine that has what a service needs: its columns as they will be given back, and `q`, microseconds UTC."""

    table: pa.Table
    q: Ints

    @property
    def earliest(self) -> int:
        """The earliest instant; 0 where there are no rows."""
        return int(self.q.min()) if len(self.q) else 0

    @property
    def latest(self) -> int:
        """The latest instant; 0 where there are no rows."""
        return int(self.q.max()) if len(self.q) else 0

    def coded(self, key: Sequence[Field], column: Callable[[Field], pa.ChunkedArray]) -> tuple[Ints, Ints]:
        """The keys of the spine's rows as numbers from 0, and those of other rows: -1 where the spine lacks the key.

        `column` gives the physical values of a key's part in the other rows; null is no entity.
        """
        mine, others = self._codes(key[0], column(key[0]))
        for field in key[1:]:
            here, there = self._codes(field, column(field))
            values = int(here.max(initial=0)) + 1
            pairs, mine = np.unique(mine * values + here, return_inverse=True)
            others = _matched(pairs, np.where((others < 0) | (there < 0), -1, others * values + there))
        return mine, others

    def _codes(self, field: Field, others: pa.ChunkedArray) -> tuple[Ints, Ints]:
        mine = physical_array(field.type, self.table.column(field.name).cast(column_type(field.type)))
        known = pc.unique(mine)
        return _places(mine, known), _places(others, known)


def _places(column: pa.ChunkedArray, known: pa.Array) -> Ints:
    found = pc.index_in(column, value_set=known).fill_null(-1)
    return found.to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def _matched(pairs: Ints, wanted: Ints) -> Ints:
    """The places of values in a sorted array; -1 where it lacks them."""
    at = np.searchsorted(pairs, wanted)
    return np.where(np.append(pairs, -2)[at] == wanted, at, -1)


def checked(spine: pa.Table, asked: Asked) -> CheckedSpine:
    """A spine that has what a service needs.

    Raises:
        UsageError: a column is missing, of another type or has a name of the answer's; an instant has no time zone; a
            key or an instant is null, or an instant is out of range.
    """
    spine = normalised(spine)
    check_names(spine.column_names, asked)
    keys = key_fields(asked.views)
    check_columns({field.name: sql_name(field.type) for field in spine.schema}, keys, asked.request)
    check_nulls({name: spine.column(name).null_count for name in (*(k.name for k in keys), TIMESTAMP_COLUMN)})
    found = CheckedSpine(spine, spine.column(TIMESTAMP_COLUMN).cast(pa.int64()).to_numpy())
    check_times(TIMESTAMP_COLUMN, found.earliest, found.latest)
    return found


def normalised(spine: pa.Table) -> pa.Table:
    """The columns in the types that Spark would give them back in.

    Raises:
        UsageError: several have one name, a column is of a type that tables cannot keep, or times are out of range.
    """
    check_unique(spine.column_names)
    columns = {field.name: _as_given(field.name, spine.column(field.name)) for field in spine.schema}
    for name, column in columns.items():
        if pa.types.is_temporal(column.type):
            check_times(name, *_ends(column))
    return pa.table(columns) if columns else spine


def _ends(times: pa.ChunkedArray) -> tuple[int, int]:
    """The first and the last of times in microseconds; 0 where there is none."""
    unit, number = (DAY, pa.int32()) if pa.types.is_date32(times.type) else (1, pa.int64())
    ends = pc.min_max(times.cast(number)).as_py()
    return unit * (ends["min"] or 0), unit * (ends["max"] or 0)


def _as_given(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = given_type(column.type)
    if kind is None:
        raise UsageError(f"The column {name} is a {column.type}, which no table can keep.", "Cast it, or leave it out.")
    try:
        # Finer instants than microseconds are cut, as Spark does.
        return column if column.type == kind and not pa.types.is_nested(kind) else column.cast(kind, safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(
            f"The column {name}, a {column.type}, cannot be made a {kind}.", f"Cast it: {error}"
        ) from error


def count_rows(spine: object) -> int:
    """How many rows a spine has, without reading it where it is a path.

    Raises:
        UsageError, NeedsSparkError: as `read_table`.
    """
    check_readable(spine)
    if not isinstance(spine, str | Path):
        return len(spine)  # type: ignore[arg-type]
    path = reached(str(spine))
    try:
        if path.suffix == ".csv":
            with path.open("rb") as lines:
                return sum(1 for _ in lines) - 1
        return _files(path).rows
    except (OSError, ValueError) as error:
        raise unreadable(path) from error


def check_readable(spine: object) -> None:
    """See to it that a spine is in a form that needs no Spark.

    Raises:
        UsageError: it is in no form that anybody reads.
        NeedsSparkError: it is a query, or a frame of Spark's.
    """
    room = type(spine).__module__.partition(".")[0]
    if room == "pyspark" or (isinstance(spine, str) and is_select(spine)):
        raise NeedsSparkError("A query, or a frame of Spark's, is a spine for Spark only.", "Use Spark for it.")
    if not isinstance(spine, pa.Table | str | Path) and room not in ("pandas", "polars"):
        raise unknown_form(spine)


def read_table(spine: object, asked: Asked) -> pa.Table:
    """A spine given as a table, a pandas or polars frame, or the path of Parquet files, a CSV file or a Delta table.

    Raises:
        UsageError: it is none of these, cannot be read, or has instants without a time zone.
        NeedsSparkError: it is a query, a frame of Spark's, or a path that only Spark reads.
    """
    check_readable(spine)
    if isinstance(spine, pa.Table):
        return spine
    if isinstance(spine, str | Path):
        return _from_path(reached(str(spine)), asked)
    if hasattr(spine, "to_arrow"):  # of polars
        return spine.to_arrow()
    return _from_pandas(spine)


def _from_pandas(frame: Any) -> pa.Table:
    check_unique(map(str, frame.columns))
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"A column has values of several types: {error}.", "Make them one, e.g. by astype.") from error
    for field in table.schema:
        if pa.types.is_timestamp(field.type) and not field.type.tz:
            raise naive(field.name)
    return table.replace_schema_metadata(None)


def _from_path(path: Path, asked: Asked) -> pa.Table:
    try:
        if path.suffix == ".csv":
            return _from_csv(path, asked)
        files = _files(path)
    except (OSError, ValueError) as error:
        raise unreadable(path) from error
    return files.read(list(files.types))


def _files(path: Path) -> Files:
    return delta_files(path) if (path / "_delta_log").is_dir() else parquet_files(str(path))


def _from_csv(path: Path, asked: Asked) -> pa.Table:
    """Keys and request inputs as they are declared, the other columns as they look."""
    from pyarrow import csv

    declared = {field.name: arrow_type(field.type) for field in (*asked.request, *key_fields(asked.views))}
    try:
        return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=declared))
    except pa.ArrowInvalid as error:
        raise UsageError(f"The spine {path} cannot be read: {error}.", "Correct the file.") from error
