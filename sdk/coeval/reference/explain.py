"""Which events make a feature value at an instant, and why the others do not. Pure; it decides as the oracle does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coeval.reference.oracle import Value, is_erased, is_late, is_visible, key_of, seen_by, value_at
from coeval.spec.erasure import Erasure
from coeval.spec.model import Aggregate, BatchSource, EventSource, RowView, View
from coeval.spec.records import Event
from coeval.spec.time import floor_to, tile_index


class Part(StrEnum):
    """What an event has to do with a value."""

    COUNTED = "counted"
    NULL = "counted, without a value of the column"
    ERASED = "erased"
    NOT_SELECTED = "not selected by the view"
    NOT_AVAILABLE = "not available yet"
    BEFORE_WINDOW = "before the window"
    SUPERSEDED = "a later row replaces it"
    EXPIRED = "older than the ttl"


@dataclass(frozen=True, slots=True)
class Contribution:
    """One event of the key: its part in the value, and for a window the tile that it falls in.

    `late`: it came after its tile was final, so that the stream leaves it to the next batch run.
    """

    event: Event
    part: Part
    tile: int | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """A feature value at q (microseconds UTC) and every event of its key, in the total order.

    `start` is where the window begins; None for a row.
    """

    feature: str
    q: int
    value: Value
    start: int | None
    contributions: tuple[Contribution, ...]

    @property
    def made_of(self) -> tuple[Event, ...]:
        """The events that the value is made of."""
        return tuple(item.event for item in self.contributions if item.part in (Part.COUNTED, Part.NULL))


def explain(
    view: View,
    source: EventSource | BatchSource,
    events: Iterable[Event],
    key: tuple[object, ...],
    q: int,
    feature: str,
    erasures: Sequence[Erasure] = (),
) -> Explanation:
    """Why a feature of a key has its value at q.

    Raises:
        KeyError: the view has no such feature.
    """
    every = sorted((event for event in events if key_of(view, event) == key), key=lambda event: event.order)
    gone = {event.order for event in every if is_erased(event, erasures)}
    mine = seen_by(view, [event for event in every if event.order not in gone])
    value = value_at(view, source, mine, key, q)[feature]  # type: ignore[arg-type]
    if isinstance(view, RowView):
        return Explanation(feature, q, value, None, _among(every, gone, _row_parts(view, mine, q)))
    assert isinstance(source, EventSource)
    aggregate = next(item for item in view.aggregates if item.feature == feature)
    start = floor_to(q - aggregate.window, aggregate.hop)
    parts = [_window_part(view, source, aggregate, event, q, start) for event in mine]
    return Explanation(feature, q, value, start, _among(every, gone, parts))


def _among(
    events: list[Event], gone: set[tuple[int, int, int, int]], parts: list[Contribution]
) -> tuple[Contribution, ...]:
    """The parts of the events that the view selects, and the others between them."""
    known = {part.event.order: part for part in parts}
    known |= {event.order: Contribution(event, Part.ERASED) for event in events if event.order in gone}
    return tuple(known.get(event.order, Contribution(event, Part.NOT_SELECTED)) for event in events)


def _row_parts(view: RowView, mine: list[Event], q: int) -> list[Contribution]:
    visible = [event for event in mine if is_visible(view, event, q)]
    parts: list[Contribution] = []
    for event in mine:
        if event not in visible:
            part = Part.NOT_AVAILABLE
        elif event is not visible[-1]:
            part = Part.SUPERSEDED
        else:
            part = Part.EXPIRED if view.ttl and event.event_ts < q - view.ttl else Part.COUNTED
        parts.append(Contribution(event, part))
    return parts


def _window_part(
    view: View, source: EventSource, aggregate: Aggregate, event: Event, q: int, start: int
) -> Contribution:
    tile = tile_index(event.event_ts, aggregate.hop)
    late = is_late(event, aggregate.hop, source.allowed_lateness)
    if not is_visible(view, event, q):
        return Contribution(event, Part.NOT_AVAILABLE, tile, late)
    if event.event_ts < start:
        return Contribution(event, Part.BEFORE_WINDOW, tile, late)
    empty = bool(aggregate.column) and event.values[aggregate.column] is None
    return Contribution(event, Part.NULL if empty else Part.COUNTED, tile, late)
