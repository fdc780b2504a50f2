"""What a rejected record would be as an event, to a side that had not refused it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from coeval.spec.keys import encode_key
from coeval.spec.model import EventSource, View
from coeval.spec.records import Event, Reason, Record, parse_record
from coeval.spec.types import Physical, parse_literal
from coeval_parity.expected import Events


def refused_events(view: View, source: EventSource, records: Iterable[tuple[Record, Reason]]) -> Events:
    """The rejects of a source that name a key of the view and an instant, by encoded key; what is wrong in them is
    null, a time ahead of the record is that of the record."""
    found: Events = {}
    for record, _ in records:
        event = _as_event(source, record)
        if event is not None and all(event.values[field.name] is not None for field in view.key):
            key = encode_key(view.key, [event.values[field.name] for field in view.key])
            found.setdefault(key, []).append(event)
    return found


def _as_event(source: EventSource, record: Record) -> Event | None:
    parsed = parse_record(source, record)
    if isinstance(parsed, Event):
        return parsed
    try:
        document = json.loads(record.value or b"", parse_int=str, parse_float=str)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    values = {field.name: _lenient(field.type, document.get(field.name)) for field in source.fields}
    declared = values[source.event_ts]
    if not isinstance(declared, int):
        return None
    happened = min(declared, record.available_at)
    name = str(values[source.event_id])
    return Event(name, happened, record.available_at, record.partition, record.offset, values, declared)


def _lenient(kind: Any, raw: object) -> Physical:
    if raw is None:
        return None
    try:
        return parse_literal(kind, {True: "true", False: "false"}[raw] if isinstance(raw, bool) else str(raw))
    except ValueError:
        return None
