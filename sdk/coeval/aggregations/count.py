"""count: events, or the non-null values of a column. Never null; 0 where there is nothing. Pure."""

from __future__ import annotations

import numpy as np

from coeval.aggregations.partial import Aggregation, Component, Finalised, Merged, count_component, never
from coeval.aggregations.states import Ints
from coeval.spec.model import Field
from coeval.spec.types import INT64, DataType


def _components(column: Field | None) -> tuple[Component, ...]:
    return () if column is None else (count_component(column),)


def _finalise(events: Ints, state: Merged, column: DataType | None) -> Finalised:
    values = events if column is None else state["count"].astype(np.int64)
    return Finalised(values, never(events), never(events))


COUNT = Aggregation("count", _components, lambda column: INT64, _finalise)
