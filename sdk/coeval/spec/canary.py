"""Canaries: the synthetic event that a source declares, written as its producers would write it. Pure.

A canary is a real event of the log, under the key that the source names for it. What else is required of an event gets
a neutral literal of its type; what is not required is left out.
"""

from __future__ import annotations

import json

from coeval.spec.model import HEADER, KEY, EventSource, Field
from coeval.spec.records import Record
from coeval.spec.types import Kind, instant

_NEUTRAL = {
    Kind.INT64: "0",
    Kind.FLOAT64: "0",
    Kind.DECIMAL: "0",
    Kind.STRING: "canary",
    Kind.BOOL: "false",
}


def canary_record(source: EventSource, at: int) -> Record:
    """The canary of an instant (microseconds UTC), which is its identity too; position (0, 0) until it is sent."""
    literals = {field: text for field in source.fields if (text := _literal(source, field, at)) is not None}
    document = {field.name: text for field, text in literals.items() if not field.origin}
    key = next((text.encode() for field, text in literals.items() if field.origin == KEY), None)
    headers = [
        (field.origin.removeprefix(HEADER), text.encode())
        for field, text in literals.items()
        if field.origin.startswith(HEADER)
    ]
    return Record(json.dumps(document).encode(), at, 0, 0, key, headers)


def _literal(source: EventSource, field: Field, at: int) -> str | None:
    stated = {item.column: item.literal for item in source.canary}
    time = instant(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if field.name == source.event_ts:
        return time
    if field.name == source.event_id:
        return f"canary-{at}" if field.type.kind is Kind.STRING else str(at)
    if field.name in stated:
        return stated[field.name]
    if field.nullable:
        return None
    return _NEUTRAL.get(field.type.kind) or (time if field.type.kind is Kind.TIMESTAMP else time[:10])
