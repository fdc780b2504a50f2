"""From a raw record of the log to an event, or to the reason why not. Pure: the one written form of the validity rules.

The Delta ingest runs this code; the stream runs a Java function of the same rules; a test over many thousand records,
broken in every way, holds them together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coeval.spec.model import HEADER, KEY, EventSource, Field
from coeval.spec.types import Physical, parse_literal

MAX_NESTING = 100
"""Objects and arrays within one another, at most: the same in every engine, and whatever the stack of the caller."""
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)


class Reason(StrEnum):
    """Why a record was rejected."""

    UNPARSEABLE = "unparseable"
    """Not one JSON object in UTF-8, or one nested more than `MAX_NESTING` deep."""
    DUPLICATE_FIELD = "duplicate_field"
    """A JSON key stands twice."""
    NULL_REQUIRED = "null_required"
    """A key, the event id, the event time or another required field is null or missing."""
    BAD_LITERAL = "bad_literal"
    """A value is not a literal of its declared type."""
    FUTURE_DATED = "future_dated"
    """It claims to have happened later than it was available, by more than the allowed skew."""


@dataclass(frozen=True, slots=True)
class Event:
    """A valid event. Times are microseconds since the epoch, UTC; `values` are physical; batch rows have partition -1.

    `event_ts` is the effective time (never after `available_at`), `declared_ts` the one that the producer wrote: it is
    part of the event's identity.
    """

    event_id: str
    event_ts: int
    available_at: int
    partition: int
    offset: int
    values: Mapping[str, Physical]
    declared_ts: int = 0

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The total order: ties, latest rows and winners are decided by it."""
        return self.event_ts, self.available_at, self.partition, self.offset

    @property
    def identity(self) -> tuple[str, int]:
        """Two events of one source with the same identity are one event, delivered twice."""
        return self.event_id, self.declared_ts


@dataclass(frozen=True, slots=True)
class Record:
    """A raw record: its bytes, its Kafka timestamp in microseconds, its position; key and headers in their order."""

    value: bytes | None
    available_at: int
    partition: int
    offset: int
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


class _DuplicateKeyError(ValueError):
    pass


def parse_record(source: EventSource, record: Record) -> Event | Reason:
    """Apply the validity rules to one record."""
    try:
        document = _parse_object(record.value)
    except _DuplicateKeyError:
        return Reason.DUPLICATE_FIELD
    except ValueError:
        return Reason.UNPARSEABLE
    values: dict[str, Physical] = {}
    for field in source.fields:
        outcome = _field_value(field, _raw(field, record) if field.origin else document.get(field.name))
        if isinstance(outcome, Reason):
            return outcome
        values[field.name] = outcome
    return _event(source, record, values)


def faults(source: EventSource, record: Record) -> list[tuple[str, Reason, str]]:
    """Everything that is wrong with a record: the field (empty: the whole), the reason, what it says instead."""
    try:
        document = _parse_object(record.value)
    except _DuplicateKeyError:
        return [("", Reason.DUPLICATE_FIELD, "a key stands twice")]
    except (ValueError, RecursionError) as error:
        return [("", Reason.UNPARSEABLE, str(error))]
    raws = [(field, _raw(field, record) if field.origin else document.get(field.name)) for field in source.fields]
    found = [(field, raw, _field_value(field, raw)) for field, raw in raws]
    wrong = [
        (field.name, reason, f"{raw!r} is no {field.type}" if raw is not None else f"no {field.type}")
        for field, raw, reason in found
        if isinstance(reason, Reason)
    ]
    outcome = None if wrong else parse_record(source, record)
    return [(source.event_ts, outcome, "ahead of its record")] if isinstance(outcome, Reason) else wrong


def _event(source: EventSource, record: Record, values: dict[str, Physical]) -> Event | Reason:
    declared = values[source.event_ts]
    assert isinstance(declared, int)
    if declared > record.available_at + source.max_future_skew:
        return Reason.FUTURE_DATED
    return Event(
        event_id=str(values[source.event_id]),
        event_ts=min(declared, record.available_at),
        available_at=record.available_at,
        partition=record.partition,
        offset=record.offset,
        values=values,
        declared_ts=declared,
    )


def _raw(field: Field, record: Record) -> object:
    """What key or header say of a column: text, None, or the bytes that are no UTF-8."""
    found = record.key if field.origin == KEY else _header(record, field.origin.removeprefix(HEADER))
    try:
        return None if found is None else found.decode()
    except UnicodeDecodeError:
        return found


def _header(record: Record, name: str) -> bytes | None:
    return next((value for key, value in reversed(record.headers) if key == name), None)


def _field_value(field: Field, raw: object) -> Physical | Reason:
    if raw is None:
        return None if field.nullable else Reason.NULL_REQUIRED
    text = {True: "true", False: "false"}[raw] if isinstance(raw, bool) else raw
    if not isinstance(text, str):
        return Reason.BAD_LITERAL
    try:
        return parse_literal(field.type, text)
    except ValueError:
        return Reason.BAD_LITERAL


def _parse_object(value: bytes | None) -> dict[str, object]:
    if value is None:
        raise ValueError("a tombstone is no event")
    document = json.loads(
        _up_to_nesting(value.decode("utf-8")),
        parse_int=str,
        parse_float=str,
        parse_constant=_refuse,
        object_pairs_hook=_unique,
    )
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _up_to_nesting(text: str) -> str:
    """The text, cut off where it is nested too deep: what is read from left to right then ends without its end."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return text
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += (found[0] in "[{") - (found[0] in "]}")
        if depth > MAX_NESTING:
            return text[: found.start()]
    return text


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise _DuplicateKeyError
    return document


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the records read: read = good + rejected + duplicates, exactly."""

    good: tuple[Event, ...]
    rejected: tuple[tuple[Record, Reason], ...]
    duplicates: tuple[Event, ...]
    conflicts: int
    """Duplicates that say something else than their original, or came through another partition."""


def ingest(source: EventSource, records: Iterable[Record]) -> Ingested:
    """Sort records into good events, rejects and duplicates; of one identity the first available counts."""
    rejected: list[tuple[Record, Reason]] = []
    valid: list[Event] = []
    for record in records:
        outcome = parse_record(source, record)
        if isinstance(outcome, Reason):
            rejected.append((record, outcome))
        else:
            valid.append(outcome)
    valid.sort(key=lambda event: (event.available_at, event.partition, event.offset))
    first: dict[tuple[str, int], Event] = {}
    duplicates: list[Event] = []
    conflicts = 0
    for event in valid:
        original = first.setdefault(event.identity, event)
        if original is not event:
            duplicates.append(event)
            conflicts += original.values != event.values or original.partition != event.partition
    return Ingested(tuple(first.values()), tuple(rejected), tuple(duplicates), conflicts)
