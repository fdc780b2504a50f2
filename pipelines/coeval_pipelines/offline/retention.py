"""Retention: letting old events go, never one that a view's windows or an unfinished batch needs. It knows Spark.

From then on the log begins at an instant: what asks for values that would need earlier events is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.errors import LetGoError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View
from coeval.spec.time import duration
from coeval.spec.types import iso
from coeval_pipelines.journal import UPKEEP, ingest_journal
from coeval_pipelines.offline.compaction import committed
from coeval_pipelines.offline.log_files import purge
from coeval_pipelines.offline.tables import SOURCE_TABLES, latest_version, table_path
from coeval_pipelines.offline.training.registry import pins

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True)
class Retained:
    """What is let go of a source: rows by table from before `before`, and what training sets still keep of them."""

    source: str
    before: int
    rows: Mapping[str, int]
    kept_for: tuple[str, ...]
    removed_files: int


def retain(
    spark: SparkSession,
    settings: Settings,
    manifests: Iterable[Manifest],
    source: EventSource,
    before: int,
    now: int,
    keep_hours: int,
    dry_run: bool = True,
) -> Retained:
    """Let go what of a source happened before an instant (microseconds UTC); `dry_run` only counts it.

    `manifests` are those whose views may be served. Versions of the log that training sets were made of stay.

    Raises:
        UsageError: a view still needs some of it, or a batch is not finished.
        EngineError: others kept changing a table.
    """
    manifests = list(manifests)
    (manifest, *_) = manifests
    book = ingest_journal(settings, manifest.tenant, source.name)
    with book.locked(UPKEEP), book.locked():
        check_retain(settings, manifests, source, before, now)
        there = {kind: table_path(settings, manifest, kind, source.name) for kind in SOURCE_TABLES}
        there = {kind: path for kind, path in there.items() if latest_version(path) is not None}
        rows = {kind: _count(spark, path, f"{SOURCE_TABLES[kind]} < {before}") for kind, path in there.items()}
        pinned = pins(settings, manifest, source)
        removed = 0
        if not dry_run:
            newest = latest_version(table_path(settings, manifest, "log", source.name))
            book.let_go(before, -1 if newest is None else newest)
            for kind, path in there.items():
                if rows[kind]:
                    _delete(spark, path, f"{SOURCE_TABLES[kind]} < {before}")
                removed += purge(path, keep_hours, pinned if kind == "log" else ())
        names = tuple(name for version in sorted(pinned) for name in pinned[version])
        return Retained(source.name, before, rows, names, removed)


def check_retain(settings: Settings, manifests: Sequence[Manifest], source: EventSource, before: int, now: int) -> None:
    """Refuse to let go of a source what happened before an instant, as `retain` does.

    Raises:
        UsageError: a view still needs some of it, or a batch is not finished.
    """
    for manifest in manifests:
        check_needed(manifest, source, before, now)
    if ingest_journal(settings, manifests[0].tenant, source.name).unfinished() is not None:
        raise UsageError(f"A batch of {source.name} is not finished.", "Finish it first: coeval log ingest")


def _count(spark: SparkSession, path: Path, condition: str) -> int:
    return int(spark.read.format("delta").load(str(path)).where(condition).count())


def _delete(spark: SparkSession, path: Path, condition: str) -> None:
    from delta import DeltaTable

    table = DeltaTable.forPath(spark, str(path))
    committed(path, lambda: table.delete(condition))


def reach(view: View, source: EventSource) -> int | None:
    """How far back from an instant a view may need events of its source (microseconds); None: to the beginning."""
    if isinstance(view, RowView):
        return view.ttl or None
    return view.reach + source.allowed_lateness


def check_needed(manifest: Manifest, source: EventSource, before: int, now: int) -> None:
    """Refuse to let go of what a view needs from now on.

    Raises:
        UsageError: it names the view, and the latest instant that would do.
    """
    for view in manifest.views.values():
        if view.source != source.name:
            continue
        back = reach(view, source)
        if back is None:
            raise UsageError(
                f"{view.name} gives the latest row of {source.name}, however old: all of its events are needed.",
                "Give the view a ttl, or keep the events.",
            )
        if before > now - back:
            raise UsageError(
                f"{view.name} looks back {duration(back)}: events of {source.name} after {iso(now - back)} are needed.",
                f"Let go less: --older-than {-(-back // 86_400_000_000)}d or more.",
            )


def check_begins(
    settings: Settings, manifest: Manifest, views: Iterable[View], earliest: int, logs: Mapping[str, int | None]
) -> None:
    """Refuse instants whose values would need events that were let go of these versions of the logs.

    Raises:
        LetGoError: it names the view, and the earliest instant that can be asked for.
    """
    for view in views:
        source = manifest.sources[view.source]
        begins = ingest_journal(settings, manifest.tenant, view.source).begins(logs.get(view.source))
        if not isinstance(source, EventSource) or begins is None:
            continue
        back = reach(view, source)
        if back is None or earliest - back < begins:
            first = "none" if back is None else iso(begins + back)
            raise LetGoError(
                f"The log of {source.name} begins at {iso(begins)}: earlier events were let go, and "
                f"{view.name} would need them at {iso(earliest)}.",
                f"Leave such rows out of the spine; the earliest instant that can be asked for: {first}.",
            )
