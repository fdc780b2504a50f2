"""What a feature value is, written so that it can be read and believed. No numpy, no tiles, no cleverness.

Events come in any order, valid and without duplicates (see `coeval.spec.records.ingest`). Instants are microseconds
since the epoch, UTC. Values are physical (decimals unscaled) and exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from coeval.aggregations.tiles import aggregate_column
from coeval.reference.aggregate import BeyondTypeError
from coeval.reference.aggregate import aggregate as compute
from coeval.reference.evaluate import evaluate
from coeval.spec.erasure import Erasure
from coeval.spec.expressions import Expression
from coeval.spec.manifest import Manifest
from coeval.spec.model import Aggregate, BatchSource, EventSource, Field, RowView, View
from coeval.spec.records import Event
from coeval.spec.time import floor_to, tile_index
from coeval.spec.types import Physical


@dataclass(frozen=True, slots=True)
class Value:
    """A feature value and its status: PRESENT, NULL, EXPIRED, OVERFLOW or NOT_FOUND."""

    value: Physical
    status: str


def key_of(view: View, event: Event) -> tuple[Physical, ...]:
    """The entity key of an event in a view."""
    return tuple(event.values[field.name] for field in view.key)


def seen_by(view: View, events: Iterable[Event]) -> list[Event]:
    """The events that a view selects, with the columns that it computes among their values."""
    return [_with_computed(view, event) for event in events if view.where is None or _holds(view.where, event)]


def _holds(condition: Expression, event: Event) -> bool:
    return evaluate(condition, event.values) == 1  # neither false nor null


def _with_computed(view: View, event: Event) -> Event:
    computed = {item.field.name: evaluate(item.expression, event.values) for item in view.columns}
    return replace(event, values={**event.values, **computed}) if computed else event


def is_visible(view: View, event: Event, q: int, knowledge: str = "available") -> bool:
    """Whether a reader at q may know of the event. Strict for streams, inclusive for batch views."""
    strict = not (isinstance(view, RowView) and not view.stream)
    known_by = event.available_at if knowledge == "available" else event.event_ts
    latest = max(known_by, event.event_ts)
    return latest < q if strict else latest <= q


def is_erased(event: Event, erasures: Iterable[Erasure]) -> bool:
    """Whether an event does not exist any more: it holds a subject, and was available when its erasure took effect."""
    return any(
        item.column in event.values and event.values[item.column] == item.value and event.available_at <= item.at
        for item in erasures
    )


def visible_events(
    view: View, events: Iterable[Event], key: tuple[Physical, ...], q: int, erasures: Sequence[Erasure] = ()
) -> list[Event]:
    """The events of a key that a view selects and a reader at q may know of, in the total order."""
    left = [event for event in events if not is_erased(event, erasures)]
    mine = [event for event in seen_by(view, left) if key_of(view, event) == key and is_visible(view, event, q)]
    return sorted(mine, key=lambda event: event.order)


def value_at(
    view: View,
    source: EventSource | BatchSource,
    events: Iterable[Event],
    key: tuple[Physical, ...],
    q: int,
    erasures: Sequence[Erasure] = (),
) -> dict[str, Value]:
    """Every feature of a view, of one key, at q."""
    return value_of(view, source, visible_events(view, events, key, q, erasures), q)


def value_of(view: View, source: EventSource | BatchSource, visible: Sequence[Event], q: int) -> dict[str, Value]:
    """Every feature of a view at q, of what `visible_events` gives of one key."""
    if isinstance(view, RowView):
        return _row(view, visible, q)
    assert isinstance(source, EventSource)
    return {
        aggregate.feature: _window(aggregate, feature, source, visible, q)
        for aggregate, feature in zip(view.aggregates, view.features, strict=True)
    }


def _row(view: RowView, visible: Sequence[Event], q: int) -> dict[str, Value]:
    if not visible:
        return {field.name: Value(None, "NOT_FOUND") for field in view.features}
    latest = visible[-1]
    if view.ttl and latest.event_ts < q - view.ttl:
        return {field.name: Value(None, "EXPIRED") for field in view.features}
    return {field.name: _present(latest.values[field.name]) for field in view.features}


def _window(aggregate: Aggregate, feature: Field, source: EventSource, visible: Sequence[Event], q: int) -> Value:
    column = aggregate_column(aggregate, source)
    inside = in_window(aggregate, visible, q)
    values = values_of(aggregate, inside)
    try:
        result = compute(aggregate.function, values, len(inside), column.type if column else None, feature.type)
    except BeyondTypeError:
        return Value(None, "OVERFLOW")
    return _present(result) if visible else Value(result, "NOT_FOUND")


def in_window(aggregate: Aggregate, visible: Iterable[Event], q: int) -> list[Event]:
    """The visible events that a window at q covers."""
    start = floor_to(q - aggregate.window, aggregate.hop)
    return [event for event in visible if event.event_ts >= start]


def values_of(aggregate: Aggregate, events: Iterable[Event]) -> list[int | float]:
    """The non-null values of an aggregate's column, in the order of the events; nothing for a count of events."""
    found = [event.values[aggregate.column] for event in events] if aggregate.column else []
    # Only a count takes text, and it does not look at it.
    return [0 if isinstance(value, str) else value for value in found if value is not None]


def _present(value: Physical) -> Value:
    return Value(value, "NULL" if value is None else "PRESENT")


def is_late(event: Event, hop: int, allowed_lateness: int) -> bool:
    """Whether the event came after its tile of that hop was final, so that the stream leaves it to the next batch."""
    tile_end = (tile_index(event.event_ts, hop) + 1) * hop
    return event.available_at >= tile_end + allowed_lateness


@dataclass(frozen=True, slots=True)
class SpineRow:
    """One row of a spine: the entity columns (physical values) and the instant to know nothing after."""

    entities: Mapping[str, Physical]
    event_timestamp: int


def training_set(
    manifest: Manifest,
    service: str,
    events: Mapping[str, Sequence[Event]],
    spine: Sequence[SpineRow],
    erasures: Sequence[Erasure] = (),
) -> list[dict[str, Physical]]:
    """One dict of `view__feature` values per spine row, in the spine's order; `events` are by source name."""
    chosen = next(item for item in manifest.services if item.name == service)
    rows: list[dict[str, Physical]] = []
    for row in spine:
        values: dict[str, Physical] = {}
        for used in chosen.views:
            view = manifest.views[used.view]
            key = tuple(row.entities[field.name] for field in view.key)
            source, known = manifest.source_of(view), events[view.source]
            found = value_at(view, source, known, key, row.event_timestamp, erasures)
            values |= {f"{view.name}__{name}": found[name].value for name in used.features}
        rows.append(values)
    return rows
