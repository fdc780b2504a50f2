"""What an explanation may draw on: the progress of writers, the state of the store, the log. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from coeval.aggregations import AGGREGATIONS, partial
from coeval.aggregations.ops import Additive
from coeval.aggregations.partial import Component
from coeval.aggregations.states import Storage
from coeval.aggregations.tiles import Granularity, aggregate_column
from coeval.reference.aggregate import tolerance
from coeval.reference.oracle import is_erased, visible_events
from coeval.spec.erasure import Erasure
from coeval.spec.model import Aggregate, BatchSource, EventSource, Field, View
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
    return _components(aggregate.function, aggregate_column(aggregate, source))


@cache
def _components(function: str, column: Field | None) -> tuple[Component, ...]:
    return AGGREGATIONS[function].components(column)


@cache
def grid_of(hop: int) -> Granularity:
    """Tiles of one length, whatever they hold."""
    return Granularity(hop, 0, ())


def fold(components: Iterable[Component], events: Iterable[Event]) -> dict[str, int | float]:
    """The components of a tile, computed from its events one by one."""
    held = Held([*events])
    return {component.name: held.folded(component) for component in components}


class Held:
    """Events that a tile may be made of; what was folded of them is kept."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._folded: dict[str, int | float] = {}

    def folded(self, component: Component) -> int | float:
        """A component of the tile that holds exactly these events."""
        name = component.name
        if name not in self._folded:
            column = component.column
            pairs = ((event.order, event.values[column]) for event in self._events)
            self._folded[name] = partial.fold(component, [pair for pair in pairs if pair[1] is not None])
        return self._folded[name]

    def is_in(self, slot: Slot | None, components: Iterable[Component]) -> bool:
        """Whether a stored tile is made of exactly these, as far as some components tell; no slot holds none."""
        if slot is None:
            return not self._events
        return slot.events == len(self._events) and all(
            self._agrees(item, slot.states[item.name]) for item in components
        )

    def _agrees(self, component: Component, stored: float) -> bool:
        """Exact, but for sums of doubles, which depend on the order: within the tolerance of their magnitudes."""
        folded = self.folded(component)
        if stored == folded or not isinstance(component.op, Additive) or component.storage is not Storage.FLOAT:
            return stored == folded
        values = [event.values[component.column] for event in self._events]
        lifted = [component.op.lift(value) for value in values if value is not None]
        return abs(stored - folded) <= tolerance("sum", lifted, FLOAT64)


def holds(slot: Slot | None, components: Iterable[Component], events: Sequence[Event]) -> bool:
    """Whether a stored tile is made of exactly these events, as far as these components tell."""
    return Held(events).is_in(slot, components)
