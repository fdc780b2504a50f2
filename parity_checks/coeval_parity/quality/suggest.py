"""A suite that holds of the data as it is, to begin one's own with. It knows Arrow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coeval_parity.quality.rules import Rule

MAX_VALUES = 20
"""Of more different values than these, none is singled out."""
_MARGIN = 0.5
"""How far beyond what was seen a bound lies, as a share of the range that was seen."""


def suggest(table: pa.Table, columns: Iterable[str]) -> list[Rule]:
    """Bounds with room, values where there are few, and what share may be null, of each column."""
    return [rule for name in columns for rule in _of_column(name, table.column(name))]


def _of_column(name: str, column: pa.ChunkedArray) -> list[Rule]:
    nulls, rows = column.null_count, len(column)
    if not rows or nulls == rows:
        return []
    share = {} if not nulls else {"mostly": math.floor((1 - nulls / rows) * 0.95 * 100) / 100}
    rules = [Rule("expect_column_values_to_not_be_null", {"column": name, **share})]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = pc.unique(column).drop_null()
        if len(values) <= MAX_VALUES:
            allowed = sorted(values.to_pylist())
            rules.append(Rule("expect_column_values_to_be_in_set", {"column": name, "value_set": allowed}))
    elif _is_number(column.type):
        rules.append(Rule("expect_column_values_to_be_between", {"column": name, **_bounds(column)}))
    return rules


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _bounds(column: pa.ChunkedArray) -> dict[str, Any]:
    found = pc.min_max(pc.cast(column, pa.float64(), safe=False))
    low, high = found["min"].as_py(), found["max"].as_py()
    room = _MARGIN * (high - low)
    # What was never negative is not expected to become so.
    least = 0 if low >= 0 else math.floor(low - room)
    return {"min_value": least, "max_value": math.ceil(high + room)}
