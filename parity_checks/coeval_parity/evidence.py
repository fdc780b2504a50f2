"""What an explanation may draw on: the progress of writers, the state of the store, the log. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import Component
from coeval.aggregations.tiles import Granularity, aggregate_column
from coeval.spec.model import Aggregate, BatchSource, EventSource, View
from coeval.spec.records import Event
from coeval.spec.types import Physical

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
    final then, and had written everything by `loaded_at`. `certified`: by source partition, the next offset that is not
    certified to be covered; None: no certificate. `freshness` is what the view promises. Instants are microseconds UTC.
    """

    since: int | None
    load_cut: int | None
    loaded_at: int | None
    certified: Mapping[int, int] | None
    freshness: int

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
        """Whether an event became available only after the last load was over: its rows cannot hold it."""
        return self.loaded_at is not None and event.available_at >= self.loaded_at


@dataclass(frozen=True, slots=True)
class Slot:
    """A stored tile: its index, the epoch of its writer (0: the stream), events counted, components by name."""

    tile: int
    epoch: int
    events: int
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store held for one key: tiles by hop and index, or the order of the stored row (None: nothing)."""

    tiles: Mapping[int, Mapping[int, Slot]]
    row: Order | None = None


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


def components_of(aggregate: Aggregate, source: EventSource) -> tuple[Component, ...]:
    """The components that a feature needs of a tile."""
    return AGGREGATIONS[aggregate.function].components(aggregate_column(aggregate, source))


def fold(components: Iterable[Component], events: Iterable[Event]) -> dict[str, int]:
    """The components of a tile, computed from its events one by one."""
    kept = list(events)
    states: dict[str, int] = {}
    for component in components:
        total = component.op.identity
        for event in kept:
            value = event.values[component.column]
            if value is not None:
                total = component.op.merge(total, component.op.lift(value))  # type: ignore[arg-type]
        states[component.name] = total
    return states


def holds(slot: Slot | None, components: Sequence[Component], events: Sequence[Event]) -> bool:
    """Whether a stored tile is made of exactly these events, as far as these components tell; no slot holds none."""
    if slot is None:
        return not events
    if slot.events != len(events):
        return False
    return all(slot.states[name] == state for name, state in fold(components, events).items())
