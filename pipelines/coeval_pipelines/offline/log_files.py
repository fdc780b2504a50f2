"""The files of a log's tables: what is there, what is stale, what must stay. It knows deltalake, and no Spark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.errors import MissingExtraError
from coeval_pipelines.offline.tables import latest_version

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table as its newest version has it, and files in its directory that this version does not name.

    `newest` is the latest `available_at` of its rows (microseconds UTC), None where the table does not say.
    """

    version: int
    rows: int
    files: int
    bytes: int
    stale_files: int
    stale_bytes: int
    newest: int | None

    def to_dict(self) -> dict[str, int | None]:
        """As JSON-ready values."""
        return {name: getattr(self, name) for name in self.__slots__}


def open_table(path: Path, version: int | None = None) -> DeltaTable:
    """A table as deltalake reads it.

    Raises:
        MissingExtraError: deltalake is not installed.
    """
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise MissingExtraError("deltalake is not installed.", "pip install 'coeval[offline]'") from error
    return DeltaTable(str(path), version=version)


def look(path: Path) -> TableFiles | None:
    """What is in a table's directory; None where there is no table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if latest_version(path) is None:
        return None
    table = open_table(path)
    added = pa.table(table.get_add_actions(flatten=True))
    sizes = data_files(path)
    stale = sizes.keys() - set(added.column("path").to_pylist())
    newest = "max.available_at"
    return TableFiles(
        version=table.version(),
        rows=pc.sum(added.column("num_records")).as_py() or 0,
        files=added.num_rows,
        bytes=pc.sum(added.column("size_bytes")).as_py() or 0,
        stale_files=len(stale),
        stale_bytes=sum(sizes[name] for name in stale),
        newest=pc.max(added.column(newest)).as_py() if newest in added.column_names else None,
    )


def data_files(path: Path) -> dict[str, int]:
    """The size of every data file in a table's directory, by its path from there."""
    found = (item for item in path.rglob("*.parquet") if "_delta_log" not in item.parts)
    return {str(item.relative_to(path)): item.stat().st_size for item in found}


def live_files(path: Path, version: int | None = None) -> set[str]:
    """The data files of a version of a table (None: the newest), by their paths from its directory."""
    import pyarrow as pa

    return set(pa.table(open_table(path, version).get_add_actions(flatten=True)).column("path").to_pylist())


def purge(path: Path, hours: int, keep: Iterable[int] = ()) -> int:
    """Remove the data files that no version of the last `hours` names, nor one to `keep`, as VACUUM does; how many.

    Nobody may be writing to the table. It may be cut off and run again.
    """
    versions = sorted(version for version in keep if version <= (latest_version(path) or 0))
    # Dry: deltalake refuses to commit to tables with features that it does not write, and there is nothing to commit.
    named = open_table(path).vacuum(
        retention_hours=hours, dry_run=True, enforce_retention_duration=False, full=True, keep_versions=versions or None
    )
    stale = [path / name for name in named if (path / name).exists()]
    for file in stale:
        file.unlink()
        file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    return len(stale)
