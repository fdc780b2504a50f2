"""The faults: what each breaks, and what parity has to call it. Real Redis, writer, reader, Delta log; no Flink."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from coeval.aggregations.ops import Additive
from coeval.aggregations.partial import Component
from coeval.aggregations.partial import fold as exact_fold
from coeval.aggregations.states import Storage
from coeval.aggregations.tiles import tile_plan
from coeval.online.keys import data_key
from coeval.online.layout import encode_tiles, ring_offset
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import is_late
from coeval.spec.manifest import with_version
from coeval.spec.model import RowView, View, WindowedView
from coeval.spec.records import Event, Reason, parse_record
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_parity.refused import _as_event
from coeval_parity.replay import Span, run_replay
from coeval_parity.result import Cause, ParityResult, Suspect
from coeval_pipelines.catalog.expressions import parse_condition
from tests.faults.world import PAYEES, refusable
from tests.support import online
from tests.support.events import expected_tiles
from tests.support.online import _tiles, updates, write
from tests.support.parity_world import CUT, SINCE, Kept, World, keep_served, serve

ENTITIES: dict[str, list[object]] = {"card_id": [0, 1, 2, 3, 4, 5], "merchant_id": ["m-1"] * 6, "payee_id": [0] * 6}
Inject = Callable[[World, random.Random], None]
Check = Callable[[World], ParityResult]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken, how, what parity must call it, and the check that has to find it."""

    name: str
    label: str
    inject: Inject
    check: Check


def state(world: World) -> ParityResult:
    """State parity of everything."""
    return world.parity()


def replay(world: World) -> ParityResult:
    """Replay parity of everything that was served."""
    return run_replay(world.settings, world.manifest, Span(), ingest=False, wanted="local")


def _streamed(world: World) -> list[Event]:
    """What only the stream can have delivered, on time for every tile."""
    hops = (5 * MINUTE, HOUR, DAY)
    recent = [event for event in world.visible if event.event_ts > CUT + 2 * DAY]
    return [e for e in recent if not any(is_late(e, hop, world.source.allowed_lateness) for hop in hops)]


