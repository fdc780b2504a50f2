"""Which events the rules of delivery allow a served value to leave out. Pure: tile by tile, or row by row.

The rules decide alone what may be missing; what the store holds only picks among the possibilities they leave (how
far an event stream had been processed). Whether an omission explains a value is decided elsewhere, by the oracle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from coeval.aggregations.partial import Component
from coeval.aggregations.tiles import Granularity
from coeval.reference.oracle import is_late
from coeval.spec.model import Aggregate, EventSource
from coeval.spec.records import Event
from coeval.spec.time import floor_to
from coeval_parity.evidence import Delivery, Floor, Held, Order, Owner, Slot, Stored, components_of, grid_of

MAX_CANDIDATES = 5000
"""Ways in which several partitions may have been read part of the way, tried per tile."""


class Why(StrEnum):
    """Why an event may be missing from a served value."""

    LATE = "late"
    IN_FLIGHT = "in flight"
    UNDELIVERED = "not delivered"
    ERASED = "erased with its tile"


@dataclass(frozen=True, slots=True)
class TileEvidence:
    """One tile of a window: what the log holds of it, what the store holds, and what the rules leave out.

    `sound`: the stored tile holds exactly what the rules say it should.
    """

    index: int
    owner: Owner
    slot: Slot | None
    events: Sequence[Event]
    components: tuple[Component, ...]
    omitted: Mapping[Order, Why]
    sound: bool

    @property
    def kept(self) -> list[Event]:
        """The events that the stored tile should hold."""
        return [event for event in self.events if event.order not in self.omitted]


@dataclass(frozen=True, slots=True)
class _Allowed:
    """`must` is left out by rule; of each lane, any tail may be missing (its events arrive in that order)."""

    must: Mapping[Order, Why]
    lanes: tuple[tuple[Event, ...], ...] = ()
    why: Why = Why.IN_FLIGHT


class Tiling:
    """The tiles of one key at q (microseconds UTC), for all of its features.

    What may be left out of a tile is worked out once, and what was folded of it is kept.
    """

    def __init__(
        self,
        source: EventSource,
        delivery: Delivery,
        stored: Stored,
        visible: Sequence[Event],
        q: int,
        floors: Sequence[Floor] = (),
    ) -> None:
        self._source, self._delivery, self._stored = source, delivery, stored
        self._visible, self._q, self._floors = visible, q, floors
        self._tiles: dict[int, dict[int, _Tile]] = {}

    def evidence(self, aggregate: Aggregate) -> Iterator[TileEvidence]:
        """The tiles of a window that hold an event on either side, oldest first, with what may be left out."""
        oldest = floor_to(self._q - aggregate.window, aggregate.hop) // aggregate.hop
        if aggregate.hop not in self._tiles:
            self._tiles[aggregate.hop] = self._of(aggregate.hop)
        components = components_of(aggregate, self._source)
        for index, tile in self._tiles[aggregate.hop].items():
            if index >= oldest:
                yield tile.seen_by(aggregate, components)

    def _of(self, hop: int) -> dict[int, _Tile]:
        newest = (self._q - 1) // hop
        slots = {tile: slot for tile, slot in self._stored.tiles.get(hop, {}).items() if tile <= newest}
        events: dict[int, list[Event]] = defaultdict(list)
        for event in self._visible:
            events[event.event_ts // hop].append(event)
        grid = grid_of(hop)
        return {tile: self._tile(grid, tile, slots.get(tile), events[tile]) for tile in sorted({*events, *slots})}

    def _tile(self, grid: Granularity, tile: int, slot: Slot | None, events: Sequence[Event]) -> _Tile:
        hop, delivery, lateness = grid.hop, self._delivery, self._source.allowed_lateness
        owner = delivery.owner(grid, tile, lateness)
        if slot is None and any(_awaits_batch(floor, owner, tile * hop, delivery) for floor in self._floors):
            allowed = _Allowed({event.order: Why.ERASED for event in events})
        else:
            allowed = _allowed(owner, slot, events, hop, lateness, delivery)
        return _Tile(tile, owner, slot, events, allowed)


class _Tile:
    """A tile, and the ways in which it may be incomplete, as far as they were tried."""

    def __init__(self, index: int, owner: Owner, slot: Slot | None, events: Sequence[Event], allowed: _Allowed) -> None:
        self._index, self._owner, self._slot, self._events, self._allowed = index, owner, slot, events, allowed
        self._tried: list[tuple[Held, dict[Order, Why]]] = []
        self._ways = self._every_way()
        self._seen: dict[tuple[str, str], TileEvidence] = {}

    def seen_by(self, aggregate: Aggregate, components: tuple[Component, ...]) -> TileEvidence:
        """The tile as far as the components of an aggregate tell."""
        known = aggregate.function, aggregate.column
        if known not in self._seen:
            self._seen[known] = self._look(components)
        return self._seen[known]

    def _look(self, components: tuple[Component, ...]) -> TileEvidence:
        """With the omission that gives what is stored; with what is left out by rule alone where none does."""
        found = next((omitted for held, omitted in self._each() if held.is_in(self._slot, components)), None)
        omitted = dict(self._allowed.must) if found is None else found
        return TileEvidence(self._index, self._owner, self._slot, self._events, components, omitted, found is not None)

    def _each(self) -> Iterator[tuple[Held, dict[Order, Why]]]:
        yield from self._tried
        for way in self._ways:
            self._tried.append(way)
            yield way

    def _every_way(self) -> Iterator[tuple[Held, dict[Order, Why]]]:
        must, lanes = self._allowed.must, self._allowed.lanes
        free = {event.order for lane in lanes for event in lane}
        fixed = [event for event in self._events if event.order not in must and event.order not in free]
        wanted = (self._slot.events if self._slot else 0) - len(fixed)
        for kept in islice(prefixes(lanes, wanted), MAX_CANDIDATES):
            gone = free - {event.order for event in kept} if free else free
            yield Held([*fixed, *kept]), {**must, **dict.fromkeys(sorted(gone), self._allowed.why)}


def _awaits_batch(floor: Floor, owner: Owner, start: int, delivery: Delivery) -> bool:
    """Whether a tile went with what was erased, and no batch load since has written what is left of it."""
    return start <= floor.at and not (owner is Owner.BATCH and delivery.load_run > floor.epoch)


def _allowed(
    owner: Owner, slot: Slot | None, events: Sequence[Event], hop: int, lateness: int, delivery: Delivery
) -> _Allowed:
    if owner is Owner.BATCH:
        # Whatever came after the cut came after the tile was final, too.
        tail = sorted((e for e in events if delivery.after_cut(e)), key=lambda e: e.order[1:])
        return _Allowed({}, (tuple(tail),), Why.LATE)
    if owner is Owner.NOBODY:
        return _Allowed({} if slot else {event.order: Why.UNDELIVERED for event in events})
    late = {event.order: Why.LATE for event in events if is_late(event, hop, lateness)}
    return _Allowed(late, _lanes([e for e in events if e.order not in late and delivery.in_flight(e)]))


def _lanes(events: Sequence[Event]) -> tuple[tuple[Event, ...], ...]:
    lanes: dict[int, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda item: item.offset):
        lanes[event.partition].append(event)
    return tuple(tuple(lane) for _, lane in sorted(lanes.items()))


def prefixes(lanes: Sequence[Sequence[Event]], total: int) -> Iterator[list[Event]]:
    """Every way of taking `total` events as prefixes of the lanes, in order."""
    if not lanes:
        if total == 0:
            yield []
        return
    first, rest = lanes[0], lanes[1:]
    room = sum(len(lane) for lane in rest)
    for taken in range(max(0, total - room), min(len(first), total) + 1):
        for others in prefixes(rest, total - taken):
            yield [*first[:taken], *others]


def row_omissions(
    stored: Order | None, visible: Sequence[Event], delivery: Delivery, *, stream: bool, floors: Sequence[Floor] = ()
) -> dict[Order, Why] | None:
    """What a stored row leaves out: every visible event above it in the total order; None where one may not be missing.

    Of one partition only a tail can be missing, since it is read in order.
    """
    missing = [event for event in visible if stored is None or event.order > stored]
    if stored is not None and stored not in {event.order for event in visible}:
        return None
    omitted: dict[Order, Why] = {}
    for event in missing:
        waiting = delivery.in_flight(event) if stream else delivery.after_load(event)
        overtaken = stream and stored is not None and stored[2] == event.partition and stored[3] > event.offset
        gone = any(_row_awaits_batch(floor, event, delivery) for floor in floors)
        if not gone and (not waiting or overtaken):
            return None
        omitted[event.order] = Why.ERASED if gone else Why.IN_FLIGHT
    return omitted


def _row_awaits_batch(floor: Floor, event: Event, delivery: Delivery) -> bool:
    """Whether a row is of a time that was erased, and no batch load since can have written it.

    The stream's is refused: it may be another delivery of an erased event.
    """
    return event.event_ts <= floor.at and (delivery.load_run <= floor.epoch or delivery.after_cut(event))
