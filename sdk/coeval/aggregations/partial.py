"""What tiles are made of: components of columns, and how an aggregation turns merged components into a value. Pure.

Components are shared: a mean and a sum over one column need one sum. Nulls never reach a component.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from coeval.aggregations.ops import (
    SPLIT,
    Additive,
    Counted,
    Op,
    Order,
    OrderColumns,
    high_part,
    high_sql,
    low_part,
    low_sql,
)
from coeval.aggregations.states import Ints, Mask, Numbers, Storage
from coeval.spec.model import Field
from coeval.spec.types import DataType, Kind

Number: TypeAlias = int | float
Merged: TypeAlias = Mapping[str, Any]
"""Merged components by operation name: arrays of exact integers or floats, one entry per key."""

NARROW_DIGITS = 9
"""Values of at most this many digits sum in 8 bytes: 9.2e9 events of the greatest value fit."""
WIDE_DIGITS = 19
"""Values of at most this many digits sum in 38: 1e19 events of the greatest value fit."""


@dataclass(frozen=True, slots=True)
class Component:
    """One stored number of a tile: an operation over a column."""

    op: Op
    column: str
    storage: Storage = Storage.NARROW

    @property
    def name(self) -> str:
        """Its name in slots, changelog columns and tile tables: sum_amount."""
        return f"{self.op.name}_{self.column}"

    @property
    def dtype(self) -> np.dtype[Any]:
        """How a slot stores it."""
        return self.storage.dtype

    def sql(self, column: str, order: OrderColumns) -> str:
        """The aggregate expression over the physical column of that name, in Flink and Spark alike."""
        return self.op.sql(column, self.storage, order)


@dataclass(frozen=True, slots=True)
class Finalised:
    """The values of one feature for many keys: physical values, and where they are null or beyond their type."""

    values: Numbers
    null: Mask
    overflow: Mask


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A named aggregation: the components it keeps and how a merged state becomes a value.

    `finalise` sees, for many keys, the events counted and the merged components by operation name, and the type of the
    column (None: events are counted).
    """

    name: str
    components: Callable[[Field | None], tuple[Component, ...]]
    result: Callable[[DataType | None], DataType]
    finalise: Callable[[Ints, Merged, DataType | None], Finalised]


COUNT_OP = Counted()


def fold(component: Component, values: Iterable[tuple[Order, Any]]) -> Number:
    """The number that a tile stores of a component, from its non-null values and their place in the total order."""
    state: Any = component.op.initial
    for order, value in values:
        state = component.op.add(state, value, order)
    return component.op.stored(state)


def count_component(column: Field) -> Component:
    """How many values of the column there are: beside every other component of it."""
    return Component(COUNT_OP, column.name)


def _same(value: Any) -> Any:
    return value


def _square(value: Any) -> Any:
    return value * value


def _square_sql(column: str) -> str:
    return f"({column} * {column})"


_LIFTS: Mapping[str, tuple[Callable[[Any], Any], Callable[[str], str]]] = {
    "sum": (_same, _same),
    "squares": (_square, _square_sql),
}


def total_components(name: str, column: Field) -> tuple[Component, ...]:
    """The sum (`sum`) or the sum of squares (`squares`) of a column, as wide as its type needs.

    Two components where one might not hold it exactly: `exact_total` puts them together.
    """
    lift, sql = _LIFTS[name]
    digits = (column.type.precision or WIDE_DIGITS) * (2 if name == "squares" else 1)
    if column.type.kind is Kind.FLOAT64:
        return (Component(Additive(name, lift, sql), column.name, Storage.FLOAT),)
    if digits <= WIDE_DIGITS:
        storage = Storage.NARROW if digits <= NARROW_DIGITS else Storage.WIDE
        return (Component(Additive(name, lift, sql), column.name, storage),)
    high = Additive(f"{name}_high", lambda value: high_part(lift(value)), lambda column: high_sql(sql(column)), True)
    low = Additive(f"{name}_low", lambda value: low_part(lift(value)), lambda column: low_sql(sql(column)), True)
    return Component(high, column.name, Storage.WIDE), Component(low, column.name, Storage.WIDE)


def exact_total(name: str, state: Merged) -> Numbers:
    """The total that `total_components` keep."""
    if name in state:
        whole: Numbers = state[name]
        return whole
    high, low = state[f"{name}_high"], state[f"{name}_low"]
    joined: Numbers = as_objects(high) * SPLIT + low
    return joined


def as_objects(values: Numbers) -> Numbers:
    """Python integers, which nothing overflows."""
    return values.astype(object)


def never(events: Ints) -> Mask:
    """No value is: null, or beyond its type."""
    return np.zeros(len(events), dtype=bool)


def beyond(values: Numbers, data_type: DataType) -> Mask:
    """Which values leave the type: integers beyond its digits, floats that are not finite."""
    if values.dtype.kind == "f":
        return ~np.isfinite(values)
    if values.dtype != object:
        return np.zeros(len(values), dtype=bool)
    low, high = data_type.limits
    return np.array([not low <= value <= high for value in values], dtype=bool)
