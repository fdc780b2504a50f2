"""mean: the exact total over the number of values, rounded once to float64. Null where no value is. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.partial import Aggregation, Finalised, Ints
from coeval.aggregations.total import components_with_sum
from coeval.spec.types import FLOAT64, DataType

_EXACT = 2**53
"""Integers up to here are exact doubles, so one IEEE division of two of them rounds once, as Python's does."""


def _finalise(events: int, state: dict[str, int], column: DataType | None) -> float | None:
    assert column is not None
    return state["sum"] / (state["count"] * 10**column.scale) if state["count"] else None


def _finalise_many(events: Ints, state: dict[str, Ints | NDArray[np.object_]], column: DataType | None) -> Finalised:
    assert column is not None
    total, count = state["sum"], state["count"].astype(np.int64)
    null = count == 0
    scale = 10**column.scale
    divisor = np.where(null, 1, count)
    if total.dtype != object and _all_exact(total, divisor, scale):
        values = total.astype(np.float64) / (divisor * scale).astype(np.float64)
    else:
        values = np.array([int(t) / (int(c) * scale) for t, c in zip(total, divisor, strict=True)], dtype=np.float64)
    return Finalised(np.where(null, np.nan, values), null, np.zeros(len(events), dtype=bool))


def _all_exact(total: Ints | NDArray[np.object_], divisor: Ints, scale: int) -> bool:
    if not len(total):
        return True
    small_total = bool(((total < _EXACT) & (total > -_EXACT)).all())
    return small_total and int(divisor.max()) * scale < _EXACT


MEAN = Aggregation("mean", components_with_sum, lambda column: FLOAT64, _finalise, _finalise_many)
