"""Physical removal of erased events: out of every data file of a log's tables, with proof. It knows Spark and Delta.

What is kept in their place is what a second delivery is known by, and where batch has to take something away: a hash of
the event id, times and position, and entity keys of others than the subject. It is written before anything is removed,
so that whatever is cut off is finished by running it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from coeval.settings import Settings
from coeval.spec.erasure import Erasure, concerning
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import UPKEEP, ingest_journal
from coeval_pipelines.offline.columns import quoted, sql_type
from coeval_pipelines.offline.compaction import committed
from coeval_pipelines.offline.deadletters import reject_of
from coeval_pipelines.offline.erased import ERASED, REMOVED, marked_erased
from coeval_pipelines.offline.log_files import live_files, purge
from coeval_pipelines.offline.sorting import REJECTS_SCHEMA, duplicates_schema, identity_hash
from coeval_pipelines.offline.tables import (
    ENVELOPE,
    FILE,
    SOURCE_TABLES,
    append_once_more,
    latest_version,
    log_schema,
    payload,
    read_kept_log,
    read_physical,
    read_removed,
    removed_schema,
    table_path,
)
from coeval_pipelines.offline.training.registry import pins

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

KEEP_HOURS = 24
"""How long a training set may go on reading files that were replaced."""
_SCHEMAS = {
    "log": log_schema,
    "duplicates": duplicates_schema,
    "dropped": log_schema,
    "removed": removed_schema,
}
_POSITION = ("topic", "partition", "offset")


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the rows of erased subjects in one table.

    `found` and `left` count them in all files of the table's directory, before and after; `live` those of the version
    that readers get. `waiting` are files that hold what is left: something may be reading them. `broken` are training
    sets that cannot be built again from the version of the log that they name.
    """

    source: str
    table: str
    found: int
    live: int
    left: int
    removed_files: int
    waiting: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def remove_erased(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    keep_hours: int = KEEP_HOURS,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove from a source's tables what its erasures name, then the files that held it, once `keep_hours` old.

    It waits for a running ingest. Nothing is found where nothing of the source was erased.

    Raises:
        EngineError: others kept changing a table.
    """
    erasures = concerning(source, ErasureTable(settings, manifest.tenant).erasures())
    if not erasures:
        return []
    book = ingest_journal(settings, manifest.tenant, source.name)
    with book.locked(UPKEEP), book.locked():
        job = _Job(spark, settings, manifest, source, erasures)
        if not dry_run:
            job.keep_identities()
        return [job.clear(kind, keep_hours, dry_run) for kind in SOURCE_TABLES if job.has(kind)]


@dataclass(frozen=True, slots=True)
class _Job:
    spark: SparkSession
    settings: Settings
    manifest: Manifest
    source: EventSource
    erasures: Sequence[Erasure]

    def has(self, kind: str) -> bool:
        return latest_version(table_path(self.settings, self.manifest, kind, self.source.name)) is not None

    def keep_identities(self) -> None:
        """Write down what is to stand in the place of the events that are about to be removed."""
        events = read_kept_log(self.spark, self.settings, self.manifest, self.source)
        path = table_path(self.settings, self.manifest, "removed", self.source.name)
        gone = self._named(events).selectExpr(*self._traces())
        known = read_removed(self.spark, self.settings, self.manifest, self.source).select(*_POSITION)
        fresh = gone.join(known, list(_POSITION), "left_anti").select(*gone.columns)
        if fresh.head(1):
            append_once_more(fresh, path, "coeval-removal")

    def _named(self, rows: DataFrame) -> DataFrame:
        """The rows that name erased subjects, with the columns that do."""
        for number, column in enumerate(self._columns()):
            mine = [item for item in self.erasures if item.column == column]
            rows = marked_erased(rows, self.source, mine).withColumnRenamed(ERASED, f"__by{number}")
        by = ", ".join(f"IF(__by{number}, '{column}', NULL)" for number, column in enumerate(self._columns()))
        return rows.withColumn(REMOVED, _filtered(by)).where(f"SIZE({REMOVED}) > 0")

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(item.column for item in self.erasures))

    def _traces(self) -> list[str]:
        """The columns of what stands in the place of a removed event."""
        keys = {entity.key.name for entity in self.manifest.entities}
        envelope = {name: quoted(name) for name in ENVELOPE} | {"event_id": identity_hash("event_id")}
        kept = {
            field.name: f"IF(ARRAY_CONTAINS({REMOVED}, '{field.name}'), NULL, {quoted(field.name)})"
            if field.name in keys
            else f"CAST(NULL AS {sql_type(field.type)})"
            for field in payload(self.source)
        }
        return [*(f"{value} AS {quoted(name)}" for name, value in (envelope | kept).items()), REMOVED]

    def clear(self, kind: str, keep_hours: int, dry_run: bool) -> Removal:
        """Remove what one table holds of the erased subjects, and count before and after."""
        path = table_path(self.settings, self.manifest, kind, self.source.name)
        before, live = self._found(kind), live_files(path)
        there = sum(count for file, count in before.items() if file in live)
        found = sum(before.values())
        if dry_run or not found:
            return Removal(self.source.name, kind, found, there, found, 0)
        if there and kind == "removed":
            self._blank()
        elif there:
            self._delete(kind)
        pinned = pins(self.settings, self.manifest, self.source) if kind == "log" else {}
        there_are = [version for version in pinned if version <= (latest_version(path) or 0)]
        lost = {version for version in there_are if not before.keys().isdisjoint(live_files(path, version))}
        names = tuple(name for version in sorted(lost) for name in pinned[version])
        removed = purge(path, keep_hours, pinned.keys() - lost)
        after = self._found(kind)
        return Removal(self.source.name, kind, found, there, sum(after.values()), removed, tuple(sorted(after)), names)

    def _found(self, kind: str) -> dict[str, int]:
        """By data file, the rows that speak of an erased subject."""
        path = table_path(self.settings, self.manifest, kind, self.source.name)
        schema = _SCHEMAS.get(kind, lambda _: REJECTS_SCHEMA)(self.source)
        rows = self._erased(kind, read_physical(self.spark, path, schema)).groupBy(FILE).count().collect()
        return {row[FILE]: row["count"] for row in rows}

    def _delete(self, kind: str) -> None:
        from delta import DeltaTable

        path = table_path(self.settings, self.manifest, kind, self.source.name)
        schema = _SCHEMAS.get(kind, lambda _: REJECTS_SCHEMA)(self.source)
        positions = self._erased(kind, read_physical(self.spark, path, schema)).select(*_POSITION).distinct()
        if kind == "log":
            # Only what is known again, should it be delivered a second time.
            kept = read_removed(self.spark, self.settings, self.manifest, self.source).select(*_POSITION)
            positions = positions.join(kept, list(_POSITION), "left_semi")
        same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in _POSITION)
        table = DeltaTable.forPath(self.spark, str(path)).alias("t")
        committed(path, lambda: table.merge(positions.alias("s"), same).whenMatchedDelete().execute())

    def _blank(self) -> None:
        """Take out of what stands for removed events the keys of those who were erased since."""
        from delta import DeltaTable

        path = table_path(self.settings, self.manifest, "removed", self.source.name)
        known = read_removed(self.spark, self.settings, self.manifest, self.source).drop(REMOVED)
        found = self._named(known).select(*_POSITION, REMOVED)
        same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in _POSITION)
        changed = {
            quoted(column): f"IF(ARRAY_CONTAINS(s.{REMOVED}, '{column}'), NULL, t.{quoted(column)})"
            for column in self._columns()
        }
        changed[REMOVED] = f"ARRAY_UNION(t.{REMOVED}, s.{REMOVED})"
        table = DeltaTable.forPath(self.spark, str(path)).alias("t")
        committed(path, lambda: table.merge(found.alias("s"), same).whenMatchedUpdate(set=changed).execute())

    def _erased(self, kind: str, rows: DataFrame) -> DataFrame:
        """The rows of a table that speak of an erased subject."""
        if kind == "rejects":
            return rows.mapInArrow(_rejected(self.source, self.erasures), _POSITIONS_IN_FILES)
        if kind == "removed":
            return self._named(rows.drop(REMOVED)).select(*_POSITION, FILE)
        marked = marked_erased(rows, self.source, self.erasures)
        if kind == "log":
            return marked.where(ERASED).select(*_POSITION, FILE)
        # Another delivery of a removed event says the same, whenever it came.
        removed = read_removed(self.spark, self.settings, self.manifest, self.source)
        known = removed.selectExpr("event_id AS __hash", "declared_ts").distinct().selectExpr("*", "TRUE AS __known")
        marked = marked.selectExpr("*", f"{identity_hash('event_id')} AS __hash")
        both = marked.join(known, ["__hash", "declared_ts"], "left")
        return both.where(f"{ERASED} OR __known").select(*_POSITION, FILE)


def _filtered(items: str) -> object:
    from pyspark.sql import functions as F

    return F.expr(f"FILTER(ARRAY({items}), item -> item IS NOT NULL)")


_POSITIONS_IN_FILES = f"topic STRING, `partition` INT, `offset` BIGINT, {FILE} STRING"


def _rejected(
    source: EventSource, erasures: Sequence[Erasure]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Keeps the rejected records that name an erased subject, in any way in which the rules can tell."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            erased = [reject_of(source, row, "", erasures).erased for row in batch.to_pylist()]
            yield batch.filter(pa.array(erased, pa.bool_())).select([*_POSITION, FILE])

    return run
