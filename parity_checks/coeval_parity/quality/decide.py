"""What becomes of a quarantined batch: let through as it is, or without the rows that break rules. It knows Spark."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_parity.quality.named_rows import named_rows
from coeval_parity.quality.rules import POSITION
from coeval_pipelines.journal import UPKEEP, ingest_journal
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.compaction import committed
from coeval_pipelines.offline.tables import append_once_more, read_dropped, read_kept_log, table_path
from coeval_pipelines.quarantine import DROPPED, RELEASED, Quarantine, Verdict

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def release(settings: Settings, manifest: Manifest, source: EventSource, batch: int, why: str) -> Verdict:
    """Let a quarantined batch through as it is.

    Raises:
        UsageError: it is not quarantined, or no reason is given.
    """
    _check_why(why)
    return _decide(settings, manifest, source, batch, RELEASED, why)


def drop(
    spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource, batch: int, why: str
) -> tuple[Verdict, int]:
    """Move the rows that break rules from the log to the table `dropped`, then let the rest through; how many moved.

    Cut off anywhere it is finished by doing it again: rows are taken out of the log once they are in the other table.

    Raises:
        UsageError: the batch is not quarantined, a rule is broken that names no rows, or no reason is given.
    """
    _check_why(why)
    book = ingest_journal(settings, manifest.tenant, source.name)
    with book.locked(UPKEEP), book.locked():
        verdict = Quarantine(settings, manifest.tenant, source.name).quarantined(batch)
        nameless = [item.rule for item in verdict.broken if not item.rows]
        if nameless:
            raise UsageError(
                f"{nameless[0]} says of no single row that it is wrong.",
                f"Decide about the whole batch: coeval quality release {source.name} {batch} --why TEXT",
            )
        moved = _move(spark, settings, manifest, source, batch)
        return _decide(settings, manifest, source, batch, DROPPED, why), moved


def _move(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource, batch: int) -> int:
    from delta import DeltaTable

    named = named_rows(settings, manifest, source, batch).select(list(POSITION))
    positions = spark.createDataFrame(named).distinct()
    log = read_kept_log(spark, settings, manifest, source).where(f"batch = {batch}")
    known = read_dropped(spark, settings, manifest, source).select(*POSITION)
    fresh = log.join(positions, list(POSITION), "left_semi").join(known, list(POSITION), "left_anti")
    path = table_path(settings, manifest, "dropped", source.name)
    if fresh.head(1):
        append_once_more(fresh.select(*log.columns), path, "coeval-drop")
    same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in POSITION)
    table = DeltaTable.forPath(spark, str(table_path(settings, manifest, "log", source.name))).alias("t")
    committed(
        table_path(settings, manifest, "log", source.name),
        lambda: table.merge(positions.alias("s"), same).whenMatchedDelete().execute(),
    )
    return int(positions.count())


def _decide(
    settings: Settings, manifest: Manifest, source: EventSource, batch: int, decision: str, why: str
) -> Verdict:
    book = Quarantine(settings, manifest.tenant, source.name)
    return book.decide(batch, decision, getpass.getuser(), why, time.time_ns() // 1000)


def _check_why(why: str) -> None:
    if not why.strip():
        raise UsageError("A decision needs a reason.", "Say why: --why TEXT")
