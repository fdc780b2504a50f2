"""The dead letters: rejected records of the log, counted, shown and repaired. It knows Spark; repairs are pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.records import Event, Reason, Record, faults, parse_record
from coeval_pipelines.offline.event_log import read_rejects

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Position = tuple[int, int]
"""Partition and offset in the source's topic; partition -1 for a row of a history file."""
Repair: TypeAlias = Callable[[bytes], bytes | None]
"""From the bytes of a rejected record to those to send instead; None: not this one."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The rejects of one source and reason. Instants are microseconds UTC; `example` is the position of the newest."""

    source: str
    reason: str
    count: int
    first: int
    last: int
    example: Position


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected record, as it was received."""

    source: str
    reason: str
    record: Record

    @property
    def position(self) -> Position:
        """Where it stands in its topic."""
        return self.record.partition, self.record.offset


@dataclass(frozen=True, slots=True)
class Repaired:
    """A reject and what would be sent instead; `problems` say why it cannot be."""

    reject: Reject
    value: bytes | None
    problems: tuple[str, ...] = ()


def summaries(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    sources: Sequence[EventSource],
    reason: str = "",
    since: int | None = None,
) -> list[Summary]:
    """What was rejected, by source and reason, of what became available at or after `since`."""
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
) -> list[Reject]:
    """Rejected records of a source in the order of the log: of a reason, at some positions, or all of them."""
    frame = _chosen(read_rejects(spark, settings, manifest, source), reason, None)
    if positions:
        pairs = ", ".join(f"({partition}, {offset}L)" for partition, offset in positions)
        frame = frame.where(f"(`partition`, `offset`) IN ({pairs})")
    frame = frame.orderBy("available_at", "partition", "offset")
    rows = (frame if limit is None else frame.limit(limit)).toArrow().to_pylist()
    return [Reject(source.name, row["reason"], _record(row)) for row in rows]


def _expressions(*texts: str) -> list[Any]:
    from pyspark.sql import functions as F

    return [F.expr(text.rpartition(" ")[0]).alias(text.rpartition(" ")[2]) for text in texts]


def _chosen(frame: DataFrame, reason: str, since: int | None) -> DataFrame:
    from pyspark.sql import functions as F

    if reason:
        frame = frame.where(F.col("reason") == reason)
    return frame if since is None else frame.where(F.col("available_at") >= since)


def _record(row: Mapping[str, Any]) -> Record:
    headers = tuple((item["key"], item["value"]) for item in row["headers"] or ())
    return Record(row["value"], row["available_at"], row["partition"], row["offset"], row["key"], headers)


def why(source: EventSource, reject: Reject) -> list[str]:
    """What is wrong with a reject by the source as it is defined now, in words; nothing where it is valid now."""
    found = faults(source, reject.record)
    return [f"{field}: {says} ({reason})" if field else f"{says} ({reason})" for field, reason, says in found]


def repair(source: EventSource, reject: Reject, change: Repair | None, now: int) -> Repaired:
    """What would be sent instead of a reject at `now` (microseconds UTC), judged as if it were received then."""
    raw = reject.record.value
    if raw is None:
        return Repaired(reject, None, ("a tombstone holds nothing to repair",))
    try:
        value = change(raw) if change else raw
    except (ValueError, KeyError, TypeError) as error:
        return Repaired(reject, None, (f"the repair failed: {error}",))
    if value is None:
        return Repaired(reject, None, ("the repair left it out",))
    sent = replace(reject, record=replace(reject.record, value=value, available_at=now))
    if isinstance(parse_record(source, sent.record), Event):
        return Repaired(reject, value)
    return Repaired(reject, value, tuple(why(source, sent)))


def setting(source: EventSource, assignments: Sequence[str]) -> Repair:
    """The repair that sets fields of a JSON document: `amount=12.50`, `note=null`.

    Raises:
        UsageError: an assignment names no field of the source, or one that does not stand in the document.
    """
    values: dict[str, str | None] = {}
    fields = {field.name: field for field in source.fields if not field.origin}
    for assignment in assignments:
        name, equals, literal = assignment.partition("=")
        if not equals or name not in fields:
            raise UsageError(f"{assignment!r} sets no field.", f"Write FIELD=VALUE with one of: {', '.join(fields)}.")
        values[name] = None if literal == "null" else literal

    def change(raw: bytes) -> bytes:
        document = json.loads(raw.decode(), parse_int=str, parse_float=str, object_pairs_hook=unique)
        if not isinstance(document, dict):
            raise ValueError("not one JSON object")
        return json.dumps({**document, **values}, ensure_ascii=False).encode()

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1} - values.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice: set it")
        return dict(pairs)

    return change


def imported(path: str) -> Repair:
    """The repair that `module:function` names.

    Raises:
        UsageError: there is no such function.
    """
    from importlib import import_module

    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{path!r} names no function: {error}.", "Write module:function.") from error
    if not callable(found):
        raise UsageError(f"{path!r} is no function.", "Write module:function.")
    return found  # type: ignore[no-any-return]


def parse_position(text: str) -> Position:
    """A position as `show` and `replay` take it: PARTITION:OFFSET.

    Raises:
        UsageError: it is none.
    """
    partition, _, offset = text.partition(":")
    try:
        return int(partition), int(offset)
    except ValueError as error:
        raise UsageError(f"{text!r} is no position.", "Write PARTITION:OFFSET, e.g. 0:1234.") from error


def known_reason(text: str) -> str:
    """A reason, or nothing.

    Raises:
        UsageError: there is no such reason.
    """
    if text and text not in {reason.value for reason in Reason}:
        raise UsageError(f"There is no reason {text!r}.", f"Known: {', '.join(Reason)}.")
    return text


def escaped(value: bytes | None) -> str:
    """Raw bytes as one line of ASCII that says all of them."""
    return "(no value)" if value is None else repr(value)[2:-1]