def _some(world: World, rng: random.Random, least: int = 1) -> list[Event]:
    """A thousandth of the events, and at least a few, that matter at the read: of the last week."""
    recent = [event for event in _streamed(world) if event.event_ts > world.q - 7 * DAY]
    return rng.sample(recent, max(least, len(world.visible) // 1000))


def sound(world: World, rng: random.Random) -> None:
    """Nothing is broken."""
    del rng
    world.fill(world.visible)


def dropped(world: World, rng: random.Random) -> None:
    """The sink drops one event in a thousand."""
    gone = {event.order for event in _some(world, rng, 2)}
    world.fill([event for event in world.visible if event.order not in gone])


def twice(world: World, rng: random.Random) -> None:
    """Events are applied twice."""
    world.fill([*world.visible, *_some(world, rng, 2)])


def off_by_one(world: World, rng: random.Random) -> None:
    """A scratch build puts every event into the tile after its own."""
    del rng
    world.fill([], world.visible)
    writer = OnlineWriter(world.client, world.manifest.tenant)
    for view in world.manifest.views.values():
        if isinstance(view, RowView):
            write(writer, view, updates(view, world.manifest, world.visible))
            continue
        plan = tile_plan(view, world.source)
        for item in plan.granularities:
            later = [replace(event, event_ts=event.event_ts + item.hop) for event in world.visible]
            tiles = expected_tiles(view, world.source, later, item.hop, SINCE)
            write(writer, view, encode_tiles(plan, item.hop, _tiles(view, item, tiles), 0))


def wrong_zone(world: World, rng: random.Random) -> None:
    """The stream reads event times two hours off."""
    del rng
    moved = [replace(event, event_ts=event.event_ts + 2 * HOUR) for event in world.visible]
    world.fill(moved, world.visible)


def late_burst(world: World, rng: random.Random) -> None:
    """A producer was cut off: a fifth of the last week's events came a day and a half late."""
    recent = [event for event in _streamed(world) if world.q - 7 * DAY < event.event_ts < world.q - 2 * DAY]
    burst = {event.order for event in rng.sample(recent, max(5, len(recent) // 5))}
    events = [_later(event) if event.order in burst else event for event in world.events]
    world.logged = replace(world.logged, good=tuple(events))
    world.log()
    world.fill(world.visible)


def _later(event: Event) -> Event:
    return replace(event, available_at=event.available_at + 36 * HOUR)


def stopped(world: World, rng: random.Random) -> None:
    """The sink stopped two days ago; views promise an hour."""
    del rng
    prompt = [replace(view, sla=replace(view.sla, freshness=HOUR)) for view in world.manifest.views.values()]
    world.manifest = replace(
        world.manifest,
        windowed_views=tuple(view for view in prompt if isinstance(view, WindowedView)),
        row_views=tuple(view for view in prompt if isinstance(view, RowView)),
    )
    until = world.q - 2 * DAY
    covered = [event for event in world.visible if event.available_at < until]
    world.certified = {part: max(e.offset for e in covered if e.partition == part) + 1 for part in (0, 1)}
    world.fill(covered)


def no_ttl(world: World, rng: random.Random) -> None:
    """A server reads rows without their ttl."""
    del rng
    world.fill(world.visible)
    forever = replace(world.manifest, row_views=tuple(replace(view, ttl=0) for view in world.manifest.row_views))
    kept = Kept()
    serve(world, kept, ENTITIES, world.q + 3 * DAY, manifest=forever)
    keep_served(world, kept)


def other_definition(world: World, rng: random.Random) -> None:
    """The store is filled by another version of two views, which was deployed once."""
    del rng
    others = tuple(_other(world, view) for view in world.manifest.views.values())
    former = replace(
        world.manifest,
        windowed_views=tuple(view for view in others if isinstance(view, WindowedView)),
        row_views=tuple(view for view in others if isinstance(view, RowView)),
    )
    world.fill(world.visible, views=others)
    with world.control() as control:
        control.save_manifest(former, 1)
        for view in others:
            control.deploy(view.name, view.version, former.hash, SINCE, SINCE)


def _other(world: World, view: View) -> View:
    where = parse_condition("test", "amount IS NOT NULL", world.source.fields)
    return with_version(replace(view, where=where), world.source)


@contextmanager
def _doubles() -> Iterator[None]:
    """States are added as doubles in the unit that people write."""
    online.fold = _float_fold
    try:
        yield
    finally:
        online.fold = exact_fold


def _float_fold(component: Component, values: Sequence[tuple[object, object]]) -> int | float:
    unit = {"amount": 100, "fee": 1000}.get(component.column)
    if unit is None or not isinstance(component.op, Additive) or component.storage is Storage.FLOAT:
        return exact_fold(component, values)  # type: ignore[arg-type]
    total = sum(component.op.lift(value) / unit for _, value in values)  # type: ignore[arg-type]
    return int(total * unit)


def as_floats(world: World, rng: random.Random) -> None:
    """The stream adds decimals as doubles; a few amounts are such as doubles do not have."""
    odd = {event.order for event in _some(world, rng, 4)}
    cents = [replace(e, values={**e.values, "amount": 29}) if e.order in odd else e for e in world.events]
    world.logged = replace(world.logged, good=tuple(cents))
    world.log()
    world.fill([], world.visible)
    with _doubles():
        for view in world.manifest.views.values():
            world.stream(view, view, world.visible)


def swapped_keys(world: World, rng: random.Random) -> None:
    """The stream takes the keys of two cards for one another."""
    one, other = rng.sample(range(3), 2)
    swap = {one: other, other: one}
    moved = [
        replace(event, values={**event.values, "card_id": swap.get(event.values["card_id"], event.values["card_id"])})  # type: ignore[call-overload]
        for event in world.visible
    ]
    world.fill(moved, world.visible)


def swapped_columns(world: World, rng: random.Random) -> None:
    """The stream takes the columns of a key for one another."""
    del rng
    world.fill([], world.visible)
    for view in world.manifest.views.values():
        built = replace(view, key=view.key[::-1]) if view.name == PAYEES else view
        world.stream(view, built, world.visible)


def corrupted(world: World, rng: random.Random) -> None:
    """A bit of a stored sum is another."""
    world.fill(world.visible)
    view = world.manifest.views["card_spend"]
    assert isinstance(view, WindowedView)
    plan = tile_plan(view, world.source)
    item = plan.granularity(DAY)
    for card in rng.sample(range(4), 2):
        name = data_key(world.manifest.tenant, view, f"i{card}")
        blob = world.client.get(name)
        assert isinstance(blob, bytes)
        start, size = ring_offset(plan, DAY), item.dtype.itemsize
        slots = [blob[at : at + size] for at in range(start, start + size * item.slots, size)]
        newest = max(range(len(slots)), key=lambda index: slots[index][:8])
        assert item.dtype.fields is not None
        at = start + newest * size + item.dtype.fields["sum_amount"][1] + rng.randrange(3)
        world.client.set(name, blob[:at] + bytes([blob[at] ^ 1 << rng.randrange(8)]) + blob[at + 1 :])


def lost_write(world: World, rng: random.Random) -> None:
    """The writes of a few tiles and rows never reach the store."""
    chosen = {event.order for event in _some(world, rng, 3)}
    world.fill([], world.visible)
    others = [event for event in world.visible if event.order not in chosen]
    writer = OnlineWriter(world.client, world.manifest.tenant)
    for view in world.manifest.views.values():
        unconcerned = {(item.key, item.payload) for item in updates(view, world.manifest, others, SINCE)}
        found = updates(view, world.manifest, world.visible, SINCE)
        write(writer, view, [item for item in found if (item.key, item.payload) in unconcerned])


def server_clock(world: World, rng: random.Random) -> None:
    """A server's clock is six hours behind the broker's."""
    del rng
    world.fill(world.visible)
    kept = Kept()
    serve(world, kept, ENTITIES, world.q, clock=-6 * HOUR)
    keep_served(world, kept)


def at_their_word(world: World, rng: random.Random) -> None:
    """The stream takes producers' clocks that are four minutes ahead at their word."""
    edges = [world.q - window for window in (HOUR, DAY, 7 * DAY)]
    ahead = {event.order: edges[number % 3] for number, event in enumerate(_some(world, rng, 9))}
    events = [_ahead(event, ahead[event.order]) if event.order in ahead else event for event in world.events]
    world.logged = replace(world.logged, good=tuple(events))
    world.log()
    moved = [replace(event, event_ts=max(event.event_ts, event.declared_ts)) for event in world.visible]
    world.fill(moved, world.visible)


def _ahead(event: Event, edge: int) -> Event:
    """The event as it happened a minute before an edge, and claims to have three minutes after it."""
    return replace(event, event_ts=edge - MINUTE, available_at=edge - MINUTE, declared_ts=edge + 3 * MINUTE)


def accepted(world: World, rng: random.Random) -> None:
    """The stream counts records that the log rejects, a few of them of the last week."""
    odd = [refusable(event, number, ENTITIES) for number, event in enumerate(_some(world, rng, 3))]
    refused = [(record, parse_record(world.source, record)) for record in odd]
    rejected = [(record, reason) for record, reason in refused if isinstance(reason, Reason)]
    world.logged = replace(world.logged, rejected=(*world.logged.rejected, *rejected))
    world.log()
    more: list[Event] = []
    for record, _ in world.logged.rejected:
        event = _as_event(world.source, record)
        if event and all(event.values[name] is not None for name in ENTITIES):
            more.append(event)
    world.fill([*world.visible, *(event for event in more if event.available_at < world.q)], world.visible)


FAULTS = (
    Fault("events dropped at the sink", Suspect.LOST_UPDATE, dropped, state),
    Fault("events applied twice", Suspect.APPLIED_TWICE, twice, state),
    Fault("window off by one", Suspect.SHIFTED_WINDOW, off_by_one, state),
    Fault("wrong time zone", Suspect.SHIFTED_TIME, wrong_zone, state),
    Fault("late burst", Cause.LATE, late_burst, state),
    Fault("sink stopped", Cause.STALE, stopped, state),
    Fault("ttl not enforced", Cause.TTL, no_ttl, replay),
    Fault("another version deployed", Cause.DEFINITION, other_definition, state),
    Fault("decimals as doubles", Suspect.FLOAT_ROUNDING, as_floats, state),
    Fault("keys swapped", Suspect.WRONG_KEY, swapped_keys, state),
    Fault("key columns swapped", Suspect.WRONG_KEY, swapped_columns, state),
    Fault("slot corrupted", Suspect.CORRUPTED_STATE, corrupted, state),
    Fault("write lost", Suspect.LOST_UPDATE, lost_write, state),
    Fault("server's clock behind", Cause.CLOCK, server_clock, replay),
    Fault("producers' clocks believed", Cause.CLOCK, at_their_word, state),
    Fault("rejects accepted", Cause.REJECTED, accepted, state),
)
