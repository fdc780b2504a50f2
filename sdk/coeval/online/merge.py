"""From stored tiles to features at an instant: decode, mask, merge, finalise. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import COUNT_OP, Component, Finalised
from coeval.aggregations.states import Ints, Mask, Numbers
from coeval.aggregations.tiles import aggregate_column, tile_plan
from coeval.online.layout import NO_FLOOR, TILE_BIAS, Tiles, decode_tiles
from coeval.online.result import Column, MadeBlock, Status
from coeval.spec.model import Aggregate, EventSource, Field, WindowedView
from coeval.spec.time import floor_to
from coeval.spec.types import Kind

T = TypeVar("T")


class WindowCodec:
    """How a windowed view's tiles become its features: worked out once, then used for every read."""

    def __init__(self, view: WindowedView, source: EventSource) -> None:
        self.plan = tile_plan(view, source)
        self._source = source
        self._features = {
            aggregate.feature: (aggregate, field)
            for aggregate, field in zip(view.aggregates, view.features, strict=True)
        }

    def read(
        self, blobs: Sequence[bytes | None], features: Sequence[str], doubted: Sequence[bool], q: int
    ) -> MadeBlock:
        """Features of some keys at q (microseconds UTC); of what is `doubted`, no value may be believed."""
        merge = _Merge(self._source, decode_tiles(self.plan, blobs), q)
        unknown = merge.tiles.unknown | np.asarray(doubted) if doubted else merge.tiles.unknown
        event_ts = np.where(unknown, 0, merge.tiles.last_event_ts)
        columns = {name: merge.column(*self._features[name], unknown) for name in features}
        return MadeBlock(columns, event_ts)


class _Merge:
    """One read: what several features need of the same tiles is computed once."""

    def __init__(self, source: EventSource, tiles: Tiles, q: int) -> None:
        self.tiles = tiles
        self._source = source
        self._q = q
        self._known: dict[Hashable, Any] = {}

    def column(self, aggregate: Aggregate, field: Field, unknown: Mask) -> Column:
        finalised = self._finalised(aggregate)
        status = np.where(finalised.null, Status.NULL, Status.PRESENT).astype(np.int8)
        status[finalised.overflow] = Status.OVERFLOW
        status[~self.tiles.stored] = Status.NOT_FOUND
        status[unknown] = Status.UNAVAILABLE
        return Column(field.type, finalised.values, finalised.null | unknown, status)

    def _finalised(self, aggregate: Aggregate) -> Finalised:
        window = (aggregate.hop, aggregate.window)
        mask, index, events = self._once(window, lambda: self._live(aggregate))
        ring = self.tiles.rings[aggregate.hop]
        column = aggregate_column(aggregate, self._source)
        if column is not None:
            counted = Component(COUNT_OP, column.name).name
            # A tile may hold events without a value of this column: its other components then mean nothing.
            mask = self._once((*window, counted), lambda: mask & (ring[counted] > 0))
        state: dict[str, Numbers] = {}
        for item in AGGREGATIONS[aggregate.function].components(column):
            reduce = partial(item.op.reduce, ring[item.name], mask, index)
            state[item.op.name] = self._once((*window, "reduced", item.name), reduce)
        return AGGREGATIONS[aggregate.function].finalise(events, state, column.type if column else None)

    def _live(self, aggregate: Aggregate) -> tuple[Mask, Ints, Ints]:
        """Which slots count, the tile in each, and the events counted per key."""
        tiles, ring, q = self.tiles, self.tiles.rings[aggregate.hop], self._q
        oldest = floor_to(q - aggregate.window, aggregate.hop) // aggregate.hop
        newest = (q - 1) // aggregate.hop
        index = self._once(aggregate.hop, lambda: ring["tile"].astype(np.int64) - TILE_BIAS)
        mask: Mask = (index >= oldest) & (index <= newest)
        if (tiles.floor != NO_FLOOR).any():
            below: Mask = index <= (tiles.floor // aggregate.hop)[:, None]
            # Tiles that may hold what was erased: written before the erasure, of a time up to the floor.
            mask &= ~(below & (ring["epoch"].astype(np.int64) <= tiles.floor_epoch[:, None]))
        return mask, index, np.where(mask, ring["events"].astype(np.int64), 0).sum(axis=1)

    def _once(self, name: Hashable, compute: Callable[[], T]) -> T:
        if name not in self._known:
            self._known[name] = compute()
        found: T = self._known[name]
        return found


def unavailable(field: Field, rows: int) -> Column:
    """A column of a view that cannot be believed now: no value at all."""
    return Column(
        field.type,
        np.zeros(rows, dtype=object if field.type.kind is Kind.STRING else np.int64),
        np.ones(rows, dtype=bool),
        np.full(rows, Status.UNAVAILABLE, dtype=np.int8),
    )
