"""mean: the total over the number of values, rounded once where it is exact. Null where no value is. Pure."""

from __future__ import annotations

import numpy as np

from coeval.aggregations.partial import (
    Aggregation,
    Finalised,
    Merged,
    as_objects,
    beyond,
    exact_total,
)
from coeval.aggregations.states import EXACT, Ints, quotients
from coeval.aggregations.total import components_with_sum
from coeval.spec.types import FLOAT64, DataType, Kind


def _finalise(events: Ints, state: Merged, column: DataType | None) -> Finalised:
    assert column is not None
    total, count = exact_total("sum", state), state["count"].astype(np.int64)
    null = count == 0
    divisor = np.where(null, 1, count)
    exact = column.kind is not Kind.FLOAT64
    values = quotients(total, scaled(divisor, 10**column.scale)) if exact else total / divisor
    overflow = beyond(values, FLOAT64) & ~null
    return Finalised(values, null | overflow, overflow)


def scaled(counts: Ints, factor: int) -> Ints:
    """Counts times a constant, exactly: Python integers where int64 might not hold them."""
    fits = int(counts.max(initial=0)) * factor < EXACT
    return counts * factor if fits else as_objects(counts) * factor


MEAN = Aggregation("mean", components_with_sum, lambda column: FLOAT64, _finalise)
