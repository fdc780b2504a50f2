"""How much a load will write, counted from the log's files without Spark. It knows Delta, Arrow and pandas.

Of large logs a sample of the keys is followed, each with all of its events, so that keys and tiles scale alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.tiles import tile_plan
from coeval.errors import NeedsSparkError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, View, WindowedView
from coeval_pipelines.arrow import physical_numpy
from coeval_pipelines.offline.arrow_files import parquet_files, reached
from coeval_pipelines.offline.log_files import open_table
from coeval_pipelines.offline.staging import ROWS
from coeval_pipelines.offline.tables import latest_version, table_path

if TYPE_CHECKING:
    import pyarrow as pa

FOLLOWED = 2_000_000
"""Events that are followed, at most about."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_KEYS = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a load: events that its source has, the keys, the tiles or rows by part. One of `share` keys was followed."""

    events: int
    keys: int
    rows: Mapping[str, int]
    share: int

    @property
    def total(self) -> int:
        """All tiles and rows."""
        return sum(self.rows.values())


def estimate(settings: Settings, manifest: Manifest, view: View, cut: int) -> Estimate | None:
    """How much a load at that cut would write; None where the files cannot say (a key that the view computes).

    What a condition of the view leaves out is counted too.
    """
    source = manifest.sources[view.source]
    keys = [field.name for field in view.key]
    try:
        files = _files(settings, manifest, view)
    except NeedsSparkError:
        return None
    if not files or set(keys) & {item.field.name for item in view.columns}:
        return None
    dataset = parquet_files(files).data
    events = dataset.count_rows()
    share = max(1, events // FOLLOWED)
    columns = keys if isinstance(source, BatchSource) else [*keys, "event_ts", "available_at"]
    batches = dataset.to_batches(columns=columns)
    if isinstance(view, WindowedView):
        found = _tiles(view, manifest.event_source(view), cut, share, batches)
    else:
        found = {_KEYS: [_hashes(batch, keys, share)[0] for batch in batches]}
    counts = {part: share * _distinct(some) for part, some in found.items()}
    count = counts.pop(_KEYS)
    return Estimate(events, count, counts or {ROWS: count}, share)


def _files(settings: Settings, manifest: Manifest, view: View) -> list[str]:
    source = manifest.sources[view.source]
    if isinstance(source, BatchSource):
        path = reached(settings.data_path(source.path))
        if source.format == "delta":
            return _table(path)
        return [str(path)] if path.is_file() else sorted(str(item) for item in path.rglob("*.parquet"))
    return _table(table_path(settings, manifest, "log", source.name))


def _table(path: Path) -> list[str]:
    return [] if latest_version(path) is None else open_table(path).file_uris()


def _tiles(
    view: WindowedView, source: EventSource, cut: int, share: int, batches: Iterable[pa.RecordBatch]
) -> dict[str, list[NDArray[np.uint64]]]:
    """Hashes of the keys, and of keys and tiles by granularity, of what is final at the cut and within its ring."""
    plan = tile_plan(view, source)
    found: dict[str, list[NDArray[np.uint64]]] = {_KEYS: [], **{item.name: [] for item in plan.granularities}}
    for batch in batches:
        hashes, kept = _hashes(batch, [field.name for field in view.key], share)
        event_ts, available_at = (physical_numpy(batch.column(name))[0][kept] for name in ("event_ts", "available_at"))
        for item in plan.granularities:
            first, last = cut // item.hop - item.slots + 1, item.final_before(cut, source.allowed_lateness)
            tile = event_ts // item.hop
            inside = (tile >= first) & (tile < last) & (available_at < cut)
            found[item.name].append(np.unique(hashes[inside] * _MIX + tile[inside].astype(np.uint64)))
            found[_KEYS].append(np.unique(hashes[inside]))
    return found


def _hashes(batch: pa.RecordBatch, keys: Sequence[str], share: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The hashes of the keys that are followed, and which rows of a batch have those."""
    from pandas.util import hash_pandas_object

    hashes = hash_pandas_object(batch.select(list(keys)).to_pandas(), index=False).to_numpy()
    kept = hashes % np.uint64(share) == 0
    return hashes[kept], kept


def _distinct(some: Sequence[NDArray[np.uint64]]) -> int:
    return len(np.unique(np.concatenate(some))) if some else 0
