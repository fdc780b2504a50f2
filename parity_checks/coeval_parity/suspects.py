"""What may be behind a difference that no rule allows: a defect, named only if it gives what is stored exactly. Pure.

A suspect excuses nothing: the difference stays unexplained. It tells whoever looks for the defect where to begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from coeval.aggregations.ops import Additive
from coeval.aggregations.partial import Component
from coeval.aggregations.states import Storage
from coeval.reference.oracle import is_visible
from coeval.spec.model import EventSource, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import HOUR, MINUTE, duration, floor_to
from coeval_parity.evidence import Case, Delivery, Order, Slot, fold, holds
from coeval_parity.omissions import TileEvidence
from coeval_parity.result import Suspect
from coeval_parity.verdicts import plural

_FEW = 12
"""Events of a tile up to which pairs of them are tried."""
_SIMPLE = 3
"""Lost events up to which no other suspect is looked for."""
_ZONES = tuple(sign * step * 15 * MINUTE for step in range(1, 57) for sign in (1, -1))
"""How far clocks that tell the time of another zone are off: quarters of an hour, up to 14 hours."""

Tiles = Callable[[Case, Sequence[Event]], Iterable[TileEvidence]]
Gives = Callable[[Case, Sequence[Event]], bool]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A suspect, and its proof in words."""

    suspect: Suspect
    proof: str


