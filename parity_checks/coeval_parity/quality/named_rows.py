"""The table `quarantine/SOURCE`: which rows of a batch break which rule, by position alone. It knows deltalake."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_parity.quality.expectations import Position
from coeval_pipelines.offline.arrow_files import delta_files
from coeval_pipelines.offline.tables import latest_version, table_path

KIND = "quarantine"
_SCHEMA = pa.schema(
    {
        "batch": pa.int64(),
        "run": pa.int64(),
        "rule": pa.string(),
        "column": pa.string(),
        "topic": pa.string(),
        "partition": pa.int32(),
        "offset": pa.int64(),
    }
)


def name_rows(
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    batch: int,
    run: int,
    broken: Sequence[tuple[str, str, Sequence[Position]]],
) -> None:
    """Write which rows of a batch break which rule of which column, in the place of what an earlier run wrote."""
    from deltalake import write_deltalake

    path = table_path(settings, manifest, KIND, source.name)
    lines = [
        {
            "batch": batch,
            "run": run,
            "rule": rule,
            "column": column,
            "topic": str(row[0]),
            "partition": int(row[1]),
            "offset": int(row[2]),
        }
        for rule, column, rows in broken
        for row in rows
    ]
    is_new = latest_version(path) is None
    if is_new and not lines:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(lines, _SCHEMA)
    if is_new:
        write_deltalake(str(path), table)
    else:
        write_deltalake(str(path), table, mode="overwrite", predicate=f"batch = {batch}")


def named_rows(settings: Settings, manifest: Manifest, source: EventSource, batch: int) -> pa.Table:
    """The rows of a batch that are named, with the rule that each breaks; a row may break several."""
    path = table_path(settings, manifest, KIND, source.name)
    if latest_version(path) is None:
        return _SCHEMA.empty_table()
    return delta_files(path).read(_SCHEMA.names, ds.field("batch") == batch)
