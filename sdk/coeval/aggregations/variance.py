"""variance and stddev of the population. From exact sums where the column is exact. Null where no value is. Pure.

The variance of integers is (n * sum of squares - sum ** 2) / n ** 2, exact up to one rounding; the standard deviation
is its square root. Over float64 both come from rounded sums, and are as good as 1e-9 of the mean square.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coeval.aggregations.mean import scaled
from coeval.aggregations.partial import (
    Aggregation,
    Component,
    Finalised,
    Merged,
    as_objects,
    beyond,
    count_component,
    exact_total,
    total_components,
)
from coeval.aggregations.states import Ints, Numbers, quotients
from coeval.spec.model import Field
from coeval.spec.types import FLOAT64, DataType, Kind

_SAFE = 2.0**62
"""Products below this, taken in float64, cannot wrap in int64."""


def _components(column: Field | None) -> tuple[Component, ...]:
    assert column is not None
    return count_component(column), *total_components("sum", column), *total_components("squares", column)


def _variance(events: Ints, state: Merged, column: DataType | None) -> Finalised:
    assert column is not None
    count = state["count"].astype(np.int64)
    null = count == 0
    n = np.where(null, 1, count)
    total, squares = exact_total("sum", state), exact_total("squares", state)
    if column.kind is Kind.FLOAT64:
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.maximum(0.0, squares / n - (total / n) ** 2)
    else:
        values = quotients(_spread(n, total, squares), _squared(n, 100**column.scale))
    overflow = beyond(values, FLOAT64) & ~null
    return Finalised(values, null | overflow, overflow)


def _spread(n: Ints, total: Numbers, squares: Numbers) -> Any:
    """n * squares - total ** 2, exactly."""
    floats = [np.abs(item.astype(np.float64)).max(initial=0.0) for item in (n, total, squares)]
    if object in (total.dtype, squares.dtype) or max(floats[0] * floats[2], floats[1] ** 2) >= _SAFE:
        n, total, squares = as_objects(n), as_objects(total), as_objects(squares)
    return n * squares - total * total


def _squared(n: Ints, factor: int) -> Any:
    fits = float(n.max(initial=0)) ** 2 < _SAFE
    return scaled(n * n, factor) if fits else as_objects(n) * n * factor


def _stddev(events: Ints, state: Merged, column: DataType | None) -> Finalised:
    variance = _variance(events, state, column)
    values = np.sqrt(np.where(variance.null, 0.0, variance.values))
    return Finalised(values, variance.null, variance.overflow)


VARIANCE = Aggregation("variance", _components, lambda column: FLOAT64, _variance)
STDDEV = Aggregation("stddev", _components, lambda column: FLOAT64, _stddev)
