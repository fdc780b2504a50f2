"""What a view selects and computes of rows, without an engine: each distinct row of inputs is evaluated once. Pure.

It knows Arrow. An operation is what `coeval.reference.evaluate` says it is; only the way through the rows differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from coeval.aggregations.states import Ints
from coeval.reference.evaluate import applied
from coeval.spec.expressions import Expression, literal_value
from coeval.spec.model import View
from coeval.spec.operations import operands
from coeval.spec.types import Physical
from coeval_pipelines.arrow import physical_numpy, single
from coeval_pipelines.offline.columns import logical_array

SEEN = "__seen"
"""Of computed columns: whether the view selects the row."""
_Column: TypeAlias = Sequence[Physical]


def seen_rows(view: View, inputs: Mapping[str, pa.ChunkedArray], rows: int) -> pa.Table:
    """The columns that a view computes (logical values), and `__seen`, of rows of physical values.

    `inputs` are the columns that its expressions read.
    """
    columns = {name: single(column) for name, column in inputs.items()}
    firsts, places = _distinct(list(columns.values()), rows)
    values = {name: _values(column.take(pa.array(firsts))) for name, column in columns.items()}
    seen: _Column = [1] * len(firsts)
    if view.where:
        seen = _evaluated(view.where, values, len(firsts))
    computed = {
        item.field.name: logical_array(item.field.type, _evaluated(item.expression, values, len(firsts)))
        for item in view.columns
    }
    # Neither false nor null.
    return pa.table({**computed, SEEN: pa.array([value == 1 for value in seen], pa.bool_())}).take(pa.array(places))


def _distinct(columns: Sequence[pa.Array], rows: int) -> tuple[Ints, Ints]:
    """A row of each kind, and of every row the place of its kind."""
    places = np.zeros(rows, dtype=np.int64)
    for column in columns:
        encoded = column.dictionary_encode()
        own = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
        pairs = pa.array(places * (len(encoded.dictionary) + 1) + own)
        places = pairs.dictionary_encode().indices.to_numpy().astype(np.int64)
    firsts = np.empty(int(places.max(initial=-1)) + 1, dtype=np.int64)
    firsts[places] = np.arange(rows)
    return firsts, places


def _values(column: pa.Array) -> _Column:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    values, valid = physical_numpy(column)
    return [value if there else None for value, there in zip(values.tolist(), valid.tolist(), strict=True)]


def _evaluated(expression: Expression, inputs: Mapping[str, _Column], rows: int) -> _Column:
    match expression.operation:
        case "column":
            return inputs[expression.value]
        case "literal":
            return [literal_value(expression)] * rows
        case "null":
            return [None] * rows
    columns = [_evaluated(item, inputs, rows) for item in operands(expression)]
    return [applied(expression, row) for row in zip(*columns, strict=True)]
