"""Compaction: many small files of a log's tables into few, in place. It knows Spark and Delta.

Plain Delta, without deletion vectors or clustering, so that whatever reads the format reads the tables. Each table is
one commit; an ingest may run beside it, and what is cut off leaves the table as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.journal import UPKEEP, ingest_journal
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.log_files import TableFiles, look, purge
from coeval_pipelines.offline.tables import SOURCE_TABLES, payload, table_path
from coeval_pipelines.offline.training.registry import pins

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

KEEP_HOURS = 7 * 24
"""How long a reader may go on reading files that were replaced."""
_ATTEMPTS = 3
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Compacted:
    """A table before and after, and how many files were removed that nothing needs any more."""

    source: str
    table: str
    before: TableFiles
    after: TableFiles
    removed_files: int


def compact(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    by_key: bool = False,
    keep_hours: int = KEEP_HOURS,
) -> list[Compacted]:
    """Join the small files of a source's tables, and remove those that were replaced longer than `keep_hours` ago.

    With `by_key`, the whole log is written anew in the order of its keys and times, so that a reader of few keys skips
    most files. Versions that training sets were made of stay readable.

    Raises:
        EngineError: others kept changing a table.
    """
    done = []
    book = ingest_journal(settings, manifest.tenant, source.name)
    with book.locked(UPKEEP):
        for kind in SOURCE_TABLES:
            path = table_path(settings, manifest, kind, source.name)
            before = look(path)
            if before is None:
                continue
            order = _key_order(manifest, source) if by_key and kind == "log" else ""
            committed(path, lambda: spark.sql(f"OPTIMIZE delta.`{path}`{order}").collect())  # noqa: B023 - run at once
            with book.locked():  # What an ingest is about to commit is named by no version yet either.
                removed = purge(path, keep_hours, pins(settings, manifest, source) if kind == "log" else ())
            after = look(path)
            assert after is not None
            done.append(Compacted(source.name, kind, before, after, removed))
    return done


def _key_order(manifest: Manifest, source: EventSource) -> str:
    """Along a curve through the keys of the source's views, and time."""
    there = {field.name for field in payload(source)}
    views = (view for view in manifest.views.values() if view.source == source.name)
    keys = dict.fromkeys(field.name for view in views for field in view.key if field.name in there)
    return f" ZORDER BY ({', '.join(map(quoted, [*keys, 'event_ts']))})"


def committed(path: Path, action: Callable[[], _T]) -> _T:
    """What an action on a table gives; one that lost against another's commit is repeated.

    Raises:
        EngineError: it lost every time.
    """
    from delta.exceptions import DeltaConcurrentModificationException

    for _ in range(_ATTEMPTS):
        try:
            return action()
        except DeltaConcurrentModificationException as error:
            last = error
    raise EngineError(
        f"Others kept changing {path}; nothing was written.", "Run it again when they are done."
    ) from last
