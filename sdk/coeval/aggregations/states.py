"""What a slot of a tile holds of a component, and exact arithmetic over many of them. Pure (and numpy).

Integers are int64 while they fit; beyond that they are two limbs in storage and Python integers in object arrays.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coeval.spec.types import DataType, Kind

Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Numbers: TypeAlias = NDArray[Any]
"""Merged components: int64, Python integers in an object array, or float64."""
States: TypeAlias = NDArray[Any]
"""Stored components, one column per slot: the dtype of their storage."""

WIDE = np.dtype([("low", "<u8"), ("high", "<i8")])
"""A 128-bit two's complement integer; the same bytes as an Arrow decimal128."""
EXACT = 2**53
"""Integers up to here are exact doubles, so one IEEE division of two of them rounds once, as Python's does."""


class Storage(Enum):
    """How a slot stores a component, and its type in SQL."""

    NARROW = "BIGINT"
    WIDE = "DECIMAL(38, 0)"
    FLOAT = "DOUBLE"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of a stored component."""
        return {Storage.NARROW: np.dtype("<i8"), Storage.WIDE: WIDE, Storage.FLOAT: np.dtype("<f8")}[self]


def storage_of(data_type: DataType) -> Storage:
    """How a value of a fixed-width type is stored."""
    if data_type.kind is Kind.FLOAT64:
        return Storage.FLOAT
    return Storage.WIDE if data_type.is_wide else Storage.NARROW


def sum_states(states: States, mask: Mask) -> Numbers:
    """Sum stored components along axis 1 where the mask holds: integers exactly, floats in the order of the slots."""
    if states.dtype.names:
        return _sum_wide(states, mask)
    total: Numbers = np.where(mask, states, states.dtype.type(0)).sum(axis=1)
    return total


def _sum_wide(states: States, mask: Mask) -> Numbers:
    """By 32-bit digits, so that nothing carries out of a word."""
    digit = np.uint64(0xFFFFFFFF)
    low = np.where(mask, states["low"], np.uint64(0))
    d0 = (low & digit).sum(axis=1, dtype=np.uint64)
    d1 = (low >> np.uint64(32)).sum(axis=1, dtype=np.uint64) + (d0 >> np.uint64(32))
    high = np.where(mask, states["high"], 0).sum(axis=1, dtype=np.int64) + (d1 >> np.uint64(32)).astype(np.int64)
    low = (d0 & digit) | (d1 << np.uint64(32))
    return from_limbs(low, high)


def extreme_states(states: States, mask: Mask, greatest: bool) -> Numbers:
    """The greatest (or least) stored component along axis 1 where the mask holds; anything where it never does."""
    ufunc = np.maximum if greatest else np.minimum
    if not states.dtype.names:
        worst = _worst(states.dtype, greatest)
        merged: Numbers = ufunc.reduce(np.where(mask, states, worst), axis=1, initial=worst)
        return merged
    high = ufunc.reduce(np.where(mask, states["high"], _worst(np.dtype(np.int64), greatest)), axis=1)
    tied = mask & (states["high"] == high[:, None])
    worst_low = np.uint64(0) if greatest else np.uint64(2**64 - 1)
    return from_limbs(ufunc.reduce(np.where(tied, states["low"], worst_low), axis=1), high)


def _worst(dtype: np.dtype[Any], greatest: bool) -> Any:
    if dtype.kind == "f":
        return -np.inf if greatest else np.inf
    limits = np.iinfo(np.int64)
    return limits.min if greatest else limits.max


def pick_states(states: States, mask: Mask, tiles: Ints, latest: bool) -> Numbers:
    """The stored component of the latest (or earliest) tile along axis 1 where the mask holds.

    Tiles of one granularity do not overlap, so the tile that holds the greatest event time holds the last event.
    """
    limits = np.iinfo(np.int64)
    ranked = np.where(mask, tiles, limits.min if latest else limits.max)
    chosen = ranked.argmax(axis=1) if latest else ranked.argmin(axis=1)
    picked = states[np.arange(len(states)), chosen]
    return from_limbs(picked["low"], picked["high"]) if picked.dtype.names else picked


def from_limbs(low: NDArray[np.uint64], high: Ints) -> Numbers:
    """The integers of two 64-bit limbs: int64 where all of them fit, else Python integers."""
    narrow = low.astype(np.int64)
    if bool(np.all(high == narrow >> 63)):
        return narrow
    return np.array([(int(h) << 64) + int(v) for v, h in zip(low, high, strict=True)], dtype=object)


def to_wide(values: Numbers) -> NDArray[np.void]:
    """Integers as 128-bit states."""
    states = np.zeros(len(values), dtype=WIDE)
    if values.dtype == object:
        states["low"] = [int(v) & 0xFFFFFFFFFFFFFFFF for v in values]
        states["high"] = [int(v) >> 64 for v in values]
    else:
        states["low"] = values.astype(np.int64).astype(np.uint64)
        states["high"] = values >> 63
    return states


def quotients(numerators: Numbers, denominators: Numbers) -> NDArray[np.float64]:
    """Exact integers over positive exact integers, each rounded once to float64."""
    result = np.empty(len(numerators), dtype=np.float64)
    small = np.zeros(len(numerators), dtype=bool)
    if object not in (numerators.dtype, denominators.dtype):
        small = (numerators < EXACT) & (numerators > -EXACT) & (denominators < EXACT)
        np.divide(numerators, denominators, out=result, where=small)
    for at in np.flatnonzero(~small):
        result[at] = int(numerators[at]) / int(denominators[at])
    return result
