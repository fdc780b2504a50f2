"""Parquet files and Delta tables as Arrow datasets, and which of them only Spark reads. It knows deltalake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from coeval.errors import MissingExtraError, NeedsSparkError
from coeval.files import place

if TYPE_CHECKING:
    from deltalake import DeltaTable

INSTANT = pa.timestamp("us", tz="UTC")
_SPARK = "Use Spark for it (pip install 'coeval[offline]')."


@dataclass(frozen=True, slots=True)
class Files:
    """Columns in files. `instants` are those that Parquet keeps as INT96, whose time zone Arrow does not know: UTC."""

    data: ds.Dataset
    instants: frozenset[str] = frozenset()
    recorded: int | None = None
    """How many rows the table's own log says there are; None: it does not say."""

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The columns and their types."""
        return {field.name: INSTANT if field.name in self.instants else field.type for field in self.data.schema}

    @property
    def rows(self) -> int:
        """How many rows there are, from what is written about the files."""
        return self.data.count_rows() if self.recorded is None else self.recorded

    def read(self, columns: list[str], where: ds.Expression | None = None) -> pa.Table:
        """Some columns of the rows that a condition holds for; statistics spare files and row groups."""
        table = self.data.to_table(columns=columns, filter=where)
        for name in self.instants.intersection(columns):
            table = table.set_column(columns.index(name), name, table.column(name).cast(INSTANT))
        return table


def delta_files(path: Path | str, version: int | None = None) -> Files:
    """A version of a Delta table (None: the newest).

    Raises:
        FileNotFoundError: there is no such table.
        NeedsSparkError: deltalake does not read it: a column was widened, its deletions are vectors, ...
        MissingExtraError: deltalake is not installed.
    """
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError
    except ImportError as error:
        raise MissingExtraError("deltalake is not installed.", "pip install 'coeval[notebook]'") from error
    try:
        table = DeltaTable(str(path), version=version)
        return Files(_dataset(table, str(path)), recorded=_recorded(table))
    except TableNotFoundError as error:
        raise FileNotFoundError(str(path)) from error
    except DeltaError as error:
        raise NeedsSparkError(f"Without Spark the table {path} cannot be read: {_said(error)}", _SPARK) from error


def _dataset(table: DeltaTable, where: str) -> ds.Dataset:
    from deltalake.exceptions import DeltaProtocolError

    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise DeltaProtocolError("its columns are mapped to other names.")
    # Through deltalake's own file system a process that has read something aborts when it ends.
    system, (root,) = _found([where])
    here = pafs.SubTreeFileSystem(root, system)
    options = ds.ParquetReadOptions(coerce_int96_timestamp_unit="us")
    return table.to_pyarrow_dataset(filesystem=here, parquet_read_options=options)


def _recorded(table: DeltaTable) -> int | None:
    numbers = pa.table(table.get_add_actions(flatten=True)).column("num_records").to_pylist()
    return None if None in numbers else sum(numbers)


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]


def parquet_files(where: str | list[str]) -> Files:
    """A Parquet file, the files of a directory, or these files.

    Raises:
        FileNotFoundError: there is none.
        ValueError: they are not Parquet files.
        NeedsSparkError: they are not on this machine, or named by a pattern, or in directories of partitions.
    """
    if isinstance(where, str):
        _check_place(where)
    kind = ds.ParquetFileFormat(coerce_int96_timestamp_unit="us")
    system, paths = _found([where] if isinstance(where, str) else where)
    data = ds.dataset(paths[0] if isinstance(where, str) else paths, format=kind, filesystem=system)
    return Files(data, _legacy(next(data.get_fragments(), None)))


def _found(places: Sequence[str]) -> tuple[pafs.FileSystem, list[str]]:
    """The file system that some places are in, and their paths there."""
    paths = [reached(text) for text in places]
    if all(isinstance(path, Path) for path in paths):
        return pafs.LocalFileSystem(), [str(path.resolve()) for path in paths]
    return pafs.PyFileSystem(pafs.FSSpecHandler(paths[0].fs)), [path.path for path in paths]  # type: ignore[attr-defined]


def reached(text: str) -> Path:
    """A place that this process reaches.

    Raises:
        NeedsSparkError: it does not.
    """
    try:
        return place(text)
    except MissingExtraError as error:
        raise NeedsSparkError(error.reason, f"{_SPARK[:-1]}, or: {error.instruction}") from error


def _check_place(text: str) -> None:
    path = reached(text)
    partitions = path.is_dir() and any("=" in item.name and item.is_dir() for item in path.iterdir())
    if partitions or (not path.exists() and set("*?[{") & set(text)):
        raise NeedsSparkError(f"{text} is not a file or a directory of files.", _SPARK)


def _legacy(fragment: Any) -> frozenset[str]:
    if fragment is None:
        return frozenset()
    schema = fragment.metadata.schema
    return frozenset(
        schema.column(index).name for index in range(len(schema)) if schema.column(index).physical_type == "INT96"
    )
