"""The dead letters: rejected records of the log, counted and read. It knows Spark.

What names an erased subject is told as such, and its bytes stay in the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.records import Reason, Record
from coeval_pipelines.control.deadletters import Place
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.event_log import read_rejects
from coeval_pipelines.offline.rejected_subjects import is_erased
from coeval_pipelines.offline.tables import FILE_PARTITION, latest_version, table_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Position = tuple[int, int]
"""Partition and offset in the source's topic; partition -1 for a row of a history file."""
HISTORY = "h"
"""How the partition of a row of a history file is written: a minus sign would begin an option."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The rejects of one source and reason. Instants are microseconds UTC, None where no record has one; `example` is
    the position of the newest."""

    source: str
    reason: str
    count: int
    first: int | None
    last: int | None
    example: Position


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected record, as it was received; without bytes where it names a subject that was erased."""

    source: str
    reason: str
    record: Record
    topic: str = ""
    """Where it came in; empty for a history file."""
    log: str = ""
    """The identity of the log's table of rejects: another log has other positions."""
    erased: bool = False

    @property
    def place(self) -> Place:
        """Where it stands in its log."""
        return Place(self.log, self.topic, self.record.partition, self.record.offset)


def summaries(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    sources: Sequence[EventSource],
    reason: str = "",
    since: int | None = None,
) -> list[Summary]:
    """What was rejected, by source and reason, of what became available at or after `since`.

    Erased ones count: they were read and rejected.
    """
    found: list[Summary] = []
    for source in sources:
        frame = _chosen(read_rejects(spark, settings, manifest, source), reason, since)
        newest = "MAX(STRUCT(available_at, `partition`, `offset`))"
        rows = frame.groupBy("reason").agg(
            *_expressions("COUNT(*) n", "MIN(available_at) first", "MAX(available_at) last", f"{newest} newest")
        )
        for row in rows.orderBy("reason").collect():
            example = (row["newest"]["partition"], row["newest"]["offset"])
            found.append(Summary(source.name, row["reason"], row["n"], row["first"], row["last"], example))
    return found


def rejects(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    reason: str = "",
    positions: Collection[Position] = (),
    limit: int | None = None,
    without: Collection[str] = (),
) -> Iterator[Reject]:
    """Rejected records of a source in the order of the log, as they are read: of a reason, at some positions, or all
    but those of the reasons `without`."""
    frame = _chosen(read_rejects(spark, settings, manifest, source), reason, None)
    if positions:
        pairs = ", ".join(f"({partition}, {offset}L)" for partition, offset in positions)
        frame = frame.where(f"(`partition`, `offset`) IN ({pairs})")
    for name in without:
        frame = frame.where(frame["reason"] != name)
    frame = frame.orderBy("available_at", "topic", "partition", "offset")
    erasures, log = ErasureTable(settings, manifest.tenant).erasures(), _log(spark, settings, manifest, source)
    for row in (frame if limit is None else frame.limit(limit)).toLocalIterator():
        yield reject_of(source, row.asDict(recursive=True), log, erasures)


def _log(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> str:
    path = table_path(settings, manifest, "rejects", source.name)
    if latest_version(path) is None:
        return ""
    return str(spark.sql(f"DESCRIBE DETAIL delta.`{path}`").collect()[0]["id"])


def reject_of(source: EventSource, row: Mapping[str, Any], log: str, erasures: Iterable[Erasure]) -> Reject:
    """A row of the log's rejects as a value. Pure."""
    record = _record(row)
    erased = is_erased(source, record, erasures, row["available_at"])
    if erased:
        record = Record(None, record.available_at, record.partition, record.offset)
    return Reject(source.name, row["reason"], record, row["topic"], log, erased)


def _expressions(*texts: str) -> list[Any]:
    from pyspark.sql import functions as F

    return [F.expr(text.rpartition(" ")[0]).alias(text.rpartition(" ")[2]) for text in texts]


def _chosen(frame: DataFrame, reason: str, since: int | None) -> DataFrame:
    from pyspark.sql import functions as F

    if reason:
        frame = frame.where(F.col("reason") == reason)
    return frame if since is None else frame.where(F.col("available_at") >= since)


def _record(row: Mapping[str, Any]) -> Record:
    headers = tuple((item["key"], _bytes(item["value"])) for item in row["headers"] or ())
    available_at = row["available_at"] or 0  # a row of a history file whose time is missing
    return Record(_bytes(row["value"]), available_at, row["partition"], row["offset"], _bytes(row["key"]), headers)


def _bytes(value: bytes | bytearray | None) -> bytes | None:
    return None if value is None else bytes(value)


def parse_position(text: str) -> Position:
    """A position as `show` and `replay` take it: PARTITION:OFFSET, or h:NUMBER for a row of a history file.

    Raises:
        UsageError: it is none.
    """
    partition, _, offset = text.partition(":")
    try:
        return FILE_PARTITION if partition == HISTORY else int(partition), int(offset)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no position.", "Write PARTITION:OFFSET, e.g. 0:1234; h:5 for a row of a history file."
        ) from error


def position_text(position: Position) -> str:
    """A position as `parse_position` takes it."""
    partition, offset = position
    return f"{HISTORY if partition == FILE_PARTITION else partition}:{offset}"


def known_reason(text: str) -> str:
    """A reason, or nothing.

    Raises:
        UsageError: there is no such reason.
    """
    if text and text not in {reason.value for reason in Reason}:
        raise UsageError(f"There is no reason {text!r}.", f"Known: {', '.join(Reason)}.")
    return text


def not_in_bulk(reason: str, positions: Collection[Position]) -> tuple[str, ...]:
    """The reasons whose rejects are only replayed where they are named, by reason or position.

    A record that claimed a time to come is valid as soon as that has passed: nobody has said that the claim was true.
    """
    return () if reason or positions else (Reason.FUTURE_DATED.value,)


def escaped(value: bytes | None) -> str:
    """Raw bytes as one line of ASCII that says all of them."""
    return "(no value)" if value is None else repr(value)[2:-1]
