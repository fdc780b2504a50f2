"""sum: the total of a column. Exact over int64 and decimals. Null where no value is; OVERFLOW beyond its type. Pure."""

from __future__ import annotations

from coeval.aggregations.partial import (
    Aggregation,
    Component,
    Finalised,
    Merged,
    beyond,
    count_component,
    exact_total,
    total_components,
)
from coeval.aggregations.states import Ints
from coeval.spec.model import Field
from coeval.spec.types import DataType, Kind


def components_with_sum(column: Field | None) -> tuple[Component, ...]:
    """What sums and means keep: the number of values and their total."""
    assert column is not None
    return count_component(column), *total_components("sum", column)


def _result(column: DataType | None) -> DataType:
    assert column is not None
    return DataType(Kind.DECIMAL, 38, column.scale) if column.kind is Kind.DECIMAL else column


def _finalise(events: Ints, state: Merged, column: DataType | None) -> Finalised:
    values = exact_total("sum", state)
    null = state["count"] == 0
    overflow = beyond(values, _result(column)) & ~null
    return Finalised(values, null | overflow, overflow)


SUM = Aggregation("sum", components_with_sum, _result, _finalise)
