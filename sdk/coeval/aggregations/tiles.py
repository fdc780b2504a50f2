"""The tile plan of a windowed view: which granularities, how many slots, which components. Pure: a printable value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import Component
from coeval.spec.model import Aggregate, EventSource, Field, WindowedView, with_columns
from coeval.spec.time import ceil_to, duration, floor_to

SPARE_SLOTS = 2
"""One for the open tile, one so that a producer's clock ahead at a boundary does not evict a live tile."""


@dataclass(frozen=True)
class Granularity:
    """Tiles of one length: `slots` of them are kept per key, each with the events counted and these components."""

    hop: int
    slots: int
    components: tuple[Component, ...]

    @property
    def name(self) -> str:
        """5m, 1h, 24h."""
        return duration(self.hop)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """A stored slot: the guard (tile, epoch, events; big-endian, so that a Lua script can read it), then state."""
        guard: list[tuple[str, object]] = [("tile", ">u8"), ("epoch", ">u4"), ("events", ">u4")]
        return np.dtype(guard + [(item.name, item.dtype) for item in self.components])

    def first_owned(self, since: int) -> int:
        """The index of the first tile that starts at or after `since`."""
        return ceil_to(since, self.hop) // self.hop

    def final_before(self, cut: int, lateness: int) -> int:
        """The index of the first tile that is not final at `cut` (its end plus the allowed lateness is beyond it)."""
        return floor_to(cut - lateness, self.hop) // self.hop


@dataclass(frozen=True, slots=True)
class TilePlan:
    """The granularities of a view, coarse first, and what one key costs at most."""

    view: str
    granularities: tuple[Granularity, ...]

    @property
    def bytes_per_key(self) -> int:
        """Bytes of state of a key whose every slot is in use, header left out."""
        return sum(item.slots * item.dtype.itemsize for item in self.granularities)

    def granularity(self, hop: int) -> Granularity:
        """The granularity of that hop."""
        return next(item for item in self.granularities if item.hop == hop)


def aggregate_column(aggregate: Aggregate, source: EventSource) -> Field | None:
    """The source field that an aggregate reads; None for a count of events."""
    return source.field(aggregate.column) if aggregate.column else None


@lru_cache(maxsize=1024)
def tile_plan(view: WindowedView, source: EventSource) -> TilePlan:
    """Plan a view's tiles: per hop, a ring as long as its longest window, with the components its aggregates need."""
    source = with_columns(source, view)
    hops = sorted({aggregate.hop for aggregate in view.aggregates}, reverse=True)
    return TilePlan(view.name, tuple(_granularity(view, source, hop) for hop in hops))


def _granularity(view: WindowedView, source: EventSource, hop: int) -> Granularity:
    mine = [aggregate for aggregate in view.aggregates if aggregate.hop == hop]
    components: dict[str, Component] = {}
    for aggregate in mine:
        for component in AGGREGATIONS[aggregate.function].components(aggregate_column(aggregate, source)):
            components.setdefault(component.name, component)
    slots = max(aggregate.window for aggregate in mine) // hop + SPARE_SLOTS
    return Granularity(hop, slots, tuple(components[name] for name in sorted(components)))
