"""count: events, or the non-null values of a column. Never null; 0 where there is nothing. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.partial import Aggregation, Component, Finalised, Ints, Mask, Op, States
from coeval.spec.model import Field
from coeval.spec.types import INT64, DataType


def _reduce(states: States, mask: Mask) -> Ints:
    total: Ints = np.where(mask, states, 0).sum(axis=1, dtype=np.int64)
    return total


COUNT_OP = Op(
    name="count",
    identity=0,
    lift=lambda value: 1,
    merge=lambda a, b: a + b,
    reduce=_reduce,
    sql=lambda column, wide: f"COUNT({column})",
    additive=True,
)


def _components(column: Field | None) -> tuple[Component, ...]:
    return () if column is None else (Component(COUNT_OP, column.name),)


def _finalise(events: int, state: dict[str, int], column: DataType | None) -> int:
    return events if column is None else state["count"]


def _finalise_many(events: Ints, state: dict[str, Ints | NDArray[np.object_]], column: DataType | None) -> Finalised:
    never = np.zeros(len(events), dtype=bool)
    values = events if column is None else state["count"].astype(np.int64)
    return Finalised(values, never, never)


COUNT = Aggregation("count", _components, lambda column: INT64, _finalise, _finalise_many)
