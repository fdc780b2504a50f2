"""Give one difference exactly one cause, and accept it only if the oracle then computes the served value. Pure.

Each hypothesis changes one thing (leave out the late events, ignore the ttl, take the other definition) and asks the
oracle again. What none of them reproduces exactly is unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from coeval.aggregations.tiles import aggregate_column, tile_plan
from coeval.reference.aggregate import agree, tolerance
from coeval.reference.oracle import in_window, value_of, values_of, visible_events
from coeval.spec.model import Aggregate, EventSource, RowView, View, WindowedView, columns_read
from coeval.spec.records import Event
from coeval.spec.time import duration
from coeval.spec.types import Physical
from coeval_parity.evidence import Case, Delivery, Order, Owner, components_of, erased_epoch, holds, visible_of
from coeval_parity.omissions import TileEvidence, Why, row_omissions, window_evidence
from coeval_parity.result import Cause, Suspect
from coeval_parity.suspects import Scene, as_streamed, is_of_batch, suspicion

MAX_FUTURE_EVENTS = 64
"""Events from after the instant of the read that the clock hypothesis tries."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The cause of a difference, its proof in words, and what the served value leaves out (by position).

    `also` are other causes that it takes beside `cause` to give the served value, in their order; `suspect` is what is
    probably behind a difference that is unexplained.
    """

    cause: Cause
    proof: str
    since: int | None
    omitted: Mapping[Order, Why]
    tiles: tuple[TileEvidence, ...] = ()
    also: tuple[Cause, ...] = ()
    suspect: Suspect = Suspect.NONE


def explain(case: Case, delivery: Delivery, *, suspect: bool = True) -> Verdict:
    """The cause of one difference. `case.stored` and `delivery` were read before the log was.

    `suspect` looks for what is probably behind a difference that nothing explains, which takes a while.
    """
    case = replace(case, view=narrowed(case.view, case.feature))
    visible = visible_of(case)
    reference = oracle(case, case.view, visible)
    if not near(case, reference, case.expected):
        return Verdict(
            Cause.UNEXPLAINED,
            f"The offline engine computed {case.expected!r}, the reference {reference!r}, from the same log: "
            "the offline side is wrong.",
            None,
            {},
        )
    tiles = tiles_of(case, delivery, visible)
    omitted = _omitted(case, delivery, visible, tiles)
    for verdict in _hypotheses(case, delivery, visible, omitted, tiles):
        return verdict
    scene = Scene(case, delivery, visible, tiles, _tiles_with(delivery), reproduces, case.others)
    found = suspicion(scene) if suspect else None
    said = [_why_not(case, visible, tiles), found.proof if found else ""]
    parted = _parted(case, visible, tiles)
    what = found.suspect if found else Suspect.NONE
    return Verdict(Cause.UNEXPLAINED, " ".join(filter(None, said)), parted, {}, tiles, suspect=what)


def _tiles_with(delivery: Delivery) -> Callable[[Case, Sequence[Event]], Sequence[TileEvidence]]:
    return lambda case, events: tiles_of(case, delivery, events)


def _hypotheses(
    case: Case,
    delivery: Delivery,
    visible: Sequence[Event],
    omitted: Mapping[Order, Why] | None,
    tiles: tuple[TileEvidence, ...],
) -> Iterator[Verdict]:
    """Every hypothesis that reproduces the served value, the likeliest first."""
    kept = [event for event in visible if event.order not in (omitted or {})]
    # A value can come out right by chance; every tile that it is made of cannot.
    if omitted and all(tile.sound for tile in tiles) and reproduces(case, kept):
        yield delivery_verdict(case, delivery, visible, omitted, tiles)
    for gone in ({}, omitted) if omitted else ({},):
        yield from _without_ttl(case, delivery, visible, gone)
    for verdict in _other_version(case, delivery, omitted or {}):
        yield replace(verdict, tiles=tiles)
    also = with_delivery(case, delivery, visible, omitted or {})
    still = _still_there(case, delivery)
    if still and _stores(case, tiles, kept, still) and reproduces(case, sorted_by_order([*kept, *still])):
        proof = f"Counting {len(still)} erased events gives the served value: batch has not written it anew."
        yield Verdict(Cause.ERASED, proof, min(event.event_ts for event in still), omitted or {}, tiles, also)
    yield from _refused(case, delivery, visible)
    for ahead in ahead_of(case):
        seen = sorted_by_order([*kept, *known_at(ahead, case.q)])
        if _stores(case, tiles, kept, ahead) and reproduces(case, seen):
            proof = f"Counting {len(ahead)} events that became available at or after the read gives the served value."
            yield Verdict(Cause.CLOCK, proof, case.q, omitted or {}, tiles, also)
    yield from _producer_ahead(case, delivery, visible)


def _without_ttl(
    case: Case, delivery: Delivery, visible: Sequence[Event], gone: Mapping[Order, Why]
) -> Iterator[Verdict]:
    view, left = case.view, [event for event in visible if event.order not in gone]
    if not isinstance(view, RowView) or not view.ttl or not left or case.stored.row != left[-1].order:
        return
    if near(case, oracle(case, replace(view, ttl=0), left), case.served):
        proof = f"Ignoring the ttl of {duration(view.ttl)} gives exactly the served value."
        also = with_delivery(case, delivery, visible, gone)
        yield Verdict(Cause.TTL, proof, left[-1].event_ts + view.ttl, gone, also=also)


def _other_version(case: Case, delivery: Delivery, omitted: Mapping[Order, Why]) -> Iterator[Verdict]:
    """Another version of the view, where the store holds what it makes of its events that were delivered."""
    for other in versions(case):
        view = narrowed(other, case.feature)
        theirs = visible_events(view, case.every or case.events, case.key, case.q)
        for gone in _stored_of(case, delivery, theirs, omitted):
            kept = [event for event in theirs if event.order not in gone]
            if near(case, oracle(case, view, kept), case.served):
                proof = f"Version {other.version} gives exactly the served value, and what is stored."
                also = with_delivery(case, delivery, theirs, gone)
                yield Verdict(Cause.DEFINITION, proof, None, gone, also=also)


def _stored_of(
    case: Case, delivery: Delivery, theirs: Sequence[Event], omitted: Mapping[Order, Why]
) -> Iterator[Mapping[Order, Why]]:
    """What may be left out of another version's events, so that the store holds the rest of them."""
    if not isinstance(case.view, WindowedView):
        for gone in ({}, {event.order: omitted[event.order] for event in theirs if event.order in omitted}):
            left = [event.order for event in theirs if event.order not in gone]
            if case.stored.row == (left[-1] if left else None):
                yield gone
        return
    assert isinstance(case.source, EventSource)
    columns = {item.column for item in components_of(case.view.aggregates[0], case.source)}
    if all(columns <= event.values.keys() for event in theirs):
        tiles = tiles_of(case, delivery, theirs)
        if all(tile.sound for tile in tiles):
            yield {order: why for tile in tiles for order, why in tile.omitted.items()}


