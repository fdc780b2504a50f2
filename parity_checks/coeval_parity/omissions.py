"""Which events the rules of delivery allow a served value to leave out. Pure: tile by tile, or row by row.

The rules decide alone what may be missing; what the store holds only picks among the possibilities they leave (how
far an event stream had been processed). Whether an omission explains a value is decided elsewhere, by the oracle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from coeval.aggregations.partial import Component
from coeval.aggregations.tiles import Granularity
from coeval.reference.oracle import is_late
from coeval.spec.model import Aggregate, EventSource
from coeval.spec.records import Event
from coeval.spec.time import floor_to
from coeval_parity.evidence import Delivery, Floor, Order, Owner, Slot, components_of, holds

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
    """One tile of a window: what the log holds of it, what the store holds, and what the rules leave out."""

    index: int
    owner: Owner
    slot: Slot | None
    events: tuple[Event, ...]
    components: tuple[Component, ...]
    omitted: Mapping[Order, Why] = field(default_factory=dict)

    @property
    def kept(self) -> list[Event]:
        """The events that the stored tile should hold."""
        return [event for event in self.events if event.order not in self.omitted]

    @property
    def sound(self) -> bool:
        """Whether the stored tile holds exactly what the rules say it should."""
        return holds(self.slot, self.components, self.kept)


@dataclass(frozen=True, slots=True)
class _Allowed:
    """`must` is left out by rule; of each lane, any tail may be missing (its events arrive in that order)."""

    must: Mapping[Order, Why]
    lanes: tuple[tuple[Event, ...], ...] = ()
    why: Why = Why.IN_FLIGHT


def window_evidence(
    aggregate: Aggregate,
    source: EventSource,
    granularity: Granularity,
    delivery: Delivery,
    stored: Mapping[int, Slot],
    visible: Sequence[Event],
    q: int,
    floors: Sequence[Floor] = (),
) -> list[TileEvidence]:
    """The tiles of a window at q that hold an event on either side, oldest first, with what may be left out."""
    oldest = floor_to(q - aggregate.window, aggregate.hop) // aggregate.hop
    newest = (q - 1) // aggregate.hop
    by_tile: dict[int, list[Event]] = defaultdict(list)
    for event in visible:
        by_tile[event.event_ts // aggregate.hop].append(event)
    slots = {tile: slot for tile, slot in stored.items() if oldest <= tile <= newest}
    components = components_of(aggregate, source)
    found: list[TileEvidence] = []
    for tile in sorted({tile for tile in by_tile if tile >= oldest} | slots.keys()):
        owner = delivery.owner(granularity, tile, source.allowed_lateness)
        slot, events = slots.get(tile), by_tile.get(tile, [])
        if slot is None and any(_awaits_batch(floor, owner, tile * aggregate.hop, delivery) for floor in floors):
            allowed = _Allowed({event.order: Why.ERASED for event in events})
        else:
            allowed = _allowed(owner, slot, events, aggregate.hop, source.allowed_lateness, delivery)
        omitted = _choose(allowed, slot, events, components)
        found.append(TileEvidence(tile, owner, slot, tuple(events), components, omitted))
    return found


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


def _choose(
    allowed: _Allowed, slot: Slot | None, events: Sequence[Event], components: Sequence[Component]
) -> dict[Order, Why]:
    """The omission that reproduces the stored tile; what is left out by rule alone where none does."""
    free = {event.order for lane in allowed.lanes for event in lane}
    fixed = [event for event in events if event.order not in allowed.must and event.order not in free]
    wanted = (slot.events if slot else 0) - len(fixed)
    for kept in islice(prefixes(allowed.lanes, wanted), MAX_CANDIDATES):
        if holds(slot, components, [*fixed, *kept]):
            gone = free - {event.order for event in kept}
            return {**allowed.must, **dict.fromkeys(sorted(gone), allowed.why)}
    return dict(allowed.must)


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
