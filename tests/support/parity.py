"""What a store would hold of one windowed feature, computed in plain Python: for tests of explanations.

And what holds of every result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from coeval.aggregations.tiles import tile_plan
from coeval.reference.oracle import value_at
from coeval.spec.model import EventSource, WindowedView
from coeval.spec.records import Event
from coeval.spec.types import Physical
from coeval_parity.evidence import Case, Slot, Stored, components_of, fold
from coeval_parity.result import Cause, FeatureParity

Holds = Callable[[Event], bool]


def stored_tiles(
    view: WindowedView, source: EventSource, feature: str, events: Sequence[Event], epoch: int = 0
) -> Stored:
    """The tiles of a feature's granularity that hold exactly these events."""
    aggregate = next(item for item in view.aggregates if item.feature == feature)
    components = tile_plan(view, source).granularity(aggregate.hop).components
    assert set(components_of(aggregate, source)) <= set(components)
    tiles: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        tiles[event.event_ts // aggregate.hop].append(event)
    slots = {tile: Slot(tile, epoch, len(mine), fold(components, mine)) for tile, mine in tiles.items()}
    return Stored({aggregate.hop: slots})


def case(
    view: WindowedView,
    source: EventSource,
    feature: str,
    key: tuple[Physical, ...],
    q: int,
    log: Sequence[Event],
    held: Sequence[Event],
) -> Case:
    """The difference of a feature whose store holds `held` of the events of `log`."""
    return Case(
        view=view,
        source=source,
        feature=feature,
        key=key,
        q=q,
        served=value_at(view, source, held, key, q)[feature].value,
        expected=value_at(view, source, log, key, q)[feature].value,
        stored=stored_tiles(view, source, feature, held),
        events=log,
    )


def tampered(original: Case, change: int) -> Case:
    """The case after somebody added to one stored tile's sum: the served value moves by as much."""
    (hop, slots), *_ = original.stored.tiles.items()
    tile, slot = max(slots.items())
    states = {name: state + change if name.startswith("sum") else state for name, state in slot.states.items()}
    assert isinstance(original.served, int)
    edited = Stored({hop: {**slots, tile: replace(slot, states=states)}})
    return replace(original, stored=edited, served=original.served + change)


def adds_up(feature: FeatureParity) -> None:
    """The hours of a feature are all of its values, each once."""
    causes: Counter[Cause] = Counter()
    for hour in feature.hours:
        assert hour.compared == hour.matched + sum(hour.causes.values())
        causes.update(hour.causes)
    assert sum(hour.compared for hour in feature.hours) == feature.compared
    assert sum(hour.matched for hour in feature.hours) == feature.matched + feature.within_tolerance
    assert causes == Counter(feature.causes)
