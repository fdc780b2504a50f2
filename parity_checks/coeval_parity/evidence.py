"""What an explanation may draw on: the progress of writers, the state of the store, the log. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coeval.aggregations import AGGREGATIONS, partial
from coeval.aggregations.ops import Additive
from coeval.aggregations.partial import Component
from coeval.aggregations.states import Storage
from coeval.aggregations.tiles import Granularity, aggregate_column
from coeval.reference.aggregate import tolerance
from coeval.reference.oracle import is_erased, visible_events
from coeval.spec.erasure import Erasure
from coeval.spec.model import Aggregate, BatchSource, EventSource, View
from coeval.spec.records import Event
from coeval.spec.types import FLOAT64, Physical

Order = tuple[int, int, int, int]
"""(event_ts, available_at, partition, offset): the total order."""


class Owner(StrEnum):
    """Who delivers a tile to the store."""

    STREAM = "stream"
    BATCH = "batch"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the writers of a view had got, read before the values were: the store holds at least this.

    `since`: the stream owns tiles that start at or after it. `load_cut`: the last finished batch load covers what was
    final then, and the rows that were visible at `rows_at`. `certified`: by source partition, the next offset that is
    not certified to be covered; None: no certificate. `freshness` is what the view promises. Instants are microseconds
    UTC.
    """

    since: int | None
    load_cut: int | None
    rows_at: int | None
    certified: Mapping[int, int] | None
    freshness: int
    load_run: int = 0
    """The number of the last finished batch load."""

    def owner(self, granularity: Granularity, tile: int, lateness: int) -> Owner:
        """Who has to have delivered a tile by now."""
        if self.load_cut is not None and tile < granularity.final_before(self.load_cut, lateness):
            return Owner.BATCH
        if self.since is not None and tile >= granularity.first_owned(self.since):
            return Owner.STREAM
        return Owner.NOBODY

    def in_flight(self, event: Event) -> bool:
        """Whether an event of the topic lies above what the store is certified to cover. History never does."""
        if self.certified is None or event.partition < 0:
            return False
        return event.offset >= self.certified.get(event.partition, 0)

    def after_cut(self, event: Event) -> bool:
        """Whether an event became available only after the cut of the last load: its tiles do not hold it."""
        return self.load_cut is not None and event.available_at >= self.load_cut

    def after_load(self, event: Event) -> bool:
        """Whether a row was not visible yet to the last load, whose rows cannot hold it."""
        return self.rows_at is not None and max(event.event_ts, event.available_at) > self.rows_at


@dataclass(frozen=True, slots=True)
class Slot:
    """A stored tile: its index, the epoch of its writer (0: the stream), events counted, components by name."""

    tile: int
    epoch: int
    events: int
    states: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store held for one key: tiles by hop and index, or the order of the stored row (None: nothing)."""

    tiles: Mapping[int, Mapping[int, Slot]]
    row: Order | None = None


@dataclass(frozen=True, slots=True)
class Floor:
    """Of a key whose subject was erased: what is of the time up to `at`, and loads up to `epoch` wrote, is gone."""

    at: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Case:
    """One difference to explain: physical values, at one instant q (microseconds UTC).

    `events` are the key's good events in the log, those that become available at or after q included. `duplicates` are
    its discarded deliveries, `definitions` other versions of the view that were ever deployed.
    """

    view: View
    source: EventSource | BatchSource
    feature: str
    key: tuple[Physical, ...]
    q: int
    served: Physical
    expected: Physical
    stored: Stored
    events: Sequence[Event]
    duplicates: Sequence[Event] = ()
    definitions: Sequence[View] = ()
    floors: Sequence[Floor] = ()
    erased: Sequence[Event] = ()
    """The key's events whose subject was erased, in a view that is not keyed by it."""
    erasures: Sequence[Erasure] = ()
    """What was erased: loads up to the epoch of its erasure may have written an erased event."""
    every: Sequence[Event] = ()
    """The key's events before the view selects any, for other definitions of it."""
    known: Sequence[Event] | None = None
    """The events that are visible at q, in the total order, where that was worked out for all features of a key."""
    rejected: Sequence[Event] = ()
    """What records of the key that the log refused would be as events."""
    others: Sequence[tuple[str, Sequence[Event]]] = ()
    """The events of other keys that this one may be mistaken for, by how a person would name those."""


def visible_of(case: Case) -> Sequence[Event]:
    """The events that a value at q may be made of, in the total order."""
    return visible_events(case.view, case.events, case.key, case.q) if case.known is None else case.known


def erased_epoch(event: Event, erasures: Iterable[Erasure]) -> int:
    """The last load that may have written an erased event.

    Of one that was removed from the log the subject is not known any more: it may be any that is null in it.
    """
    reached = [item for item in erasures if item.at >= event.available_at]
    known = [item for item in reached if is_erased(event, [item])]
    maybe = [item for item in reached if event.values.get(item.column) is None]
    return max((item.epoch for item in known or maybe), default=0)


def components_of(aggregate: Aggregate, source: EventSource) -> tuple[Component, ...]:
    """The components that a feature needs of a tile."""
    return AGGREGATIONS[aggregate.function].components(aggregate_column(aggregate, source))


def fold(components: Iterable[Component], events: Iterable[Event]) -> dict[str, int | float]:
    """The components of a tile, computed from its events one by one."""
    kept = list(events)
    return {component.name: partial.fold(component, _values(component, kept)) for component in components}


def _values(component: Component, events: Iterable[Event]) -> list[tuple[Order, Physical]]:
    values = ((event.order, event.values[component.column]) for event in events)
    return [(order, value) for order, value in values if value is not None]


def holds(slot: Slot | None, components: Sequence[Component], events: Sequence[Event]) -> bool:
    """Whether a stored tile is made of exactly these events, as far as these components tell; no slot holds none."""
    if slot is None:
        return not events
    if slot.events != len(events):
        return False
    folded = fold(components, events)
    return all(_agrees(item, slot.states[item.name], folded[item.name], events) for item in components)


def _agrees(component: Component, stored: float, folded: float, events: Sequence[Event]) -> bool:
    """Exact, but for sums of doubles, which depend on the order: within the tolerance of their magnitudes."""
    if not isinstance(component.op, Additive) or component.storage is not Storage.FLOAT:
        return stored == folded
    lifted = [component.op.lift(value) for _, value in _values(component, events)]
    return abs(stored - folded) <= tolerance("sum", lifted, FLOAT64)
