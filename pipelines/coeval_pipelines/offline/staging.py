"""What a load will write, computed once and kept as Parquet until it is written. It knows Spark.

A part, a directory, is a granularity of a windowed view, or the rows of a row view. It is whole once a file in it says
which of its directories holds it, whose files are the units by which a load is written and resumed: object storage has
no other way to say so at once. What is read is pinned: computed again, it is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.aggregations.tiles import tile_plan
from coeval.files import remove_tree, write_whole
from coeval.settings import Settings
from coeval.spec.erasure import concerning, place_in_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, RowView, View
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import LOADING, LoadBook, LoadRun, Pins
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.erased import ERASED, marked_erased, without_erased
from coeval_pipelines.offline.seen import seen_by
from coeval_pipelines.offline.tables import latest_version, read_batch_source, read_log, read_whole_log, table_path
from coeval_pipelines.offline.tiles import batch_tiles, latest_rows, overtaken
from coeval_pipelines.quarantine import check_quarantine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

UNIT_ROWS = 50_000
"""Rows of a unit, at most: some seconds of writing, which is what an interruption costs."""
OVERTAKEN, ROWS = "overtaken", "rows"
"""The parts of a row view: keys whose newest row was erased, which come first, and the rows."""
_WHOLE = "whole"
"""The file that names the directory with a part's files; empty: it has none."""


def staged_at(settings: Settings, run: int) -> Path:
    """Where a load keeps what it writes."""
    return settings.table_root / "_staged" / _home_identity(settings) / str(run)


def _home_identity(settings: Settings) -> str:
    """What this home is called where several keep their tables: runs are numbered by each home anew."""
    path = settings.delta / "home"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        drawn = path.with_name(f".home-{uuid.uuid4().hex}")
        drawn.write_text(uuid.uuid4().hex)
        with suppress(FileExistsError):  # another process drew first
            os.link(drawn, path)
        drawn.unlink()
    return path.read_text()


def staged_runs(settings: Settings) -> list[int]:
    """The loads of which something is kept."""
    # A run that was being removed is called .RUN.removed on a disk.
    names = (path.name.lstrip(".").partition(".")[0] for path in staged_at(settings, 0).parent.glob("*"))
    return sorted({int(name) for name in names if name.isdigit()})


def parts(manifest: Manifest, view: View) -> list[str]:
    """The names of a view's parts, in the order in which they are written. A part without rows has no files."""
    if isinstance(view, RowView):
        return [OVERTAKEN, ROWS]
    return [item.name for item in tile_plan(view, manifest.event_source(view)).granularities]


def is_staged(settings: Settings, manifest: Manifest, run: LoadRun) -> bool:
    """Whether all that a load writes is computed."""
    home = staged_at(settings, run.run)
    return all((home / part / _WHOLE).exists() for part in parts(manifest, manifest.views[run.view]))


def staged_files(settings: Settings, run: int, part: str) -> list[Path]:
    """The files of a part, in their order; none before it is whole."""
    home = staged_at(settings, run) / part
    name = (home / _WHOLE).read_text() if (home / _WHOLE).exists() else ""
    return sorted((home / name).glob("*.parquet"), key=str) if name else []


def discard(settings: Settings, run: int) -> None:
    """Delete what a load that is over has kept."""
    remove_tree(staged_at(settings, run))


def stage(spark: SparkSession, settings: Settings, manifest: Manifest, control: ControlPlane, run: LoadRun) -> None:
    """Compute what a load writes, as far as it is not there.

    Raises:
        CheckFailedError: a batch of the view's log is quarantined.
    """
    book, view = LoadBook(control), manifest.views[run.view]
    check_quarantine(settings, manifest.tenant, [view])
    book.move(run.run, LOADING, "computing what is written", time.time_ns() // 1000)
    pins = run.pins or pin(settings, manifest, view, time.time_ns() // 1000)
    # Before anything is read, and after the load has its number: an erasure that it does not know knows its number.
    book.pin(run.run, pins)
    source = manifest.sources[view.source]
    events = seen_by(view, source, _events(spark, settings, manifest, view, pins))
    for part, frame in _frames(manifest, view, events, run.cut, pins.as_of):
        _keep(frame, staged_at(settings, run.run) / part)
    if isinstance(source, BatchSource):
        book.pin(run.run, replace(pins, turns_at=_turns_at(events, pins.as_of)))


def pin(settings: Settings, manifest: Manifest, view: View, now: int) -> Pins:
    """What a load that begins now reads."""
    source = manifest.sources[view.source]
    erasures = ErasureTable(settings, manifest.tenant).version
    if isinstance(source, BatchSource):
        return Pins(None, erasures, now, files=contents(settings, source))
    # Asked before the version: what was done by then is in it.
    ingested = ingest_journal(settings, manifest.tenant, source.name).last_done()
    return Pins(latest_version(table_path(settings, manifest, "log", source.name)), erasures, now, ingested)


def contents(settings: Settings, source: BatchSource) -> str:
    """Tells the contents of a batch source's files by their names, sizes and times, without reading them."""
    place = settings.data_path(source.path)
    if "://" in place:
        return ""
    root = Path(place)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    listed = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _turns_at(events: DataFrame, as_of: int) -> int | None:
    """When the next row of a batch source becomes visible that is not."""
    visible_from = events.selectExpr("GREATEST(event_ts, available_at) AS at")
    found = visible_from.where(f"at > {as_of}").selectExpr("MIN(at)").first()
    return None if found is None or found[0] is None else int(found[0])


def _keep(frame: DataFrame | None, part: Path) -> None:
    if (part / _WHOLE).exists():
        return
    # Another process may still be at it, an orphan of one that was killed: each writes its own, and any may be taken,
    # as all hold the same.
    mine = uuid.uuid4().hex if frame is not None else ""
    if frame is not None:
        frame.write.option("maxRecordsPerFile", UNIT_ROWS).parquet(str(part / mine))
        if (part / _WHOLE).exists():
            return
    write_whole(part / _WHOLE, mine)


def _frames(
    manifest: Manifest, view: View, events: DataFrame, cut: int, as_of: int
) -> Iterator[tuple[str, DataFrame | None]]:
    if isinstance(view, RowView):
        marked = ERASED in events.columns
        yield OVERTAKEN, overtaken(view, events, as_of) if marked else None
        yield ROWS, latest_rows(view, events.where(f"NOT {ERASED}") if marked else events, as_of)
        return
    source = manifest.event_source(view)
    for granularity in tile_plan(view, source).granularities:
        yield granularity.name, batch_tiles(view, source, granularity, events, cut)


def _events(spark: SparkSession, settings: Settings, manifest: Manifest, view: View, pins: Pins) -> DataFrame:
    """What a view is computed from. Where the store cannot tell by its keys what was erased, that is marked."""
    source = manifest.sources[view.source]
    erasures = concerning(source, ErasureTable(settings, manifest.tenant).erasures(pins.erasures))
    elsewhere = [item for item in erasures if place_in_key(view, item.column) is None]
    keyed = [item for item in erasures if item not in elsewhere]
    if not isinstance(source, EventSource):
        every = read_batch_source(spark, settings, source)
    elif not elsewhere:
        return read_log(spark, settings, manifest, source, version=pins.log, erased=pins.erasures)
    else:
        every = read_whole_log(spark, settings, manifest, source, version=pins.log)
    left = without_erased(every, source, keyed)
    return marked_erased(left, source, elsewhere)
