"""The algebra that aggregations are made of: a partial state is a commutative monoid over exact integers. Pure.

A tile holds, per column, the components that its aggregations need; components are shared (a mean and a sum need one
sum). Values are physical: decimals as unscaled integers. Empty columns and nulls never reach a component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coeval.spec.model import Field
from coeval.spec.types import DataType

Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
States: TypeAlias = NDArray[Any]
"""Stored components: int64, or the two limbs of WIDE."""

NARROW, WIDE = np.dtype("<i8"), np.dtype([("low", "<u8"), ("high", "<i8")])
"""Storage of a component: 8 bytes, or a 128-bit two's complement integer in 16."""


@dataclass(frozen=True, slots=True)
class Op:
    """One commutative monoid over integers: how values enter a state and how states merge.

    `sql` takes an expression of the physical value (BIGINT) and gives the aggregate expression, in Flink and Spark
    alike. `reduce` merges states along axis 1 of a (keys, tiles) array where the mask holds; a wide state comes as two
    limbs and leaves as exact Python integers in an object array where it does not fit int64.
    """

    name: str
    identity: int
    lift: Callable[[int], int]
    merge: Callable[[int, int], int]
    reduce: Callable[[States, Mask], Ints | NDArray[np.object_]]
    sql: Callable[[str, bool], str]
    additive: bool


@dataclass(frozen=True, slots=True)
class Component:
    """One stored number of a tile: an operation over a column, in 8 or 16 bytes."""

    op: Op
    column: str
    wide: bool = False

    @property
    def name(self) -> str:
        """Its name in slots, changelog columns and tile tables: sum_amount."""
        return f"{self.op.name}_{self.column}"

    @property
    def dtype(self) -> np.dtype[np.void] | np.dtype[np.int64]:
        """How a slot stores it."""
        return WIDE if self.wide else NARROW

    def sql(self, column: str) -> str:
        """The aggregate expression over the physical (BIGINT) column of that name."""
        return self.op.sql(column, self.wide)


@dataclass(frozen=True, slots=True)
class Finalised:
    """The values of one feature for many keys: physical values, and where they are null or beyond their type."""

    values: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.object_]
    null: Mask
    overflow: Mask


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A named aggregation: the components it keeps and how a merged state becomes a value.

    `finalise` sees the events counted and the merged components by operation name, as exact integers, and gives the
    physical value, or None for null; OVERFLOW is decided by the caller against the result type. `finalise_many` is the
    same over numpy arrays.
    """

    name: str
    components: Callable[[Field | None], tuple[Component, ...]]
    result: Callable[[DataType | None], DataType]
    finalise: Callable[[int, dict[str, int], DataType | None], int | float | None]
    finalise_many: Callable[[Ints, dict[str, Ints | NDArray[np.object_]], DataType | None], Finalised]


def reduce_wide(states: States, mask: Mask) -> Ints | NDArray[np.object_]:
    """Sum 128-bit states along axis 1, exactly, by 32-bit digits; Python integers where int64 cannot hold one."""
    digit = np.uint64(0xFFFFFFFF)
    low = np.where(mask, states["low"], np.uint64(0))
    d0 = (low & digit).sum(axis=1, dtype=np.uint64)
    d1 = (low >> np.uint64(32)).sum(axis=1, dtype=np.uint64) + (d0 >> np.uint64(32))
    high = np.where(mask, states["high"], 0).sum(axis=1, dtype=np.int64) + (d1 >> np.uint64(32)).astype(np.int64)
    low = (d0 & digit) | (d1 << np.uint64(32))
    return from_limbs(low, high)


def from_limbs(low: NDArray[np.uint64], high: Ints) -> Ints | NDArray[np.object_]:
    """The integers of two 64-bit limbs: int64 where all of them fit, else Python integers."""
    narrow = low.astype(np.int64)
    if bool(np.all(high == narrow >> 63)):
        return narrow
    return np.array([(int(h) << 64) + int(v) for v, h in zip(low, high, strict=True)], dtype=object)


def to_wide(values: Ints | NDArray[np.object_]) -> NDArray[np.void]:
    """Store integers as 128-bit states."""
    states = np.zeros(len(values), dtype=WIDE)
    if values.dtype == object:
        states["low"] = [int(v) & 0xFFFFFFFFFFFFFFFF for v in values]
        states["high"] = [int(v) >> 64 for v in values]
    else:
        states["low"] = values.astype(np.int64).astype(np.uint64)
        states["high"] = values >> 63
    return states
