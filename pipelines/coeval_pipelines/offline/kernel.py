"""The interval kernel: every window of every spine row of many keys, in numpy. Pure; it knows no engine.

An event is visible to one contiguous range of its key's spine rows (sorted by q), however late it came: from the first
q > available_at up to, but without, the first q whose window begins after the event's tile. So an additive state is a
difference array and a cumulative sum, and a minimum is a range update; sawtooth and availability need no special case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import Component, Finalised, Ints, Mask
from coeval.aggregations.tiles import aggregate_column
from coeval.spec.model import Aggregate, EventSource, WindowedView

_LIMB = 32
_SAFE_SUM = 2.0**62
"""A sum of magnitudes below this, taken in float64, proves that int64 cannot wrap."""


@dataclass(frozen=True, slots=True)
class Values:
    """A column: physical int64 values and where they are not null. Values under a null mean nothing."""

    values: Ints
    valid: Mask


@dataclass(frozen=True, slots=True)
class Events:
    """Events of many keys, any order: key codes (>= 0), times in microseconds, columns by name."""

    key: Ints
    event_ts: Ints
    available_at: Ints
    columns: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Spine:
    """The (key code, q) pairs to answer, any order, repeats included."""

    key: Ints
    q: Ints


@dataclass(frozen=True, slots=True)
class _Grid:
    """Spine rows in (key, q) order. A time becomes its rank among the distinct q, so (key, rank) fits one int64."""

    order: NDArray[np.intp]
    instants: Ints
    cells: Ints

    @staticmethod
    def of(spine: Spine) -> _Grid:
        instants, rank = np.unique(spine.q, return_inverse=True)
        cells = spine.key * (len(instants) + 1) + rank
        order = np.argsort(cells, kind="stable")
        return _Grid(order, instants, cells[order])

    def first_row(self, key: Ints, time: Ints) -> NDArray[np.intp]:
        """Per event, the first row of its key with q >= time (one past the key's rows where there is none)."""
        rank = np.searchsorted(self.instants, time, side="left")
        return np.searchsorted(self.cells, key * (len(self.instants) + 1) + rank, side="left")


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Per event, the rows [start, end) that see it."""

    start: NDArray[np.intp]
    end: NDArray[np.intp]
    rows: int

    def of(self, valid: Mask) -> _Ranges:
        return self if valid.all() else _Ranges(self.start[valid], self.end[valid], self.rows)


@dataclass(slots=True)
class _Kernel:
    """One run: states are shared by the aggregates that need the same component over the same window."""

    events: Events
    grid: _Grid
    start: NDArray[np.intp]
    _ranges: dict[tuple[int, int], _Ranges] = field(default_factory=dict)
    _states: dict[tuple[int, int, str], Any] = field(default_factory=dict)

    def ranges(self, aggregate: Aggregate) -> _Ranges:
        cached = self._ranges.get((aggregate.window, aggregate.hop))
        if cached is None:
            event_ts, hop = self.events.event_ts, aggregate.hop
            expiry = event_ts - event_ts % hop + hop + aggregate.window
            end = np.maximum(self.start, self.grid.first_row(self.events.key, expiry))
            cached = _Ranges(self.start, end, len(self.grid.cells))
            self._ranges[aggregate.window, aggregate.hop] = cached
        return cached

    def state(self, aggregate: Aggregate, component: Component) -> Ints | NDArray[np.object_]:
        at = (aggregate.window, aggregate.hop, component.name)
        if at not in self._states:
            column = self.events.columns[component.column]
            ranges = self.ranges(aggregate).of(column.valid)
            self._states[at] = _component(component, ranges, column.values[column.valid])
        return self._states[at]  # type: ignore[no-any-return]

    def counted(self, aggregate: Aggregate) -> Ints:
        at = (aggregate.window, aggregate.hop, "")
        if at not in self._states:
            self._states[at] = _covering(self.ranges(aggregate), None)
        return self._states[at]  # type: ignore[no-any-return]


def window_values(view: WindowedView, source: EventSource, events: Events, spine: Spine) -> dict[str, Finalised]:
    """Every feature of a windowed view for each spine row, in the spine's order. Events must be valid and deduplicated.

    Exact: sums that leave int64 become Python integers, as the online reader's do.
    """
    grid = _Grid.of(spine)
    kernel = _Kernel(events, grid, grid.first_row(events.key, events.available_at + 1))
    back = np.empty_like(grid.order)
    back[grid.order] = np.arange(len(grid.order))
    return {aggregate.feature: _feature(aggregate, source, kernel, back) for aggregate in view.aggregates}


def _feature(aggregate: Aggregate, source: EventSource, kernel: _Kernel, back: NDArray[np.intp]) -> Finalised:
    column = aggregate_column(aggregate, source)
    aggregation = AGGREGATIONS[aggregate.function]
    state = {item.op.name: kernel.state(aggregate, item)[back] for item in aggregation.components(column)}
    return aggregation.finalise_many(kernel.counted(aggregate)[back], state, column.type if column else None)


def _component(component: Component, ranges: _Ranges, values: Ints) -> Ints | NDArray[np.object_]:
    if component.op.name == "count":
        return _covering(ranges, None)
    if component.op.additive:
        return _sum(ranges, values)
    ufunc = np.minimum if component.op.name == "min" else np.maximum
    return _extreme(ranges, values, component.op.identity, ufunc)


def _covering(ranges: _Ranges, values: Ints | None) -> Ints:
    """Per row, the sum of the values (None: the number) of the events that it sees. Prefixes may wrap: sums do not."""
    change = np.zeros(ranges.rows + 1, dtype=np.int64)
    added: Any = np.int64(1) if values is None else values
    np.add.at(change, ranges.start, added)
    np.subtract.at(change, ranges.end, added)
    return np.cumsum(change[:-1])


def _sum(ranges: _Ranges, values: Ints) -> Ints | NDArray[np.object_]:
    if float(np.abs(values.astype(np.float64)).sum()) < _SAFE_SUM:
        return _covering(ranges, values)
    low = _covering(ranges, values & (2**_LIMB - 1))
    high = _covering(ranges, values >> _LIMB) + (low >> _LIMB)
    low &= 2**_LIMB - 1
    if bool(((high >= -(2**31)) & (high < 2**31)).all()):
        return (high << _LIMB) | low
    return np.array([(int(h) << _LIMB) | int(v) for h, v in zip(high, low, strict=True)], dtype=object)


def _extreme(ranges: _Ranges, values: Ints, identity: int, ufunc: np.ufunc) -> Ints:
    """A dual sparse table, one level at a time: each range is two blocks of 2^k rows, pushed down to single rows."""
    length = ranges.end - ranges.start
    level = np.frexp(length.astype(np.float64))[1] - 1
    cells = np.full(ranges.rows, identity, dtype=np.int64)
    for k in range(int(level.max(initial=-1)), -1, -1):
        half = 1 << k
        if k < int(level.max()):
            _push_down(cells, half, ufunc)
        mine = (level == k) & (length > 0)
        ufunc.at(cells, ranges.start[mine], values[mine])
        ufunc.at(cells, ranges.end[mine] - half, values[mine])
    return cells


def _push_down(cells: Ints, half: int, ufunc: np.ufunc) -> None:
    """Blocks of 2 * half rows become two blocks of half."""
    cells[half:] = ufunc(cells[half:], cells[:-half].copy())
