"""sum: the exact total of a column of int64 or decimal. Null where no value is; OVERFLOW beyond its type. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.count import COUNT_OP
from coeval.aggregations.partial import Aggregation, Component, Finalised, Ints, Mask, Op, States, reduce_wide
from coeval.spec.model import Field
from coeval.spec.types import INT64, DataType, Kind

NARROW_DIGITS = 9
"""Decimals of at most this precision sum in 8 bytes: 9.2e9 events of the greatest value fit."""


def _reduce(states: States, mask: Mask) -> Ints | NDArray[np.object_]:
    if states.dtype.names:
        return reduce_wide(states, mask)
    total: Ints = np.where(mask, states, 0).sum(axis=1, dtype=np.int64)
    return total


def _sql(column: str, wide: bool) -> str:
    return f"COALESCE(SUM(CAST({column} AS DECIMAL(38, 0))), 0)" if wide else f"COALESCE(SUM({column}), 0)"


SUM_OP = Op(
    name="sum",
    identity=0,
    lift=lambda value: value,
    merge=lambda a, b: a + b,
    reduce=_reduce,
    sql=_sql,
    additive=True,
)


def sum_component(column: Field) -> Component:
    """The sum of a column, as wide as its type needs."""
    narrow = column.type.kind is Kind.DECIMAL and column.type.precision <= NARROW_DIGITS
    return Component(SUM_OP, column.name, wide=not narrow)


def components_with_sum(column: Field | None) -> tuple[Component, ...]:
    """What sums and means keep: the number of values and their total."""
    assert column is not None
    return Component(COUNT_OP, column.name), sum_component(column)


def _result(column: DataType | None) -> DataType:
    assert column is not None
    return INT64 if column.kind is Kind.INT64 else DataType(Kind.DECIMAL, 38, column.scale)


def _finalise(events: int, state: dict[str, int], column: DataType | None) -> int | None:
    return state["sum"] if state["count"] else None


def _finalise_many(events: Ints, state: dict[str, Ints | NDArray[np.object_]], column: DataType | None) -> Finalised:
    assert column is not None
    values = state["sum"]
    null = state["count"] == 0
    overflow = np.zeros(len(events), dtype=bool)
    if values.dtype == object:
        limit = 2**63 - 1 if column.kind is Kind.INT64 else 10**38 - 1
        low = -limit - 1 if column.kind is Kind.INT64 else -limit
        overflow = np.array([not low <= value <= limit for value in values], dtype=bool)
    return Finalised(values, null | overflow, overflow)


SUM = Aggregation("sum", components_with_sum, _result, _finalise, _finalise_many)
