"""The online load: what was staged into Redis, unit by unit, through the same guarded writes as the stream's.

It knows Parquet and the online writer, not Spark. Writes are idempotent and commute with the stream's, so a load may be
repeated, interrupted, or run beside the stream: a unit that was half written is written again, and changes nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import structlog
from numpy.typing import NDArray

from coeval.aggregations.tiles import tile_plan
from coeval.client import open_redis
from coeval.errors import StoreError
from coeval.online.erase import OnlineEraser
from coeval.online.layout import TileColumns, Update, encode_tiles
from coeval.online.rows import RowColumns, encode_rows
from coeval.online.writer import Call, OnlineWriter
from coeval.settings import Settings
from coeval.spec.keys import bucket_of
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval_pipelines.arrow import physical_numpy, stored_states
from coeval_pipelines.control.loads import LoadBook, LoadRun
from coeval_pipelines.offline.staging import OVERTAKEN, ROWS, parts, staged_files
from coeval_pipelines.offline.throttle import Throttle
from coeval_pipelines.offline.tiles import KEY

if TYPE_CHECKING:
    import redis

BATCH_ROWS = 5_000
"""Rows that are encoded at a time."""
BEAT_SECONDS = 0.5
"""How often a load says how far it is, and looks whether it was cancelled."""

_LOG = structlog.get_logger()

Encoder: TypeAlias = Callable[[pa.RecordBatch], list[Update]]
Beat: TypeAlias = Callable[[int, float], None]
"""Told the rows that are written and how many were in a second; raises where the load is to stop."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A staged file: its name in the load (part/file) and its rows."""

    name: str
    path: Path
    rows: int

    @property
    def part(self) -> str:
        """The part that it is of."""
        return self.name.partition("/")[0]


def staged_units(settings: Settings, manifest: Manifest, run: LoadRun) -> list[Unit]:
    """The units of a load that is staged, in the order in which they are written."""
    from pyarrow.parquet import read_metadata

    found = []
    for part in parts(manifest, manifest.views[run.view]):
        for path in staged_files(settings, run.run, part):
            with path.open("rb") as file:
                rows = int(read_metadata(file).num_rows)
            if rows:
                found.append(Unit(f"{part}/{path.name}", path, rows))
    return found


def write_units(
    settings: Settings,
    manifest: Manifest,
    book: LoadBook,
    run: LoadRun,
    life: str,
    throttle: Throttle,
    beat: Beat = lambda *_: None,
) -> int:
    """Write the units of a staged load that are not whole in this life of the store; returns what was written in all.

    Raises:
        StoreError: the online store refused or does not answer; the units that are left may be written again.
    """
    import redis

    units = staged_units(settings, manifest, run)
    done = book.units_done(run.run, life)
    book.stage(run.run, len(units), sum(unit.rows for unit in units), life)
    progress = _Progress(book, run.run, sum(unit.rows for unit in units if unit.name in done), beat)
    progress.say()
    try:
        with closing(open_redis(settings)) as client:
            writer, view = OnlineWriter(client, manifest.tenant), manifest.views[run.view]
            sink = _Sink(client, writer, manifest, view, run.run, throttle, progress)
            for unit in units:
                if unit.name not in done:
                    done[unit.name] = _write_unit(sink, unit)
                    book.unit_done(run.run, unit.name, life, unit.rows, done[unit.name], time.time_ns() // 1000)
    except redis.RedisError as error:
        raise StoreError(
            f"The online store failed while {run.view} was loaded: {error}.",
            f"Once it answers (coeval status): coeval backfill resume {run.run}",
        ) from error
    progress.say()
    written = sum(done[unit.name] for unit in units)
    _LOG.info("batch load", view=run.view, run=run.run, rows=progress.rows, written=written)
    return written


class _Progress:
    """Counts rows, and says so twice a second."""

    def __init__(self, book: LoadBook, run: int, rows: int, beat: Beat) -> None:
        self._book, self._run, self._beat = book, run, beat
        self.rows = rows
        self._since = self._said = time.monotonic()
        self._first = rows

    def add(self, rows: int) -> None:
        self.rows += rows
        if time.monotonic() - self._said >= BEAT_SECONDS:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        per_second = (self.rows - self._first) / max(self._said - self._since, 1e-3)
        self._book.beat(self._run, self.rows, per_second, time.time_ns() // 1000)
        self._beat(self.rows, per_second)


@dataclass(frozen=True, slots=True)
class _Sink:
    """Where the rows of one load go, and what goes along with every call."""

    client: redis.Redis
    writer: OnlineWriter
    manifest: Manifest
    view: View
    epoch: int
    throttle: Throttle
    progress: _Progress


def _write_unit(sink: _Sink, unit: Unit) -> int:
    from pyarrow.parquet import ParquetFile

    with unit.path.open("rb") as file, ParquetFile(file) as rows:
        batches = rows.iter_batches(BATCH_ROWS)
        if unit.part == OVERTAKEN:
            return sum(_refuse_erased(sink, batch) for batch in batches)
        encode = _encoder(sink.manifest, sink.view, unit.part, sink.epoch)
        return sum(_write(sink, encode(batch)) for batch in batches)


def _refuse_erased(sink: _Sink, batch: pa.RecordBatch) -> int:
    """Let the store refuse what the stream has of an erased subject, in a view that is not keyed by it.

    That is so for keys of which an erased row is newer than the one that is left, which this load then writes.
    """
    assert isinstance(sink.view, RowView)
    floors = list(zip(batch.column(KEY).to_pylist(), _ints(batch, "event_ts").tolist(), strict=True))
    OnlineEraser(sink.client, sink.manifest.tenant).erase_rows(sink.view, floors, sink.epoch - 1)
    sink.progress.add(len(floors))
    return 0


def _write(sink: _Sink, updates: Sequence[Update]) -> int:
    written = 0
    calls = _calls(sink.view, updates, sink.throttle)
    while some := list(islice(calls, sink.throttle.flow.calls)):
        count = sum(len(call.updates) for call in some)
        sink.throttle.before(count)
        began = time.monotonic()
        for applied in sink.writer.apply_all(some):
            assert not isinstance(applied, Exception), "a call without a fence is never fenced off"
            written += applied.written
        sink.throttle.after(count, time.monotonic() - began)
        sink.progress.add(count)
    return written


def _calls(view: View, updates: Sequence[Update], throttle: Throttle) -> Iterator[Call]:
    """Calls of one bucket each, as large as the throttle lets them be when each is made."""
    buckets: dict[int, list[Update]] = defaultdict(list)
    for update in updates:
        buckets[bucket_of(update.key, view.partitions)].append(update)
    for bucket, mine in buckets.items():
        start = 0
        while start < len(mine):
            size = throttle.flow.call_size
            yield Call(view, bucket, mine[start : start + size])
            start += size


def _encoder(manifest: Manifest, view: View, part: str, epoch: int) -> Encoder:
    if isinstance(view, RowView):
        assert part == ROWS
        return row_encoder(view, epoch)
    source = manifest.event_source(view)
    hop = next(item.hop for item in tile_plan(view, source).granularities if item.name == part)
    return tile_encoder(view, source, hop, epoch)


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
