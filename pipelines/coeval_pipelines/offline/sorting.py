"""Sorting an ingest batch: good, rejected, duplicate, and what of the good came late. It knows Spark.

Columns of our own begin with two underscores, which no declared column does.

Everything here is deterministic in the batch and in what the log held before it, so that a batch can be run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.time import duration
from coeval_pipelines.journal import IngestReport
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.erased import REMOVED
from coeval_pipelines.offline.tables import ENVELOPE, Keep, ddl, log_schema, payload

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

HEADERS = "ARRAY<STRUCT<key: STRING, value: BINARY>>"
"""As Spark reads the headers of a record."""
REJECTS_SCHEMA = ddl(
    {
        "reason": "STRING",
        "value": "BINARY",
        "available_at": "BIGINT",
        "topic": "STRING",
        "partition": "INT",
        "offset": "BIGINT",
        "batch": "BIGINT",
        "key": "BINARY",
        "headers": HEADERS,
    }
)
"""Rejected records: why, their raw bytes, and where they were; key and headers where a column stands there."""


def parsed_schema(source: EventSource) -> str:
    """A batch after validation: log columns, null in a reject, with its reason and raw bytes, key and headers."""
    return f"{log_schema(source)}, __reason STRING, __value BINARY, __key BINARY, __headers {HEADERS}"


def duplicates_schema(source: EventSource) -> str:
    """Duplicates: log columns, and whether they contradict their original."""
    return f"{log_schema(source)}, __conflict BOOLEAN"


def sort_out(
    source: EventSource, parsed: DataFrame, log: DataFrame | None, keep: Keep, removed: DataFrame | None = None
) -> DataFrame:
    """Add `__fate` (good, rejected, duplicate) and `__conflict` to a validated batch.

    Of one identity, what the `log` holds counts, or held before it was `removed`, else the first by (available_at,
    partition, offset).
    """
    from pyspark.sql import functions as F

    valid = parsed.where("__reason IS NULL").withColumn("__fresh", F.lit(True))
    near = None if log is None else _near(_with_removed(log, removed, valid), valid).withColumn("__fresh", F.lit(False))
    repeated = _repeated(valid, near, keep)
    if repeated is None:
        return parsed.withColumn("__fate", F.expr("IF(__reason IS NULL, 'good', 'rejected')")).withColumn(
            "__conflict", F.lit(False)
        )
    both = valid if near is None else valid.unionByName(near, allowMissingColumns=True)
    judged = _judge(source, both.withColumn("__same", F.expr(_SAME)).join(repeated, "__same", "left_semi"))
    single = parsed.withColumn("__same", F.expr(f"IF(__reason IS NULL, {_SAME}, NULL)")).join(
        repeated, "__same", "left_anti"
    )
    single = single.selectExpr("*", "IF(__reason IS NULL, 'good', 'rejected') AS __fate", "FALSE AS __conflict").drop(
        "__same"
    )
    return single.unionByName(judged.select(single.columns))


_SAME = "XXHASH64(event_id, declared_ts)"
"""Equal for equal identities: finds the few rows that may repeat one, at the price of a number per row."""


def identity_hash(event_id: str) -> str:
    """The SQL of what is kept of an event id when the event is removed: enough to know it again."""
    return f"SHA2({event_id}, 256)"


def _with_removed(log: DataFrame, removed: DataFrame | None, valid: DataFrame) -> DataFrame:
    """The log, and of what was removed from it that of which a batch brings another delivery, under its event id."""
    if removed is None:
        return log
    known = valid.selectExpr("event_id AS __id", f"{identity_hash('event_id')} AS event_id", "declared_ts").distinct()
    again = removed.join(known, ["event_id", "declared_ts"]).drop("event_id").withColumnRenamed("__id", "event_id")
    return log.unionByName(again, allowMissingColumns=True)


def _near(log: DataFrame, valid: DataFrame) -> DataFrame:
    """The part of the log that a batch may repeat, by the bounds of its declared times."""
    from pyspark.sql import functions as F

    bounds = valid.agg(F.min("declared_ts"), F.max("declared_ts")).first()
    assert bounds is not None
    return log.where(F.col("declared_ts").between(bounds[0] or 0, bounds[1] or 0))


def _repeated(valid: DataFrame, near: DataFrame | None, keep: Keep) -> DataFrame | None:
    """The hashes of the identities that may stand more than once; None where there is none."""
    hashes = valid.selectExpr(f"{_SAME} AS __same")
    if near is not None:
        hashes = hashes.unionByName(near.selectExpr(f"{_SAME} AS __same"))
    repeated = keep(hashes.groupBy("__same").count().where("count > 1").select("__same"))
    return repeated if repeated.head(1) else None


def _judge(source: EventSource, candidates: DataFrame) -> DataFrame:
    """Among rows that may repeat an identity: which is the original, and which contradict theirs."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    same = Window.partitionBy("event_id", "declared_ts").orderBy("__fresh", "available_at", "partition", "offset")
    content = F.struct(*(F.col(quoted(field.name)) for field in payload(source)))
    # What was removed cannot be compared any more.
    known = F.col(REMOVED).isNull() if REMOVED in candidates.columns else F.lit(True)
    ranked = (
        candidates.withColumn("__rank", F.row_number().over(same))
        .withColumn(
            "__original", F.first(F.struct(content.alias("content"), known.alias("known"), "partition")).over(same)
        )
        .where("__fresh")
    )
    # A history file and the topic may overlap: that is no fault of a producer.
    moved = F.expr("partition <> __original.partition AND __original.partition >= 0")
    differs = F.col("__original.known") & ~content.eqNullSafe(F.col("__original.content"))
    return ranked.withColumn("__fate", F.expr("IF(__rank = 1, 'good', 'duplicate')")).withColumn(
        "__conflict", (F.col("__rank") > 1) & (differs | moved)
    )


