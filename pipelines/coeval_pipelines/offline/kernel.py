"""The interval kernel: every window of every spine row of many keys, in numpy. Pure; it knows no engine.

An event is visible to one contiguous range of its key's spine rows (sorted by q), however late it came: from the first
q > available_at up to, but without, the first q whose window begins after the event's tile. So an additive state is a
difference array and a cumulative sum, and a minimum, or the last event, is a range update of ranks; sawtooth and
availability need no special case. Sums are exact, of doubles too, so that nothing depends on how events are grouped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.ops import Additive, Counted, Extreme, Picked
from coeval.aggregations.partial import Component, Finalised
from coeval.aggregations.states import Ints, Mask, Numbers, Storage
from coeval.aggregations.tiles import aggregate_column
from coeval.spec.model import Aggregate, EventSource, WindowedView
from coeval_pipelines.offline.intervals import Ranges, chosen, covering, exact_sum, extreme, float_sum


@dataclass(frozen=True, slots=True)
class Values:
    """A column: physical values and where they are not null. Values under a null mean nothing.

    int64, float64, or Python integers in an object array for decimals of more than 18 digits.
    """

    values: Numbers
    valid: Mask


@dataclass(frozen=True, slots=True)
class Events:
    """Events of many keys, any order: key codes (>= 0), times in microseconds, columns by name.

    `position` (partitions, offsets) decides ties; only first and last ask for it.
    """

    key: Ints
    event_ts: Ints
    available_at: Ints
    columns: Mapping[str, Values]
    position: tuple[Ints, Ints] | None = None

    def ranks(self) -> Ints:
        """The place of each event in the total order."""
        assert self.position is not None
        partition, offset = self.position
        # lexsort: the last key is the primary one.
        order = np.lexsort((offset, partition, self.available_at, self.event_ts))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


@dataclass(frozen=True, slots=True)
class Spine:
    """The (key code, q) pairs to answer, any order, repeats included."""

    key: Ints
    q: Ints


@dataclass(frozen=True, slots=True)
class Grid:
    """Spine rows in (key, q) order. A time becomes its rank among the distinct q, so (key, rank) fits one int64."""

    order: NDArray[np.intp]
    instants: Ints
    cells: Ints

    @staticmethod
    def of(spine: Spine) -> Grid:
        """The grid of a spine."""
        instants, rank = np.unique(spine.q, return_inverse=True)
        cells = spine.key * (len(instants) + 1) + rank
        order = np.argsort(cells, kind="stable")
        return Grid(order, instants, cells[order])

    def first_row(self, key: Ints, time: Ints) -> NDArray[np.intp]:
        """Per event, the first row of its key with q >= time (one past the key's rows where there is none)."""
        rank = np.searchsorted(self.instants, time, side="left")
        return np.searchsorted(self.cells, key * (len(self.instants) + 1) + rank, side="left")


@dataclass(slots=True)
class _Kernel:
    """One run: states are shared by the aggregates that need the same component over the same window."""

    events: Events
    grid: Grid
    start: NDArray[np.intp]
    _ranges: dict[tuple[int, int], Ranges] = field(default_factory=dict)
    _states: dict[tuple[int, int, str], Any] = field(default_factory=dict)
    _order: Ints | None = None

    def ranges(self, aggregate: Aggregate) -> Ranges:
        cached = self._ranges.get((aggregate.window, aggregate.hop))
        if cached is None:
            event_ts, hop = self.events.event_ts, aggregate.hop
            expiry = event_ts - event_ts % hop + hop + aggregate.window
            end = np.maximum(self.start, self.grid.first_row(self.events.key, expiry))
            cached = Ranges(self.start, end, len(self.grid.cells))
            self._ranges[aggregate.window, aggregate.hop] = cached
        return cached

    def state(self, aggregate: Aggregate, component: Component) -> Numbers:
        at = (aggregate.window, aggregate.hop, component.name)
        if at not in self._states:
            column = self.events.columns[component.column]
            ranges = self.ranges(aggregate).of(column.valid)
            values = column.values[column.valid]
            order = self.order[column.valid] if isinstance(component.op, Picked) else None
            self._states[at] = _component(component, ranges, values, order)
        return self._states[at]  # type: ignore[no-any-return]

    @property
    def order(self) -> Ints:
        if self._order is None:
            self._order = self.events.ranks()
        return self._order

    def counted(self, aggregate: Aggregate) -> Ints:
        at = (aggregate.window, aggregate.hop, "")
        if at not in self._states:
            self._states[at] = covering(self.ranges(aggregate), None)
        return self._states[at]  # type: ignore[no-any-return]


def window_values(view: WindowedView, source: EventSource, events: Events, spine: Spine) -> dict[str, Finalised]:
    """Every feature of a windowed view for each spine row, in the spine's order. Events must be valid and deduplicated.

    Exact: sums that leave int64 become Python integers, as the online reader's do.
    """
    grid = Grid.of(spine)
    kernel = _Kernel(events, grid, grid.first_row(events.key, events.available_at + 1))
    back = np.empty_like(grid.order)
    back[grid.order] = np.arange(len(grid.order))
    return {aggregate.feature: _feature(aggregate, source, kernel, back) for aggregate in view.aggregates}


def _feature(aggregate: Aggregate, source: EventSource, kernel: _Kernel, back: NDArray[np.intp]) -> Finalised:
    column = aggregate_column(aggregate, source)
    aggregation = AGGREGATIONS[aggregate.function]
    state = {item.op.name: kernel.state(aggregate, item)[back] for item in aggregation.components(column)}
    return aggregation.finalise(kernel.counted(aggregate)[back], state, column.type if column else None)


def _component(component: Component, ranges: Ranges, values: Numbers, order: Ints | None) -> Numbers:
    match component.op:
        case Counted():
            return covering(ranges, None)
        case Additive() as op if component.storage is Storage.FLOAT:
            return float_sum(ranges, values, squared=op.name == "squares")
        case Additive() as op:
            return exact_sum(ranges, op.lift(values.astype(object) if op.split else values))
        case Extreme(greatest=greatest) if values.dtype == np.int64:
            limits = np.iinfo(np.int64)
            ufunc = np.maximum if greatest else np.minimum
            return extreme(ranges, values, limits.min if greatest else limits.max, ufunc)
        case Extreme(greatest=greatest):
            return chosen(ranges, values, by=values, greatest=greatest)
        case Picked(latest=latest):
            assert order is not None
            return chosen(ranges, values, by=order, greatest=latest)
