"""The Arrow types of values as users see them, and results as tables of them. It knows pyarrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coeval.spec.types import DataType, Kind

if TYPE_CHECKING:
    from coeval.online.result import FeatureResult

_TYPES: dict[Kind, Any] = {
    Kind.INT64: pa.int64(),
    Kind.FLOAT64: pa.float64(),
    Kind.STRING: pa.string(),
    Kind.BOOL: pa.bool_(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.DATE: pa.date32(),
}


def arrow_type(data_type: DataType) -> pa.DataType:
    """The Arrow type of logical values."""
    if data_type.kind is Kind.DECIMAL:
        return pa.decimal128(data_type.precision, data_type.scale)
    return _TYPES[data_type.kind]


def to_arrow(result: FeatureResult) -> pa.Table:
    """Entities (of the types that Arrow infers) and features as a table."""
    columns: dict[str, Any] = {name: pa.array(values) for name, values in result.entities.items()}
    for name, column in result.columns.items():
        columns[name] = pa.array(column.logical(), type=arrow_type(column.type))
    return pa.table(columns)
