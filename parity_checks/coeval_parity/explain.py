"""Give one difference exactly one cause, and accept it only if the oracle then computes the served value. Pure.

Each hypothesis changes one thing (leave out the late events, ignore the ttl, take the other definition) and asks the
oracle again. What none of them reproduces exactly is unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from coeval.reference.oracle import in_window, visible_events
from coeval.spec.model import EventSource, RowView, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import duration
from coeval_parity.counterfactual import (
    ahead_of,
    known_at,
    narrowed,
    near,
    oracle,
    oracle_value,
    reproduces,
    sorted_by_order,
    unmended,
    versions,
)
from coeval_parity.evidence import Case, Delivery, Order, components_of, erased_epoch, holds, visible_of
from coeval_parity.omissions import TileEvidence, Tiling, Why, row_omissions
from coeval_parity.result import Cause, Suspect
from coeval_parity.suspects import Scene, as_streamed, is_of_batch, suspicion
from coeval_parity.verdicts import (
    CAUSES,
    Verdict,
    delivery_verdict,
    parted,
    plural,
    why_not,
    with_delivery,
    wrong_offline,
)


def explain(case: Case, delivery: Delivery) -> Verdict:
    """The cause of one difference. `case.stored` and `delivery` were read before the log was."""
    case = replace(case, view=narrowed(case.view, case.feature))
    reference = oracle_value(case, case.view)
    if not near(case, reference, case.expected):
        return wrong_offline(case.expected, reference)
    return cause_of(case, delivery, tiling_of(case, delivery, visible_of(case)))


def cause_of(case: Case, delivery: Delivery, tiling: Tiling | None, *, suspect: bool = True) -> Verdict:
    """The same where `case.view` has its feature alone and `case.expected` is what the oracle says.

    `tiling` are the key's tiles (None: a row). `suspect` looks for what is probably behind a difference that nothing
    explains, which takes a while.
    """
    visible = visible_of(case)
    tiles = tuple(_seen(case, tiling))
    omitted = _omitted(case, delivery, visible, tiles)
    for verdict in _hypotheses(case, delivery, visible, omitted, tiles):
        return verdict
    scene = Scene(case, delivery, visible, tiles, lambda case, events: tiles_of(case, delivery, events), reproduces)
    found = suspicion(scene) if suspect else None
    said = [why_not(case, visible, tiles), found.proof if found else ""]
    what = found.suspect if found else Suspect.NONE
    begun = parted(case, visible, tiles)
    return Verdict(Cause.UNEXPLAINED, " ".join(filter(None, said)), begun, {}, tiles, suspect=what)


def _hypotheses(
    case: Case,
    delivery: Delivery,
    visible: Sequence[Event],
    omitted: Mapping[Order, Why] | None,
    tiles: tuple[TileEvidence, ...],
) -> Iterator[Verdict]:
    """Every hypothesis that reproduces the served value, the likeliest first."""
    kept = [event for event in visible if event.order not in omitted] if omitted else visible

    def also() -> tuple[Cause, ...]:
        return with_delivery(case, delivery, visible, omitted or {})

    # A value can come out right by chance; every tile that it is made of cannot.
    if omitted and all(tile.sound for tile in tiles) and reproduces(case, kept):
        yield delivery_verdict(case, delivery, visible, omitted, tiles)
    if isinstance(case.view, RowView) and case.view.ttl:
        for gone in ({}, omitted) if omitted else ({},):
            yield from _without_ttl(case, case.view, delivery, visible, gone)
    for verdict in _other_version(case, delivery, omitted or {}):
        yield replace(verdict, tiles=tiles)
    still = _still_there(case, delivery)
    if still and _stores(case, tiles, kept, still) and reproduces(case, sorted_by_order([*kept, *still])):
        proof = f"Counting {plural(len(still), 'erased event')} gives the served value: batch has not written it anew."
        yield Verdict(Cause.ERASED, proof, min(event.event_ts for event in still), omitted or {}, tiles, also())
    yield from _refused(case, delivery, visible)
    for ahead in ahead_of(case):
        seen = sorted_by_order([*kept, *known_at(ahead, case.q)])
        if _stores(case, tiles, kept, ahead) and reproduces(case, seen):
            proof = f"Counting {plural(len(ahead))} that became available at or after the read gives the served value."
            yield Verdict(Cause.CLOCK, proof, case.q, omitted or {}, tiles, also())
    yield from _producer_ahead(case, delivery, visible)


def _without_ttl(
    case: Case, view: RowView, delivery: Delivery, visible: Sequence[Event], gone: Mapping[Order, Why]
) -> Iterator[Verdict]:
    left = [event for event in visible if event.order not in gone]
    if left and case.stored.row == left[-1].order and near(case, oracle(case, replace(view, ttl=0), left), case.served):
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
        tiles = tuple(tiles_of(case, delivery, theirs))
        if all(tile.sound for tile in tiles):
            yield {order: why for tile in tiles for order, why in tile.omitted.items()}


def _refused(case: Case, delivery: Delivery, visible: Sequence[Event]) -> Iterator[Verdict]:
    """Records that the log refused and the stream counts, by the rules of all others: all of them, or one."""
    known = visible_events(case.view, case.rejected, case.key, case.q) if case.rejected else []
    rows = isinstance(case.view, RowView)
    if not rows:
        known = [event for event in known if not is_of_batch(case, delivery, event)]
    for some in ([known] if known else []) + ([[event] for event in known] if len(known) > 1 else []):
        both = sorted_by_order([*visible, *some])
        tiles = tuple(tiles_of(case, delivery, both))
        gone = {order: why for tile in tiles for order, why in tile.omitted.items()}
        stored = not rows or case.stored.row in {event.order for event in some}
        kept = [event for event in both if event.order not in gone]
        if stored and all(tile.sound for tile in tiles) and reproduces(case, kept):
            counted = [event for event in some if event.order not in gone]
            if counted:
                proof = (
                    f"Counting {plural(len(counted), 'record')} that the log rejects gives exactly the served value: "
                    f"the stream took what it should have refused, first at partition {counted[0].partition}, offset "
                    f"{counted[0].offset}."
                )
                also = tuple(cause for cause in Cause if cause in {CAUSES[why] for why in gone.values()})
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
    tiles = tuple(tiles_of(case, delivery, word))
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


def tiling_of(case: Case, delivery: Delivery, visible: Sequence[Event]) -> Tiling | None:
    """The tiles of a key, on both sides; None of a row."""
    if not isinstance(case.view, WindowedView):
        return None
    assert isinstance(case.source, EventSource)
    return Tiling(case.source, delivery, case.stored, visible, case.q, case.floors)


def tiles_of(case: Case, delivery: Delivery, visible: Sequence[Event]) -> Iterator[TileEvidence]:
    """The tiles of a windowed value, on both sides, as they are asked for; nothing of a row."""
    return _seen(replace(case, view=narrowed(case.view, case.feature)), tiling_of(case, delivery, visible))


def _seen(case: Case, tiling: Tiling | None) -> Iterator[TileEvidence]:
    view = case.view
    return tiling.evidence(view.aggregates[0]) if tiling and isinstance(view, WindowedView) else iter(())


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
