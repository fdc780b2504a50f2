"""The event log: history and topics into Delta, exactly once; the one place that accounts for every record.

It knows Spark, Delta and Kafka. Good events, rejects and duplicates are three tables, so one batch is three commits:
its offsets are written down first, each commit carries its number and lands once, and the log's comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from coeval.errors import BrokerError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.journal import BatchPlan, IngestReport, Journal, Range, ingest_journal
from coeval_pipelines.kafka import answering, client_options, java_properties
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.sorting import (
    HEADERS,
    REJECTS_SCHEMA,
    count,
    duplicates_schema,
    envelope_and_payload,
    parsed_schema,
    sort_out,
)
from coeval_pipelines.offline.tables import (
    FILE_PARTITION,
    Keep,
    append,
    keeping,
    latest_version,
    numbered,
    payload,
    read_batch_source,
    read_dropped,
    read_files,
    read_kept_log,
    read_log,
    read_removed,
    read_table,
    table_path,
    typed_reason,
)
from coeval_pipelines.offline.validate import validator

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["IngestReport", "ingest_history", "ingest_topic", "read_batch_source", "read_log", "read_rejects", "totals"]

_HISTORY = 0


def totals(settings: Settings, manifest: Manifest, source: EventSource) -> IngestReport:
    """Everything ingested of a source so far, and the next offsets to read. Needs no Spark."""
    return journal(settings, manifest, source).total()


def journal(settings: Settings, manifest: Manifest, source: EventSource) -> Journal:
    """The ingest journal of a source."""
    return ingest_journal(settings, manifest.tenant, source.name)


def read_rejects(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> DataFrame:
    """The rejected records of a source: reason, raw bytes, position."""
    return read_table(spark, table_path(settings, manifest, "rejects", source.name), REJECTS_SCHEMA)


def read_duplicates(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> DataFrame:
    """The duplicates of a source, each with the flag `__conflict`."""
    return read_table(spark, table_path(settings, manifest, "duplicates", source.name), duplicates_schema(source))


def ingest_history(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> IngestReport:
    """Load the source's history files, once: a later call reads nothing. An event was available when it happened.

    Raises:
        UsageError: the files are not there, or not of the declared types.
    """
    book = journal(settings, manifest, source)
    with book.locked():
        if not source.history or book.report(_HISTORY) is not None:
            return IngestReport(source.name)
        with keeping() as keep:
            parsed = _history(spark, settings, source, keep)
            report = _ingest(spark, settings, manifest, source, parsed, _HISTORY, {}, keep)
        book.finish(_HISTORY, report)
        return report


def _history(spark: SparkSession, settings: Settings, source: EventSource, keep: Keep) -> DataFrame:
    """History rows as a parsed batch; their order is (time, event id, everything else)."""
    names = [quoted(field.name) for field in source.fields]
    instant = f"UNIX_MICROS({quoted(source.event_ts)})"
    envelope = {
        "event_id": f"CAST({quoted(source.event_id)} AS STRING)",
        "event_ts": instant,
        "available_at": instant,
        "topic": "''",
        "partition": f"{FILE_PARTITION}",
        "offset": "__ordinal",
        "declared_ts": instant,
        "batch": f"{_HISTORY}L",
    }
    raw = f"CAST(TO_JSON(STRUCT({', '.join(names)})) AS BINARY)"
    files = read_files(spark, settings, f"the history of {source.name}", source.history, source.fields)
    ordered = numbered(files, [quoted(source.event_ts), quoted(source.event_id), *names], keep)
    return ordered.selectExpr("*", f"{typed_reason(source)} AS __reason").selectExpr(
        *(f"{value} AS {quoted(name)}" for name, value in envelope.items()),
        *(quoted(field.name) for field in payload(source)),
        "__reason",
        f"IF(__reason IS NULL, NULL, {raw}) AS __value",
        "CAST(NULL AS BINARY) AS __key",
        f"CAST(NULL AS {HEADERS}) AS __headers",
    )


def ingest_topic(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> IngestReport:
    """Load the topic from where the last ingest ended up to its end now; an interrupted batch is finished first.

    Raises:
        UsageError: the source has a history that is not loaded yet.
        BrokerError: the broker does not answer, or the topic no longer holds what has not been read.
    """
    book = journal(settings, manifest, source)
    with book.locked():
        if source.history and book.report(_HISTORY) is None:
            # What the topic repeats of the history is a duplicate, so the history must be there first.
            raise UsageError(f"The history of {source.name} has not been loaded.", "Load it: coeval log ingest")
        report = IngestReport(source.name, offsets=book.offsets())
        interrupted = book.last_plan()
        if interrupted is not None and book.report(interrupted.batch) is None:
            report = report.plus(_run_batch(spark, settings, manifest, source, book, interrupted))
        plan = _next_batch(settings, source, book)
        if plan.records:
            book.plan(plan)
            report = report.plus(_run_batch(spark, settings, manifest, source, book, plan))
        return report


def _next_batch(settings: Settings, source: EventSource, book: Journal) -> BatchPlan:
    last = book.last_plan()
    start = book.offsets()
    beginning, end = topic_ends(settings, source.topic)
    for partition, offset in start.items():
        if not beginning.get(partition, 0) <= offset <= end.get(partition, 0):
            raise BrokerError(
                f"Partition {partition} of {source.topic} holds offsets {beginning.get(partition, 0)} to "
                f"{end.get(partition, 0)}, but the log has been read up to {offset}.",
                "The topic was emptied or made anew: restore it, or start with a fresh log.",
            )
    ranges = {part: Range(start.get(part, beginning[part]), end[part]) for part in sorted(end)}
    return BatchPlan(last.batch + 1 if last else 1, ranges)


def topic_ends(settings: Settings, topic: str) -> tuple[dict[int, int], dict[int, int]]:
    """The first offset and the next offset of each partition of a topic.

    Raises:
        BrokerError: the broker does not answer, or has no such topic.
    """
    from kafka import TopicPartition

    with _consumer(settings) as consumer:
        partitions = [TopicPartition(topic, part) for part in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:
            raise BrokerError(f"There is no topic {topic} at {settings.kafka.bootstrap}.", "Create it: coeval up")
        first, last = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    return {key.partition: n for key, n in first.items()}, {key.partition: n for key, n in last.items()}


@contextmanager
def _consumer(settings: Settings) -> Iterator[Any]:
    from kafka import KafkaConsumer

    options = {**client_options(settings.kafka), "bootstrap_timeout_ms": 10_000, "enable_auto_commit": False}
    with answering(settings.kafka), closing(KafkaConsumer(**options)) as consumer:
        yield consumer


def _run_batch(
    spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource, book: Journal, plan: BatchPlan
) -> IngestReport:
    records = _records(spark, settings, source, plan)
    offsets = {partition: item.end for partition, item in plan.ranges.items()}
    with keeping() as keep:
        parsed = keep(records.mapInArrow(validator(source, source.topic, plan.batch), parsed_schema(source)))
        report = _ingest(spark, settings, manifest, source, parsed, plan.batch, offsets, keep)
    book.finish(plan.batch, report)
    return report


def _records(spark: SparkSession, settings: Settings, source: EventSource, plan: BatchPlan) -> DataFrame:
    import json

    ranges = {part: item for part, item in plan.ranges.items() if item.end > item.start}
    reached = {f"kafka.{name}": value for name, value in java_properties(settings.kafka).items()}
    reader = spark.read.format("kafka").options(**reached)
    reader = reader.option("assign", json.dumps({source.topic: sorted(ranges)}))
    reader = reader.option("startingOffsets", json.dumps({source.topic: {p: r.start for p, r in ranges.items()}}))
    reader = reader.option("endingOffsets", json.dumps({source.topic: {p: r.end for p, r in ranges.items()}}))
    reader = reader.option("minPartitions", settings.spark.shuffle_partitions).option("includeHeaders", True)
    # Key and headers are kept of what is rejected, so that it can be replayed as it was.
    return reader.load().selectExpr(
        "value", "UNIX_MICROS(timestamp) AS available_at", "partition", "offset", "key", "headers"
    )


def _ingest(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    parsed: DataFrame,
    batch: int,
    offsets: Mapping[int, int],
    keep: Keep,
) -> IngestReport:
    """Sort a parsed batch, cheap to read again, and append it to its three tables, the log last."""
    earlier: DataFrame | None = None
    removed: DataFrame | None = None
    # Leaving out the batch's own rows makes running it again give the same result.
    if latest_version(table_path(settings, manifest, "log", source.name)) is not None:
        earlier = read_kept_log(spark, settings, manifest, source).where(f"batch <> {batch}")
        if latest_version(table_path(settings, manifest, "dropped", source.name)) is not None:
            # A second delivery of what was dropped is a duplicate, as the stream takes it.
            dropped = read_dropped(spark, settings, manifest, source).where(f"batch <> {batch}")
            earlier = earlier.unionByName(dropped)
    if latest_version(table_path(settings, manifest, "removed", source.name)) is not None:
        removed = read_removed(spark, settings, manifest, source).where(f"batch <> {batch}")
    sorted_out = sort_out(source, parsed, earlier, keep, removed)
    report = count(manifest, source, sorted_out, offsets)
    _append_all(settings, manifest, source, sorted_out, batch, report)
    return report


def _append_all(
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    sorted_out: DataFrame,
    batch: int,
    report: IngestReport,
) -> None:
    log_columns = envelope_and_payload(source)
    parts = (
        (
            "rejects",
            "rejected",
            sum(report.rejected.values()),
            ["__reason AS reason", "__value AS value", *_positions(), "__key AS key", "__headers AS headers"],
        ),
        ("duplicates", "duplicate", report.duplicates, [*log_columns, "__conflict"]),
        ("log", "good", report.good, log_columns),
    )
    for kind, fate, rows, columns in parts:
        if rows:
            frame = sorted_out.where(f"__fate = '{fate}'").selectExpr(*columns)
            append(frame, table_path(settings, manifest, kind, source.name), *_transaction(batch))


def _transaction(batch: int) -> tuple[str, int]:
    return ("coeval-history", 1) if batch == _HISTORY else ("coeval-ingest", batch)


def _positions() -> list[str]:
    return ["available_at", "topic", "`partition`", "`offset`", "batch"]