def late_conditions(manifest: Manifest, source: EventSource) -> dict[str, str]:
    """Per granularity of the source's views, the SQL that tells whether an event came after its tile was final."""
    views = (view for view in manifest.windowed_views if view.source == source.name)
    hops = {aggregate.hop for view in views for aggregate in view.aggregates}
    return {
        duration(hop): f"available_at >= event_ts - PMOD(event_ts, {hop}L) + {hop + source.allowed_lateness}L"
        for hop in sorted(hops)
    }


def count(manifest: Manifest, source: EventSource, sorted_out: DataFrame, offsets: Mapping[int, int]) -> IngestReport:
    """Count what became of a batch."""
    from pyspark.sql import functions as F

    late = late_conditions(manifest, source)
    counted = sorted_out.groupBy("__fate", "__reason").agg(
        F.count(F.lit(1)).alias("n"),
        F.count_if("__conflict").alias("conflicts"),
        *(F.count_if(F.expr(condition)).alias(name) for name, condition in late.items()),
    )
    rows = [row.asDict() for row in counted.collect()]
    by_fate = {fate: [row for row in rows if row["__fate"] == fate] for fate in ("good", "rejected", "duplicate")}
    good = by_fate["good"][0] if by_fate["good"] else {}
    return IngestReport(
        source=source.name,
        read=sum(row["n"] for row in rows),
        good=good.get("n", 0),
        rejected={
            row["__reason"]: row["n"] for row in sorted(by_fate["rejected"], key=lambda row: str(row["__reason"]))
        },
        duplicates=sum(row["n"] for row in by_fate["duplicate"]),
        conflicts=sum(row["conflicts"] for row in by_fate["duplicate"]),
        late={name: good.get(name, 0) for name in late},
        offsets=dict(offsets),
    )


def envelope_and_payload(source: EventSource) -> list[str]:
    """The log's columns, quoted, in order."""
    return [*map(quoted, ENVELOPE), *(quoted(field.name) for field in payload(source))]
