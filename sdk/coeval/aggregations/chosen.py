"""min, max, first and last: one of the values of a column, by value or by order. Null where none is. Pure."""

from __future__ import annotations

from coeval.aggregations.ops import Extreme, Picked
from coeval.aggregations.partial import Aggregation, Component, Finalised, Merged, count_component, never
from coeval.aggregations.states import Ints, storage_of
from coeval.spec.model import Field
from coeval.spec.types import DataType


def _aggregation(op: Extreme | Picked) -> Aggregation:
    def components(column: Field | None) -> tuple[Component, ...]:
        assert column is not None
        return count_component(column), Component(op, column.name, storage_of(column.type))

    def result(column: DataType | None) -> DataType:
        assert column is not None
        return column

    def finalise(events: Ints, state: Merged, column: DataType | None) -> Finalised:
        return Finalised(state[op.name], state["count"] == 0, never(events))

    return Aggregation(op.name, components, result, finalise)


MIN = _aggregation(Extreme("min", greatest=False))
MAX = _aggregation(Extreme("max", greatest=True))
FIRST = _aggregation(Picked("first", latest=False))
LAST = _aggregation(Picked("last", latest=True))
