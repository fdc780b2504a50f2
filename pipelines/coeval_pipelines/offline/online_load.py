"""The online load: batch tiles and latest rows into Redis, through the same guarded writes as the stream's.

It knows Spark and the online writer. Writes are idempotent and commute with the stream's, so a load may be repeated,
interrupted, or run beside the stream.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import structlog
from numpy.typing import NDArray

from coeval.aggregations.tiles import tile_plan
from coeval.client import open_redis
from coeval.online.erase import OnlineEraser
from coeval.online.layout import TileColumns, Update, encode_tiles
from coeval.online.rows import RowColumns, encode_rows
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.erasure import concerning, place_in_key
from coeval.spec.keys import bucket_of
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval_pipelines.arrow import physical_numpy, stored_states
from coeval_pipelines.control import BatchLoad, ControlPlane
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.erased import ERASED, marked_erased, without_erased
from coeval_pipelines.offline.point_in_time import source_events
from coeval_pipelines.offline.seen import seen_by
from coeval_pipelines.offline.tables import read_batch_source, read_whole_log
from coeval_pipelines.offline.tiles import KEY, batch_tiles, latest_rows, overtaken

if TYPE_CHECKING:
    import redis
    from pyspark.sql import DataFrame, SparkSession

CALL_SIZE = 1000
"""Updates per call of the store: a few large calls, each short enough not to hold the others up."""

_LOG = structlog.get_logger()

Encoder: TypeAlias = Callable[[pa.RecordBatch], list[Update]]
Counted: TypeAlias = Callable[[pa.RecordBatch], tuple[int, int]]
"""Does something with a batch, and gives two counts of it."""


def load_view(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    view: View,
    cut: int,
    now: int | None = None,
) -> BatchLoad:
    """Write what the log says of a view at `cut` (microseconds UTC), under a new epoch, and record the load.

    Windowed views: tiles that are final at the cut. Row views: the latest row of every key that is visible `now`
    (default: the clock); a row that the stream has meanwhile replaced is refused, as it should be. Every partition of
    the source must have been ingested up to the cut.

    Raises:
        StoreError: the online store does not answer.
    """
    now = time.time_ns() // 1000 if now is None else now
    with closing(open_redis(settings)):
        run = control.start_load(view.name, view.version, cut)
    events = seen_by(view, manifest.sources[view.source], _events(spark, settings, manifest, view))
    if isinstance(view, RowView) and ERASED in events.columns:
        _erase_rows(settings, manifest, view, events, now, run)
        events = events.where(f"NOT {ERASED}")
    written = 0
    for frame, encoder in _parts(manifest, view, events, cut, now, run):
        written += _write(settings, manifest, view, frame, encoder)
    finished = time.time_ns() // 1000
    control.finish_load(run, written, finished)
    return BatchLoad(run, view.name, view.version, cut, written, finished)


def _events(spark: SparkSession, settings: Settings, manifest: Manifest, view: View) -> DataFrame:
    """What a view is computed from. Where the store cannot tell by its keys what was erased, that is marked."""
    source = manifest.sources[view.source]
    erasures = concerning(source, ErasureTable(settings, manifest.tenant).erasures())
    elsewhere = [item for item in erasures if place_in_key(view, item.column) is None]
    if not elsewhere:
        return source_events(spark, settings, manifest, view)
    if isinstance(source, EventSource):
        every = read_whole_log(spark, settings, manifest, source)
    else:
        every = read_batch_source(spark, settings, source)
    left = without_erased(every, source, [item for item in erasures if item not in elsewhere])
    return marked_erased(left, source, elsewhere)


def _erase_rows(settings: Settings, manifest: Manifest, view: RowView, events: DataFrame, now: int, run: int) -> None:
    """Let the store refuse what the stream has of an erased subject, in a view that is not keyed by it.

    That is so for keys of which an erased row is newer than the one that is left, which this load then writes.
    """

    def start(client: redis.Redis) -> Counted:
        eraser = OnlineEraser(client, manifest.tenant)

        def erase(batch: pa.RecordBatch) -> tuple[int, int]:
            floors = list(zip(batch.column(KEY).to_pylist(), _ints(batch, "event_ts").tolist(), strict=True))
            return len(floors), eraser.erase_rows(view, floors, run - 1)

        return erase

    keys, taken = _on_workers(settings, overtaken(view, events, now), start)
    _LOG.info("rows of erased subjects", view=view.name, keys=keys, taken=taken)


def _on_workers(settings: Settings, frame: DataFrame, start: Callable[[redis.Redis], Counted]) -> tuple[int, int]:
    """Do something with every batch of a frame on Spark's workers, one connection each; gives the sums of its counts.

    `start` is shipped to the workers, and makes what is done of a connection to the online store.
    """

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with closing(open_redis(settings)) as client:
            counted = start(client)
            for batch in batches:
                first, second = counted(batch)
                yield pa.RecordBatch.from_pydict({"first": [first], "second": [second]})

    counts = frame.mapInArrow(work, "first BIGINT, second BIGINT")
    found = counts.selectExpr("COALESCE(SUM(first), 0)", "COALESCE(SUM(second), 0)").first()
    assert found is not None
    return int(found[0]), int(found[1])


def _parts(
    manifest: Manifest, view: View, events: DataFrame, cut: int, now: int, epoch: int
) -> Iterator[tuple[DataFrame, Encoder]]:
    if isinstance(view, RowView):
        yield latest_rows(view, events, now), row_encoder(view, epoch)
        return
    source = manifest.event_source(view)
    for granularity in tile_plan(view, source).granularities:
        yield batch_tiles(view, source, granularity, events, cut), tile_encoder(view, source, granularity.hop, epoch)


def tile_encoder(view: WindowedView, source: EventSource, hop: int, epoch: int) -> Encoder:
    """From a batch of `batch_tiles` to guarded writes."""
    plan = tile_plan(view, source)
    components = plan.granularity(hop).components

    def encode(batch: pa.RecordBatch) -> list[Update]:
        states = {item.name: stored_states(item.storage, batch.column(item.name)) for item in components}
        columns = TileColumns(
            keys=batch.column(KEY).to_pylist(),
            tile=_ints(batch, "tile"),
            events=_ints(batch, "events"),
            last_event_ts=_ints(batch, "newest_event_ts"),
            last_available_at=_ints(batch, "newest_available_at"),
            states=states,
        )
        return encode_tiles(plan, hop, columns, epoch)

    return encode


def row_encoder(view: RowView, epoch: int) -> Encoder:
    """From a batch of `latest_rows` to guarded writes."""

    def encode(batch: pa.RecordBatch) -> list[Update]:
        columns = RowColumns(
            keys=batch.column(KEY).to_pylist(),
            event_ts=_ints(batch, "event_ts"),
            available_at=_ints(batch, "available_at"),
            partition=_ints(batch, "partition"),
            offset=_ints(batch, "offset"),
            values={field.name: batch.column(f"value_{field.name}").to_pylist() for field in view.features},
        )
        return encode_rows(view, columns, epoch)

    return encode


def _ints(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    return physical_numpy(batch.column(name))[0]


def _write(settings: Settings, manifest: Manifest, view: View, frame: DataFrame, encoder: Encoder) -> int:
    def start(client: redis.Redis) -> Counted:
        writer = OnlineWriter(client, manifest.tenant)
        return lambda batch: _apply(writer, view, encoder(batch))

    written, refused = _on_workers(settings, frame, start)
    _LOG.info("batch load", view=view.name, written=written, refused=refused)
    return written


def _apply(writer: OnlineWriter, view: View, updates: list[Update]) -> tuple[int, int]:
    written = refused = 0
    for bucket, mine in _by_bucket(view, updates).items():
        for start in range(0, len(mine), CALL_SIZE):
            applied = writer.apply(view, bucket, mine[start : start + CALL_SIZE])
            written += applied.written
            refused += applied.refused
    return written, refused


def _by_bucket(view: View, updates: list[Update]) -> Mapping[int, list[Update]]:
    buckets: dict[int, list[Update]] = defaultdict(list)
    for update in updates:
        buckets[bucket_of(update.key, view.partitions)].append(update)
    return buckets