@dataclass(frozen=True)
class Scene:
    """What suspicions are tried on. `tiles_of` gives the tiles of a case with other events, `gives` whether these make
    the served value."""

    case: Case
    delivery: Delivery
    visible: Sequence[Event]
    tiles: Sequence[TileEvidence]
    tiles_of: Tiles
    gives: Gives

    @cached_property
    def wrong(self) -> list[TileEvidence]:
        """The tiles that do not hold what they should."""
        return [tile for tile in self.tiles if not tile.sound]

    def reproduced(self, events: Sequence[Event]) -> bool:
        """Whether the store holds exactly what the rules make of other events, and the served value is theirs."""
        if not self._has_room_for(events):
            return False
        tiles: list[TileEvidence] = []
        for tile in self.tiles_of(self.case, events):
            if not tile.sound:
                return False
            tiles.append(tile)
        if tiles and all(tile.slot is None for tile in tiles):
            return False
        gone = {order for tile in tiles for order in tile.omitted}
        return self.gives(self.case, [event for event in events if event.order not in gone])

    def _has_room_for(self, events: Sequence[Event]) -> bool:
        """Whether there are as many events in each tile as it says that it holds; which rules most out at once."""
        assert isinstance(self.case.view, WindowedView)
        hop = self.case.view.aggregates[0].hop
        wanted = {tile.index: tile.slot.events for tile in self.tiles if tile.slot}
        found = Counter(event.event_ts // hop for event in events)
        return all(found[index] >= count for index, count in wanted.items())


def suspicion(scene: Scene) -> Suspicion | None:
    """The first defect that gives exactly what is stored and served; None where no known one does."""
    tried = _WINDOWED if isinstance(scene.case.view, WindowedView) else _ROWS
    return next((found for find in tried for found in find(scene)), None)


def _lost(scene: Scene) -> Iterator[Suspicion]:
    gone: list[Event] = []
    for tile in scene.wrong:
        lost = _missing(tile)
        if lost is None:
            return
        gone += lost
    orders = {event.order for event in gone}
    if gone and scene.gives(scene.case, [event for event in _kept(scene) if event.order not in orders]):
        first = min(gone, key=lambda event: event.available_at)
        yield Suspicion(
            Suspect.LOST_UPDATE,
            f"Leaving out {plural(len(gone))} that the store has to hold gives exactly what it does: the first is "
            f"{first.event_id or 'a row'} in partition {first.partition}, offset {first.offset}.",
        )


def _few_lost(scene: Scene) -> Iterator[Suspicion]:
    """So few lost events are likelier than all that moves every event and happens to look like it."""
    if sum(max(0, len(tile.kept) - (tile.slot.events if tile.slot else 0)) for tile in scene.wrong) <= _SIMPLE:
        yield from _lost(scene)


def _missing(tile: TileEvidence) -> list[Event] | None:
    """The fewest events without which a tile is what is stored."""
    kept = sorted(tile.kept, key=lambda event: event.order[1:])
    if tile.slot is None:
        return kept
    lacking = len(kept) - tile.slot.events
    if lacking <= 0:
        return None
    # An old state: what came last is not in it.
    ways: list[tuple[Event, ...]] = [(event,) for event in kept] if lacking == 1 else [tuple(kept[-lacking:])]
    if lacking > 1 and len(kept) <= _FEW:
        ways += combinations(kept, lacking)
    return next((list(way) for way in ways if _without(tile, way)), None)


def _without(tile: TileEvidence, gone: Sequence[Event]) -> bool:
    orders = {event.order for event in gone}
    return holds(tile.slot, tile.components, [event for event in tile.kept if event.order not in orders])


def _twice(scene: Scene) -> Iterator[Suspicion]:
    again: list[Event] = []
    for tile in scene.wrong:
        more = _repeated(scene.case, tile)
        if more is None:
            return
        again += more
    if again and scene.gives(scene.case, sorted([*_kept(scene), *again], key=lambda event: event.order)):
        first = again[0]
        yield Suspicion(
            Suspect.APPLIED_TWICE,
            f"Counting {plural(len(again))} twice gives exactly what is stored: the first is {first.event_id} in "
            f"partition {first.partition}, offset {first.offset}.",
        )


def _repeated(case: Case, tile: TileEvidence) -> list[Event] | None:
    more = (tile.slot.events if tile.slot else 0) - len(tile.kept)
    if more <= 0:
        return None
    assert isinstance(case.view, WindowedView)
    hop = case.view.aggregates[0].hop
    again = [event for event in case.duplicates if event.event_ts // hop == tile.index and event.available_at < case.q]
    candidates = [*again, *tile.kept]
    ways = (
        [(event,) for event in candidates] if more == 1 else [*combinations(candidates[:_FEW], more), tuple(tile.kept)]
    )
    return next((list(way) for way in ways if holds(tile.slot, tile.components, [*tile.kept, *way])), None)


def _shifted_window(scene: Scene) -> Iterator[Suspicion]:
    """Tiles that begin one hop too early or too late, or that hold what happened when the next one began."""
    assert isinstance(scene.case.view, WindowedView)
    hop = scene.case.view.aggregates[0].hop
    for step in (hop, -hop):
        if scene.reproduced(_moved(scene, step)):
            way = "later" if step > 0 else "earlier"
            yield Suspicion(Suspect.SHIFTED_WINDOW, f"Events put one {duration(hop)} tile {way} give what is stored.")
    if any(event.event_ts % hop == 0 for event in scene.visible) and scene.reproduced(_edges(scene, hop)):
        proof = f"Events on the edge of two {duration(hop)} tiles, put into the earlier one, give what is stored."
        yield Suspicion(Suspect.SHIFTED_WINDOW, proof)


def _edges(scene: Scene, hop: int) -> list[Event]:
    def change(event: Event) -> Event:
        return replace(event, event_ts=event.event_ts - (event.event_ts % hop == 0))

    return as_streamed(scene.case, scene.delivery, scene.visible, change)


def _shifted_time(scene: Scene) -> Iterator[Suspicion]:
    for step in _ZONES:
        if scene.reproduced(_moved(scene, step)):
            hours = f"{step / HOUR:+.2f}".rstrip("0").rstrip(".")
            yield Suspicion(Suspect.SHIFTED_TIME, f"Event times read {hours} h off give exactly what is stored.")
            return


def _moved(scene: Scene, step: int) -> list[Event]:
    """The events as a stream has them that reads their times so far off."""

    def change(event: Event) -> Event:
        return replace(event, event_ts=event.event_ts + step)

    return as_streamed(scene.case, scene.delivery, scene.visible, change)


def as_streamed(
    case: Case, delivery: Delivery, visible: Sequence[Event], change: Callable[[Event], Event]
) -> list[Event]:
    """The events that tiles are made of where the stream has changed ones: what batch wrote stays as it is.

    What would lie ahead of the read is in tiles that readers mask.
    """
    own = [event for event in visible if is_of_batch(case, delivery, event)]
    assert isinstance(case.view, WindowedView)
    hop = case.view.aggregates[0].hop
    there = [changed for changed in map(change, visible) if changed.event_ts // hop <= (case.q - 1) // hop]
    # Where batch has nothing to write, what the stream put there stays.
    written = {event.event_ts // hop for event in own}
    since = delivery.since if delivery.since is not None else case.q
    streamed = [
        event
        for event in there
        if not is_of_batch(case, delivery, event)
        or (event.event_ts // hop not in written and floor_to(event.event_ts, hop) >= since)
    ]
    return sorted([*own, *streamed], key=lambda event: event.order)


def is_of_batch(case: Case, delivery: Delivery, event: Event) -> bool:
    """Whether batch has to deliver the tile of an event."""
    assert isinstance(case.view, WindowedView)
    assert isinstance(case.source, EventSource)
    if delivery.load_cut is None:
        return False
    final = floor_to(delivery.load_cut - case.source.allowed_lateness, case.view.aggregates[0].hop)
    return event.event_ts < final


def _wrong_key(scene: Scene) -> Iterator[Suspicion]:
    if not any(tile.slot for tile in scene.wrong):
        return  # what is not there is nobody's
    for name, events in scene.case.others:
        seen = [event for event in events if is_visible(scene.case.view, event, scene.case.q)]
        own = [event for event in scene.visible if is_of_batch(scene.case, scene.delivery, event)]
        mixed = [*own, *(event for event in seen if not is_of_batch(scene.case, scene.delivery, event))]
        ways = [way for way in (seen, mixed) if way and way != own]
        if any(scene.reproduced(sorted(way, key=lambda event: event.order)) for way in ways):
            yield Suspicion(Suspect.WRONG_KEY, f"What is stored under this key is exactly what {name} should hold.")


def _float(scene: Scene) -> Iterator[Suspicion]:
    if scene.wrong and all(_rounded(tile) for tile in scene.wrong):
        yield Suspicion(
            Suspect.FLOAT_ROUNDING,
            f"Adding the same events as doubles gives exactly what {len(scene.wrong)} tiles hold.",
        )


def _rounded(tile: TileEvidence) -> bool:
    slot = tile.slot
    if slot is None or slot.events != len(tile.kept):
        return False
    folded = fold(tile.components, tile.kept)
    differing = [item for item in tile.components if slot.states[item.name] != folded[item.name]]
    return bool(differing) and all(_is_float_sum(item, slot, tile.kept) for item in differing)


def _is_float_sum(component: Component, slot: Slot, events: Sequence[Event]) -> bool:
    if not isinstance(component.op, Additive) or component.storage is Storage.FLOAT:
        return False
    ordered = sorted(events, key=lambda event: event.order)
    delivered = sorted(events, key=lambda event: event.order[1:])
    for sequence in (ordered, delivered):
        values = [event.values[component.column] for event in sequence]
        lifted = [component.op.lift(value) for value in values if value is not None]
        for unit in (1, 100, 1000, 10**6):
            total = sum((value / unit for value in lifted), 0.0)
            if slot.states[component.name] in (round(total * unit), int(total * unit)):
                return True
    return False


def _corrupted(scene: Scene) -> Iterator[Suspicion]:
    """Tiles that say that they hold as many events as they should, and other values."""
    wrong = scene.wrong
    if wrong and all(tile.slot is not None and tile.slot.events == len(tile.kept) for tile in wrong):
        yield Suspicion(
            Suspect.CORRUPTED_STATE,
            f"{plural(len(wrong), 'stored tile')} with as many events as there should be, and other values: with what "
            "the log says instead, the value is what training would use.",
        )


def _kept(scene: Scene) -> list[Event]:
    gone = {order for tile in scene.tiles for order in tile.omitted}
    return [event for event in scene.visible if event.order not in gone]


def _lost_row(scene: Scene) -> Iterator[Suspicion]:
    stored, visible = scene.case.stored.row, scene.visible
    if stored is None and visible:
        yield Suspicion(Suspect.LOST_UPDATE, "The log has a row that the store has to hold, and it holds none.")
    older = [event for event in visible if stored is not None and event.order <= stored]
    if older and older[-1].order == stored and len(older) < len(visible) and scene.gives(scene.case, older):
        lost = visible[len(older)]
        yield Suspicion(
            Suspect.LOST_UPDATE,
            f"Leaving out {plural(len(visible) - len(older), 'row')} that the store has to hold gives exactly the "
            f"served value: the first is in partition {lost.partition}, offset {lost.offset}.",
        )


def _corrupted_row(scene: Scene) -> Iterator[Suspicion]:
    if scene.visible and scene.visible[-1].order == scene.case.stored.row:
        yield Suspicion(Suspect.CORRUPTED_STATE, "The stored row claims the right event, and holds other values.")


def _shifted_row(scene: Scene) -> Iterator[Suspicion]:
    """The stored row is an event of the log, but for its time."""
    stored = scene.case.stored.row
    if stored is None:
        return
    for event in scene.visible:
        step = stored[0] - event.event_ts
        if event.order[2:] == stored[2:] and step in _ZONES and scene.gives(scene.case, [event]):
            proof = f"The stored row is the event at that offset, its time read {step / HOUR:+g} h off."
            yield Suspicion(Suspect.SHIFTED_TIME, proof)


def _wrong_key_row(scene: Scene) -> Iterator[Suspicion]:
    stored: Order | None = scene.case.stored.row
    for name, events in scene.case.others:
        if stored is not None and any(event.offset == stored[3] and event.order == stored for event in events):
            yield Suspicion(Suspect.WRONG_KEY, f"The stored row is one of {name}.")


_WINDOWED = (_few_lost, _shifted_window, _shifted_time, _wrong_key, _lost, _twice, _float, _corrupted)
_ROWS = (_wrong_key_row, _shifted_row, _lost_row, _corrupted_row)
