"""From stored tiles to features at an instant: decode, mask, merge, finalise. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import COUNT_OP, Component, Finalised
from coeval.aggregations.states import Ints, Mask, Numbers
from coeval.aggregations.tiles import aggregate_column, tile_plan
from coeval.online.layout import NO_FLOOR, TILE_BIAS, Tiles, decode_tiles
from coeval.online.result import Column, MadeBlock, Status
from coeval.spec.model import Aggregate, EventSource, Field, WindowedView
from coeval.spec.time import floor_to
from coeval.spec.types import DataType, Kind

T = TypeVar("T")


class WindowCodec:
    """How a windowed view's tiles become its features: worked out once, then used for every read."""

    def __init__(self, view: WindowedView, source: EventSource) -> None:
        self.plan = tile_plan(view, source)
        self._features = {
            aggregate.feature: _Feature.of(aggregate, field, source)
            for aggregate, field in zip(view.aggregates, view.features, strict=True)
        }

    def read(
        self, blobs: Sequence[bytes | None], features: Sequence[str], doubted: Sequence[bool], q: int
    ) -> MadeBlock:
        """Features of some keys at q (microseconds UTC); of what is `doubted`, no value may be believed."""
        tiles = decode_tiles(self.plan, blobs)
        unknown = tiles.unknown | np.asarray(doubted) if doubted else tiles.unknown
        merge = _Merge(tiles, q, unknown)
        columns = {name: merge.column(self._features[name]) for name in features}
        return MadeBlock(columns, np.where(unknown, 0, tiles.last_event_ts))


class _Feature(NamedTuple):
    """What a feature is made of: the components of its tiles, by the names that they have there."""

    aggregate: Aggregate
    field: Field
    finalise: Callable[..., Finalised]
    column: DataType | None
    counted: str
    components: tuple[tuple[str, str, Callable[..., Numbers]], ...]
    """Name in the tiles, name of the operation, and how it is reduced."""

    @staticmethod
    def of(aggregate: Aggregate, field: Field, source: EventSource) -> _Feature:
        column, aggregation = aggregate_column(aggregate, source), AGGREGATIONS[aggregate.function]
        return _Feature(
            aggregate,
            field,
            aggregation.finalise,
            column.type if column else None,
            Component(COUNT_OP, column.name).name if column else "",
            tuple((item.name, item.op.name, item.op.reduce) for item in aggregation.components(column)),
        )


class _Merge:
    """One read: what several features need of the same tiles is computed once."""

    def __init__(self, tiles: Tiles, q: int, unknown: Mask) -> None:
        self.tiles = tiles
        self._q = q
        self._unknown = unknown
        # Most reads find everything: then no feature need look again.
        self._all_known = not unknown.any()
        self._all_stored = bool(tiles.stored.all())
        self._nothing_erased = not (tiles.floor != NO_FLOOR).any()
        self._known: dict[Hashable, Any] = {}

    def column(self, feature: _Feature) -> Column:
        finalised = self._finalised(feature)
        # A boolean is the status already: PRESENT is 0, NULL is 1.
        null, status = finalised.null, finalised.null.astype(np.int8)
        if finalised.overflow.any():
            status[finalised.overflow] = Status.OVERFLOW
        if not self._all_stored:
            status[~self.tiles.stored] = Status.NOT_FOUND
        if not self._all_known:
            status[self._unknown] = Status.UNAVAILABLE
            null = null | self._unknown
        return Column(feature.field.type, finalised.values, null, status)

    def _finalised(self, feature: _Feature) -> Finalised:
        aggregate, known = feature.aggregate, self._known
        window = (aggregate.hop, aggregate.window)
        mask, index, events = self._once(window, lambda: self._live(aggregate))
        ring = self.tiles.rings[aggregate.hop]
        counted = feature.counted
        if counted:
            # A tile may hold events without a value of this column: its other components then mean nothing.
            mask = self._once((*window, counted), lambda: mask & (ring[counted] > 0))
        state: dict[str, Numbers] = {}
        for name, operation, reduce in feature.components:
            key = (*window, "reduced", name)
            if key not in known:
                known[key] = reduce(ring[name], mask, index)
            state[operation] = known[key]
        return feature.finalise(events, state, feature.column)

    def _live(self, aggregate: Aggregate) -> tuple[Mask, Ints, Ints]:
        """Which slots count, the tile in each, and the events counted per key."""
        tiles, ring, q = self.tiles, self.tiles.rings[aggregate.hop], self._q
        oldest = floor_to(q - aggregate.window, aggregate.hop) // aggregate.hop
        newest = (q - 1) // aggregate.hop
        index = self._once(aggregate.hop, lambda: ring["tile"].astype(np.int64) - TILE_BIAS)
        mask: Mask = (index >= oldest) & (index <= newest)
        if not self._nothing_erased:
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
