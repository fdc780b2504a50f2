"""Put an explained difference into words that a person can follow: logical values, both sides, the events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coeval.aggregations.ops import Additive, Counted
from coeval.aggregations.partial import COUNT_OP, Component
from coeval.aggregations.tiles import aggregate_column
from coeval.spec.keys import encode_key
from coeval.spec.model import Aggregate, BatchSource, EventSource, Field, View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import duration, floor_to
from coeval.spec.types import Logical, Physical, iso, to_logical
from coeval_parity.evidence import Case, Order, Owner, fold, visible_of
from coeval_parity.omissions import TileEvidence
from coeval_parity.result import EventLine, Mismatch, Step, Symptom
from coeval_parity.verdicts import Verdict

MAX_EVENTS = 40
"""Events shown of one difference; those of tiles on which both sides agree are left out first."""


def mismatch(case: Case, verdict: Verdict, symptom: Symptom) -> Mismatch:
    """The report of one difference."""
    field = _feature(case.view, case.feature)
    aggregate = aggregate_of(case.view, case.feature)
    lines, omitted = event_lines(case, verdict)
    return Mismatch(
        view=case.view.name,
        feature=case.feature,
        label=aggregate.label if aggregate else f"latest {case.feature}",
        key=encode_key(case.view.key, case.key),
        entity=entity(case.view, case.key),
        served=to_logical(field.type, case.served),
        expected=to_logical(field.type, case.expected),
        cause=verdict.cause,
        also=verdict.also,
        suspect=verdict.suspect,
        symptom=symptom,
        proof=verdict.proof,
        since=verdict.since,
        at=case.q,
        steps=steps(case, verdict),
        events=lines,
        events_omitted=omitted,
    )


def entity(view: View, key: Sequence[Physical]) -> dict[str, Logical]:
    """The key's parts by column name."""
    return {field.name: to_logical(field.type, value) for field, value in zip(view.key, key, strict=True)}


def aggregate_of(view: View, feature: str) -> Aggregate | None:
    """The aggregate behind a windowed feature."""
    if not isinstance(view, WindowedView):
        return None
    return next(item for item in view.aggregates if item.feature == feature)


def symptom_of(served: Physical, expected: Physical) -> Symptom:
    """What a difference looks like. Beside another number, a 0 is what a count says of nothing."""
    if served is None or (served == 0 and expected is not None):
        return Symptom.MISSING_ONLINE
    if expected is None or expected == 0:
        return Symptom.MISSING_OFFLINE
    return Symptom.NONE


def _feature(view: View, name: str) -> Field:
    return next(field for field in view.features if field.name == name)


def steps(case: Case, verdict: Verdict) -> tuple[Step, ...]:
    """Both computations side by side, tile by tile, or of the winning row."""
    aggregate = aggregate_of(case.view, case.feature)
    return _tile_steps(case, verdict, aggregate) if aggregate else _row_step(case)


def _tile_steps(case: Case, verdict: Verdict, aggregate: Aggregate) -> tuple[Step, ...]:
    assert isinstance(case.source, EventSource)
    return tuple(_tile_step(tile, aggregate, case.source) for tile in verdict.tiles)


def _tile_step(tile: TileEvidence, aggregate: Aggregate, source: EventSource) -> Step:
    served = "nothing stored"
    if tile.slot is not None:
        served = _state(tile.slot.events, tile.slot.states, tile.components, aggregate, source)
    expected = "no event"
    if tile.events:
        expected = _state(len(tile.events), fold(tile.components, tile.events), tile.components, aggregate, source)
    name = f"{duration(aggregate.hop)} tile of {iso(tile.index * aggregate.hop)}"
    differs = served != expected and not (tile.slot is None and not tile.events)
    return Step(name, _delivered_by(tile), served, expected, differs)


def _delivered_by(tile: TileEvidence) -> str:
    """Who has to deliver a tile, and who did where that is somebody else."""
    if tile.slot is None:
        return str(tile.owner)
    writer = Owner.BATCH if tile.slot.epoch else Owner.STREAM
    load = f" load {tile.slot.epoch}" if tile.slot.epoch else ""
    return f"{writer}{load}" if writer is tile.owner else f"{tile.owner}; written by {writer}{load}"


def _state(
    events: int,
    states: Mapping[str, int | float],
    components: Iterable[Component],
    aggregate: Aggregate,
    source: EventSource,
) -> str:
    parts = [f"{events} event{'' if events == 1 else 's'}"]
    column = aggregate_column(aggregate, source)
    for component in components:
        assert column is not None
        if states[component.name] != events or not isinstance(component.op, Counted):
            parts.append(_component(component, states, column))
    return ", ".join(parts)


def _component(component: Component, states: Mapping[str, int | float], column: Field) -> str:
    value = states[component.name]
    match component.op:
        case Counted():
            return f"count {value}"
        case Additive(name=name) if name != "sum":
            return f"{name} {value}"
        case op:
            empty = not isinstance(op, Additive) and not states[Component(COUNT_OP, column.name).name]
            return f"{op.name} {None if empty else to_logical(column.type, value)}"


def _row_step(case: Case) -> tuple[Step, ...]:
    visible = visible_of(case)
    expected = _position(visible[-1].order) if visible else "no event"
    served = _position(case.stored.row) if case.stored.row else "nothing stored"
    owner = "stream" if isinstance(case.source, EventSource) else "batch"
    return (Step("latest row", owner, served, expected, served != expected),)


def _position(order: Order) -> str:
    event_ts, available_at, partition, offset = order
    where = "file" if partition < 0 else f"partition {partition}"
    return f"event of {iso(event_ts)}, available {iso(available_at)}, {where}, offset {offset}"


def event_lines(case: Case, verdict: Verdict) -> tuple[tuple[EventLine, ...], int]:
    """The events in the total order, the telling ones first where there are too many to show; how many are not."""
    aggregate = aggregate_of(case.view, case.feature)
    inside = visible_of(case)
    telling = set(verdict.omitted)
    if aggregate is not None:
        start = floor_to(case.q - aggregate.window, aggregate.hop)
        inside = [event for event in inside if event.event_ts >= start]
        agreed = {tile.index for tile in verdict.tiles if tile.sound and not tile.omitted}
        telling |= {event.order for event in inside if event.event_ts // aggregate.hop not in agreed}
    newest = [*reversed(inside)]
    ranked = sorted(newest, key=lambda event: event.order not in telling)
    shown = sorted(ranked[:MAX_EVENTS], key=lambda event: event.order)
    return tuple(event_line(case, event, verdict) for event in shown), len(inside) - len(shown)


def _reads(source: EventSource | BatchSource, feature: str, aggregate: Aggregate | None) -> Field | None:
    """The source field that a feature reads; None where it counts events."""
    name = aggregate.column if aggregate else feature
    return source.field(name) if name else None


def event_line(case: Case, event: Event, verdict: Verdict) -> EventLine:
    """One event as a report shows it."""
    aggregate = aggregate_of(case.view, case.feature)
    reads = _reads(case.source, case.feature, aggregate)
    return EventLine(
        event_id=event.event_id,
        event_ts=event.event_ts,
        available_at=event.available_at,
        partition=event.partition,
        offset=event.offset,
        tile=iso(floor_to(event.event_ts, aggregate.hop)) if aggregate else "",
        value=to_logical(reads.type, event.values[reads.name]) if reads else None,
        note=str(verdict.omitted.get(event.order, "")),
    )