def _refused(case: Case, delivery: Delivery, visible: Sequence[Event]) -> Iterator[Verdict]:
    """Records that the log refused and the stream counts, by the rules of all others: all of them, or one."""
    known = visible_events(case.view, case.rejected, case.key, case.q)
    rows = isinstance(case.view, RowView)
    if not rows:
        known = [event for event in known if not is_of_batch(case, delivery, event)]
    for some in ([known] if known else []) + ([[event] for event in known] if len(known) > 1 else []):
        both = sorted_by_order([*visible, *some])
        tiles = tiles_of(case, delivery, both)
        gone = {order: why for tile in tiles for order, why in tile.omitted.items()}
        stored = not rows or case.stored.row in {event.order for event in some}
        kept = [event for event in both if event.order not in gone]
        if stored and all(tile.sound for tile in tiles) and reproduces(case, kept):
            counted = [event for event in some if event.order not in gone]
            if counted:
                proof = (
                    f"Counting {len(counted)} records that the log rejects gives exactly the served value: the stream "
                    f"took what it should have refused, first at partition {counted[0].partition}, offset "
                    f"{counted[0].offset}."
                )
                also = tuple(cause for cause in Cause if cause in {_CAUSES[why] for why in gone.values()})
                since = min(event.available_at for event in counted)
                yield Verdict(Cause.REJECTED, proof, since, gone, tiles, also)


