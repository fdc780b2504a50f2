"""Sums, extremes and choices over intervals: each event is seen by one range of rows. Pure numpy.

Integers are int64 while they fit, else Python integers in object arrays; doubles are summed as exact integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.states import Ints, Mask, Numbers

_LIMB = 32
_HALF = 27
_SAFE_SUM = 2.0**62
"""A sum of magnitudes below this, taken in float64, proves that int64 cannot wrap."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Per event, the rows [start, end) of `rows` that see it."""

    start: NDArray[np.intp]
    end: NDArray[np.intp]
    rows: int

    def of(self, valid: Mask) -> Ranges:
        """Those of some of the events."""
        return self if valid.all() else Ranges(self.start[valid], self.end[valid], self.rows)


def chosen(ranges: Ranges, values: Numbers, *, by: Numbers, greatest: bool) -> Numbers:
    """Per row, the value with the greatest (or least) `by` among the events it sees; anything where there is none."""
    if not len(values):
        return np.zeros(ranges.rows, dtype=values.dtype)
    _, at, ranks = np.unique(by, return_index=True, return_inverse=True)
    none = -1 if greatest else len(at)
    found = extreme(ranges, ranks.astype(np.int64), none, np.maximum if greatest else np.minimum)
    taken: Numbers = values[at[np.where(found == none, 0, found)]]
    return taken


def covering(ranges: Ranges, values: Ints | None) -> Ints:
    """Per row, the sum of the values (None: the number) of the events that it sees. Prefixes may wrap: sums do not."""
    change = np.zeros(ranges.rows + 1, dtype=np.int64)
    added: Any = np.int64(1) if values is None else values
    np.add.at(change, ranges.start, added)
    np.subtract.at(change, ranges.end, added)
    return np.cumsum(change[:-1])


def exact_sum(ranges: Ranges, values: Numbers) -> Numbers:
    """Per row, the exact sum of the integers of the events that it sees: int64 where all of them fit."""
    if values.dtype == object:
        return _sum_objects(ranges, values)
    if float(np.abs(values.astype(np.float64)).sum()) < _SAFE_SUM:
        return covering(ranges, values)
    low = covering(ranges, values & (2**_LIMB - 1))
    high = covering(ranges, values >> _LIMB) + (low >> _LIMB)
    low &= 2**_LIMB - 1
    if bool(((high >= -(2**31)) & (high < 2**31)).all()):
        return (high << _LIMB) | low
    return np.array([(int(h) << _LIMB) | int(v) for h, v in zip(high, low, strict=True)], dtype=object)


def _sum_objects(ranges: Ranges, values: Numbers) -> Numbers:
    """Python integers, limb by limb: each limb's prefix sums fit int64."""
    total: Numbers = np.zeros(ranges.rows, dtype=object)
    rest, weight = values, 1
    while bool(np.any((rest != 0) & (rest != -1))):
        total = total + covering(ranges, (rest & (2**_LIMB - 1)).astype(np.int64)).astype(object) * weight
        rest, weight = rest >> _LIMB, weight << _LIMB
    total = total + covering(ranges, rest.astype(np.int64)).astype(object) * weight
    narrow = float(np.abs(total.astype(np.float64)).max(initial=0.0)) < _SAFE_SUM
    return total.astype(np.int64) if narrow else total


def float_sum(ranges: Ranges, values: NDArray[np.float64], *, squared: bool) -> NDArray[np.float64]:
    """Per row, the exact sum of doubles (or of their squares), rounded once: integers over one power of two."""
    parts = _exact_squares(values) if squared else (values,)
    infinite = ~np.isfinite(parts[0])
    parts = tuple(np.where(infinite, 0.0, part) for part in parts)
    spread = Ranges(np.tile(ranges.start, len(parts)), np.tile(ranges.end, len(parts)), ranges.rows)
    mantissas, exponents = np.frexp(np.concatenate(parts))
    whole = (mantissas * 2.0**53).astype(np.int64)
    exponents = exponents.astype(np.int64) - 53
    used = whole != 0
    least = int(exponents[used].min(initial=0))
    total: Numbers = np.zeros(ranges.rows, dtype=object)
    for half, lift in ((whole & (2**_HALF - 1), 0), (whole >> _HALF, _HALF)):
        total = total + _shifted_sum(spread, half, exponents - least + lift, used)
    rounded = np.array([_scaled(int(value), least) for value in total], dtype=np.float64)
    return np.where(covering(ranges.of(infinite), None) > 0, np.inf, rounded) if infinite.any() else rounded


def _exact_squares(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Doubles that add up to the squares exactly: of the upper half of each mantissa, the lower half, and both."""
    mantissas, exponents = np.frexp(values)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        high = np.ldexp(np.rint(mantissas * 2.0**26), exponents - 26)
        low = values - high
        return high * high, 2 * high * low, low * low


def _shifted_sum(ranges: Ranges, values: Ints, shifts: Ints, used: Mask) -> Numbers:
    """The sum of values * 2 ** shifts (values below 2**28): by shift modulo a limb, into limbs."""
    total: Numbers = np.zeros(ranges.rows, dtype=object)
    limbs = shifts // _LIMB
    for limb in np.unique(limbs[used]).tolist():
        mine = used & (limbs == limb)
        part = Ranges(ranges.start[mine], ranges.end[mine], ranges.rows)
        total = total + (exact_sum(part, values[mine] << (shifts[mine] % _LIMB)).astype(object) << (limb * _LIMB))
    return total


def _scaled(value: int, exponent: int) -> float:
    """value * 2 ** exponent, rounded once; infinite where no double holds it."""
    try:
        return value / (1 << -exponent) if exponent < 0 else float(value << exponent)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def extreme(ranges: Ranges, values: Ints, identity: int, ufunc: np.ufunc) -> Ints:
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
