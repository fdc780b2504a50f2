"""min and max of a column of a fixed-width exact type. Null where no value is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.count import COUNT_OP
from coeval.aggregations.partial import Aggregation, Component, Finalised, Ints, Mask, Op, States
from coeval.spec.model import Field
from coeval.spec.types import INT64_MAX, INT64_MIN, DataType

Pick: TypeAlias = Callable[[int, int], int]


def _op(name: str, identity: int, pick: Pick, ufunc: np.ufunc) -> Op:
    def reduce(states: States, mask: Mask) -> Ints:
        merged: Ints = ufunc.reduce(np.where(mask, states, identity), axis=1, initial=identity)
        return merged

    return Op(
        name=name,
        identity=identity,
        lift=lambda value: value,
        merge=pick,
        reduce=reduce,
        sql=lambda column, wide: f"COALESCE({name.upper()}({column}), {_literal(identity)})",
        additive=False,
    )


def _literal(identity: int) -> str:
    # Neither engine reads -9223372036854775808 as one literal: the minus is applied to a number beyond BIGINT.
    return str(identity) if identity > INT64_MIN else f"(-{INT64_MAX} - 1)"


MIN_OP = _op("min", INT64_MAX, min, np.minimum)
MAX_OP = _op("max", INT64_MIN, max, np.maximum)


def _aggregation(op: Op) -> Aggregation:
    def components(column: Field | None) -> tuple[Component, ...]:
        assert column is not None
        return Component(COUNT_OP, column.name), Component(op, column.name)

    def result(column: DataType | None) -> DataType:
        assert column is not None
        return column

    def finalise(events: int, state: dict[str, int], column: DataType | None) -> int | None:
        return state[op.name] if state["count"] else None

    def finalise_many(events: Ints, state: dict[str, Ints | NDArray[np.object_]], column: DataType | None) -> Finalised:
        return Finalised(state[op.name], state["count"] == 0, np.zeros(len(events), dtype=bool))

    return Aggregation(op.name, components, result, finalise, finalise_many)


MIN = _aggregation(MIN_OP)
MAX = _aggregation(MAX_OP)