def _producer_ahead(case: Case, delivery: Delivery, visible: Sequence[Event]) -> Iterator[Verdict]:
    """A side that takes the producers' clocks at their word."""

    def change(event: Event) -> Event:
        return replace(event, event_ts=max(event.event_ts, event.declared_ts))

    if all(event.declared_ts <= event.event_ts for event in visible):
        return
    rows = isinstance(case.view, RowView)
    word = sorted_by_order([*map(change, visible)]) if rows else as_streamed(case, delivery, visible, change)
    tiles = tiles_of(case, delivery, word)
    gone = {order for tile in tiles for order in tile.omitted}
    stored = case.stored.row in {e.order for e in word} if rows else _ahead_is_stored(case, delivery, visible, change)
    kept = sorted_by_order([event for event in word if event.order not in gone])
    if stored and all(tile.sound for tile in tiles) and reproduces(case, kept):
        ahead = [event for event in visible if event.declared_ts > event.event_ts]
        proof = f"Taking {len(ahead)} producers' clocks that were ahead at their word gives exactly the served value."
        yield Verdict(Cause.CLOCK, proof, min(event.available_at for event in ahead), {}, tiles)


def _ahead_is_stored(
    case: Case, delivery: Delivery, visible: Sequence[Event], change: Callable[[Event], Event]
) -> bool:
    """Whether the store has the tiles ahead of the read that changed events of the stream fall in."""
    assert isinstance(case.view, WindowedView)
    hop = case.view.aggregates[0].hop
    slots = case.stored.tiles.get(hop, {})
    streamed = [e for e in visible if not is_of_batch(case, delivery, e) and not delivery.in_flight(e)]
    tiles = {change(event).event_ts // hop for event in streamed}
    return all(tile in slots for tile in tiles if tile > (case.q - 1) // hop)


def sorted_by_order(events: Sequence[Event]) -> list[Event]:
    """Events in the total order."""
    return sorted(events, key=lambda event: event.order)


def with_delivery(
    case: Case, delivery: Delivery, visible: Sequence[Event], omitted: Mapping[Order, Why]
) -> tuple[Cause, ...]:
    """The causes of what is left out beside another cause."""
    if not omitted:
        return ()
    verdict = delivery_verdict(case, delivery, visible, omitted, ())
    return tuple(sorted({verdict.cause, *verdict.also}, key=list(Cause).index))


def delivery_verdict(
    case: Case,
    delivery: Delivery,
    visible: Sequence[Event],
    omitted: Mapping[Order, Why],
    tiles: tuple[TileEvidence, ...],
) -> Verdict:
    """The verdict where what was not delivered gives the served value."""
    gone = [event for event in visible if event.order in omitted]
    since = min(event.available_at for event in gone)
    waiting = [event.available_at for event in gone if omitted[event.order] not in (Why.LATE, Why.ERASED)]
    proof = f"Leaving out {_counted(omitted)} gives exactly the served value."
    found = {_CAUSES[why] for why in omitted.values()}
    if Why.UNDELIVERED in omitted.values():
        proof += " No writer owns their tiles: the batch load is behind the stream's start."
    elif waiting and case.q - min(waiting) > delivery.freshness:
        proof += f" The oldest has waited longer than the promised {duration(delivery.freshness)}."
        found = {Cause.STALE if cause is Cause.IN_FLIGHT else cause for cause in found}
    # What a sound system does not do comes first, then what is over soonest.
    first, *others = sorted(found, key=_DELIVERY.index)
    return Verdict(first, proof, since, omitted, tiles, tuple(sorted(others, key=list(Cause).index)))


_CAUSES = {
    Why.LATE: Cause.LATE,
    Why.IN_FLIGHT: Cause.IN_FLIGHT,
    Why.UNDELIVERED: Cause.STALE,
    Why.ERASED: Cause.ERASED,
}
_DELIVERY = (Cause.STALE, Cause.ERASED, Cause.IN_FLIGHT, Cause.LATE)

_REASONS = {
    Why.LATE: "that came too late for a tile",
    Why.IN_FLIGHT: "above the offsets that the store is certified to cover",
    Why.UNDELIVERED: "that nobody has delivered",
    Why.ERASED: "of an erased time that batch has not written anew",
}


def _counted(omitted: Mapping[Order, Why]) -> str:
    counts = {why: sum(found is why for found in omitted.values()) for why in Why}
    parts = [f"{n} event{'s' if n > 1 else ''} {_REASONS[why]}" for why, n in counts.items() if n]
    return " and ".join(parts)


def tiles_of(case: Case, delivery: Delivery, visible: Sequence[Event]) -> tuple[TileEvidence, ...]:
    """The tiles of a windowed value, on both sides; nothing of a row."""
    view = narrowed(case.view, case.feature)
    if not isinstance(view, WindowedView):
        return ()
    assert isinstance(case.source, EventSource)
    aggregate = view.aggregates[0]
    granularity = tile_plan(view, case.source).granularity(aggregate.hop)
    stored = case.stored.tiles.get(aggregate.hop, {})
    return tuple(window_evidence(aggregate, case.source, granularity, delivery, stored, visible, case.q, case.floors))


def _omitted(
    case: Case, delivery: Delivery, visible: Sequence[Event], tiles: Sequence[TileEvidence]
) -> Mapping[Order, Why] | None:
    if isinstance(case.view, RowView):
        return row_omissions(case.stored.row, visible, delivery, stream=case.view.stream, floors=case.floors)
    return {order: why for tile in tiles for order, why in tile.omitted.items()}


def _still_there(case: Case, delivery: Delivery) -> list[Event]:
    """The erased events that a value may still hold: no batch load that should have written it anew is over."""
    waiting = unmended(case, delivery)
    if not isinstance(case.view, WindowedView):
        return waiting
    aggregate = case.view.aggregates[0]
    slots = case.stored.tiles.get(aggregate.hop, {})
    found = [(event, slots.get(event.event_ts // aggregate.hop)) for event in in_window(aggregate, waiting, case.q)]
    return [event for event, slot in found if slot and slot.epoch <= erased_epoch(event, case.erasures)]


def unmended(case: Case, delivery: Delivery) -> list[Event]:
    """The erased events that no batch load since then had to take away. `case.view` has one feature alone."""
    seen = visible_events(case.view, case.erased, case.key, case.q)
    return [event for event in seen if not _is_mended(case, delivery, event)]


def _is_mended(case: Case, delivery: Delivery, event: Event) -> bool:
    if delivery.load_run <= erased_epoch(event, case.erasures):
        return False
    if not isinstance(case.view, WindowedView):
        return True
    assert isinstance(case.source, EventSource)
    hop = case.view.aggregates[0].hop
    granularity = tile_plan(case.view, case.source).granularity(hop)
    return delivery.owner(granularity, event.event_ts // hop, case.source.allowed_lateness) is Owner.BATCH


def ahead_of(case: Case) -> Iterator[list[Event]]:
    """Prefixes of the events that became available only at or after the read."""
    future = sorted((e for e in case.events if e.available_at >= case.q), key=lambda event: event.order[1:])
    for end in range(1, min(len(future), MAX_FUTURE_EVENTS) + 1):
        yield future[:end]


def known_at(ahead: Sequence[Event], q: int) -> list[Event]:
    """The events as if they had become available just before q."""
    return [replace(item, available_at=q - 1, event_ts=min(item.event_ts, q - 1)) for item in ahead]


def _stores(case: Case, tiles: Sequence[TileEvidence], kept: Sequence[Event], ahead: Sequence[Event]) -> bool:
    """Whether the store holds those events from after the read: in every tile, or as the row."""
    if not isinstance(case.view, WindowedView):
        return case.stored.row in {event.order for event in ahead}
    assert isinstance(case.source, EventSource)
    aggregate = case.view.aggregates[0]
    known = {tile.index: tile for tile in tiles}
    touched = {event.event_ts // aggregate.hop for event in ahead}
    components = components_of(aggregate, case.source)
    slots = case.stored.tiles.get(aggregate.hop, {})
    return all(tile.sound for index, tile in known.items() if index not in touched) and all(
        holds(slots.get(index), components, [e for e in (*kept, *ahead) if e.event_ts // aggregate.hop == index])
        for index in touched
    )


def oracle(case: Case, view: View, events: Sequence[Event], *, seen: bool = True) -> Physical:
    """What the oracle makes of events: `seen`, of those that the view selects, visible and in the total order."""
    visible = events if seen else visible_events(view, events, case.key, case.q)
    return value_of(view, case.source, visible, case.q)[case.feature].value


def reproduces(case: Case, events: Sequence[Event]) -> bool:
    """Whether visible events give the served value."""
    return near(case, oracle(case, case.view, events), case.served)


def oracle_value(case: Case) -> Physical:
    """What the oracle computes from everything that the log holds."""
    return oracle(case, narrowed(case.view, case.feature), visible_of(case))


def versions(case: Case) -> Iterator[View]:
    """Other versions that have the feature, and read what the source still has."""
    known = {field.name for field in case.source.fields}
    for other in case.definitions:
        if _has(other, case.feature) and columns_read(other) <= known:
            yield other


def near(case: Case, left: Physical, right: Physical) -> bool:
    """Whether two values of the case's feature are equal: exactly, or as sums of the same doubles can be."""
    if not isinstance(left, float) or not isinstance(right, float) or left == right:
        return type(left) is type(right) and left == right
    if not isinstance(case.view, WindowedView):
        return False
    assert isinstance(case.source, EventSource)
    aggregate = next(item for item in case.view.aggregates if item.feature == case.feature)
    column = aggregate_column(aggregate, case.source)
    seen = in_window(aggregate, visible_of(case), case.q)
    bound = tolerance(aggregate.function, values_of(aggregate, seen), column.type if column else None)
    return agree(aggregate.function, left, right, bound)


def _has(view: View, feature: str) -> bool:
    return any(field.name == feature for field in view.features)


def narrowed(view: View, feature: str) -> View:
    """The view with one feature, so that the oracle computes no other."""
    chosen = next(index for index, field in enumerate(view.features) if field.name == feature)
    if isinstance(view, WindowedView):
        return replace(view, aggregates=(view.aggregates[chosen],), features=(view.features[chosen],))
    return replace(view, features=(view.features[chosen],))


def _why_not(case: Case, visible: Sequence[Event], tiles: Sequence[TileEvidence]) -> str:
    duplicated = _with_duplicates(case, visible)
    if duplicated:
        return f"No allowed omission gives the served value; counting {duplicated} duplicate deliveries twice does."
    if isinstance(case.view, WindowedView):
        return _tile_at_fault(case.view.aggregates[0], tiles)
    return _row_at_fault(case.stored.row, visible)


def _tile_at_fault(aggregate: Aggregate, tiles: Sequence[TileEvidence]) -> str:
    wrong = [tile for tile in tiles if not tile.sound]
    if not wrong:
        return "Every stored tile agrees with the log, and still their merge does not: the reader is wrong."
    return (
        f"{len(wrong)} stored {duration(aggregate.hop)} tile{'s hold' if len(wrong) > 1 else ' holds'} what no late or "
        "in-flight event accounts for: written by something else, or events are gone from the log."
    )


def _row_at_fault(stored: Order | None, visible: Sequence[Event]) -> str:
    if stored is None:
        return "The log has a row that is certified to be in the store, and the store has none: it was lost."
    if stored not in {event.order for event in visible}:
        return (
            f"The stored row claims partition {stored[2]}, offset {stored[3]}: the log has no such event of this key."
        )
    if visible[-1].order == stored:
        return "The stored row claims the right event, but not its values: it was changed."
    return "The stored row is older than one that is certified to be in the store: an update was lost."


def _with_duplicates(case: Case, visible: Sequence[Event]) -> int:
    """How many duplicates, counted again, give the served value; 0 where none do."""
    seen = visible_events(case.view, case.duplicates, case.key, case.q)
    for count in range(1, len(seen) + 1):
        if reproduces(case, sorted_by_order([*visible, *seen[:count]])):
            return count
    return 0


def _parted(case: Case, visible: Sequence[Event], tiles: Sequence[TileEvidence]) -> int | None:
    """The instant at which the two sides part."""
    if isinstance(case.view, WindowedView):
        aggregate = case.view.aggregates[0]
        return next((tile.index * aggregate.hop for tile in tiles if not tile.sound), None)
    found = [visible[-1].event_ts] if visible else []
    if case.stored.row is not None:
        found.append(case.stored.row[0])
    return min(found, default=None)
