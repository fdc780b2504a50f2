"""Types between the manifest, Arrow, Spark and numpy: one mapping each, both ways. Pure; it knows Arrow.

Tables hold logical values (DECIMAL, TIMESTAMP, BOOLEAN, ...); aggregation and the online store take physical ones
(int64, see `coeval.spec.types`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coeval.aggregations.partial import Finalised
from coeval.aggregations.states import to_wide
from coeval.arrow import arrow_type
from coeval.spec.model import Field
from coeval.spec.types import DataType, Kind, Physical
from coeval_pipelines.arrow import wide_numpy

_SQL = {
    Kind.INT64: "BIGINT",
    Kind.FLOAT64: "DOUBLE",
    Kind.STRING: "STRING",
    Kind.BOOL: "BOOLEAN",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.DATE: "DATE",
}


def sql_type(data_type: DataType) -> str:
    """The Spark SQL type of logical values."""
    if data_type.kind is Kind.DECIMAL:
        return f"DECIMAL({data_type.precision},{data_type.scale})"
    return _SQL[data_type.kind]


def sql_name(arrow: pa.DataType) -> str:
    """What Spark calls the type of a column that Arrow read of the same file."""
    if pa.types.is_timestamp(arrow):
        return "timestamp" if arrow.tz else "timestamp_ntz"
    if pa.types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    return _NAMES.get(arrow, str(arrow))


_NAMES = {
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.large_string(): "string",
    pa.bool_(): "boolean",
    pa.date32(): "date",
}


def given_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which Spark would give values of a type back; None where it has none."""
    types = pa.types
    if types.is_dictionary(kind):
        return given_type(kind.value_type)
    if types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC" if kind.tz else None)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        element = given_type(kind.value_type)
        return None if element is None else pa.list_(pa.field("element", element))
    if types.is_struct(kind):
        fields = {field.name: given_type(field.type) for field in kind}
        return None if None in fields.values() else pa.struct(list(fields.items()))
    if types.is_map(kind):
        key, item = given_type(kind.key_type), given_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    return kind if types.is_decimal128(kind) else _GIVEN.get(kind)


_SAME = (*_NAMES, pa.null(), pa.string(), pa.binary())
_GIVEN = {
    **{kind: kind for kind in _SAME},
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}


def quoted(name: str) -> str:
    """A column name in Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


def physical_sql(field: Field, column: str) -> str:
    """The Spark SQL expression of the physical value of a column: BIGINT, DECIMAL(38,0), DOUBLE or STRING."""
    match field.type.kind:
        case Kind.DECIMAL if field.type.is_wide:
            # Its digits: a product of that many would leave 38.
            return f"CAST(REPLACE(CAST({column} AS STRING), '.', '') AS DECIMAL(38,0))"
        case Kind.DECIMAL:
            return f"CAST({column} * {10**field.type.scale}BD AS BIGINT)" if field.type.scale else _bigint(column)
        case Kind.TIMESTAMP:
            return f"UNIX_MICROS({column})"
        case Kind.DATE:
            return f"CAST(UNIX_DATE({column}) AS BIGINT)"
        case Kind.BOOL:
            return _bigint(column)
        case _:
            return column


def logical_sql(data_type: DataType, physical: str) -> str:
    """The Spark SQL expression of the logical value of a physical one."""
    match data_type.kind:
        case Kind.DECIMAL:
            # By its text: a product of that many digits would leave 38.
            return f"CAST(CONCAT(CAST({physical} AS STRING), 'e-{data_type.scale}') AS {sql_type(data_type)})"
        case Kind.TIMESTAMP:
            return f"TIMESTAMP_MICROS({physical})"
        case Kind.DATE:
            return f"DATE_FROM_UNIX_DATE(CAST({physical} AS INT))"
        case Kind.BOOL:
            return f"({physical}) = 1"
        case _:
            return f"CAST({physical} AS {sql_type(data_type)})"


def _bigint(column: str) -> str:
    return f"CAST({column} AS BIGINT)"


def logical_array(data_type: DataType, values: Sequence[Physical]) -> pa.Array:
    """Physical values, None for null, as an Arrow array of logical ones."""
    if data_type.kind is Kind.DECIMAL:
        null = np.fromiter((value is None for value in values), dtype=bool, count=len(values))
        return _decimals(data_type, np.array([0 if v is None else v for v in values], dtype=object), null)
    if data_type.kind in (Kind.STRING, Kind.FLOAT64, Kind.INT64):
        return pa.array(values, arrow_type(data_type))
    return pa.array(values, pa.int64()).cast(_storage(data_type)).cast(arrow_type(data_type))


def physical_array(data_type: DataType, column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column of logical values as physical ones: int64, float64 or text; decimals stay as they are."""
    match data_type.kind:
        case Kind.DATE:
            return column.cast(pa.int32()).cast(pa.int64())
        case Kind.TIMESTAMP | Kind.BOOL:
            return column.cast(pa.int64())
        case _:
            return column


def finalised_array(data_type: DataType, finalised: Finalised) -> pa.Array:
    """Finalised values of a feature as an Arrow array of logical ones; beyond the type is null."""
    null = finalised.null | finalised.overflow
    if data_type.kind is Kind.DECIMAL:
        return _decimals(data_type, finalised.values, null)
    values = finalised.values
    if values.dtype == object:
        values = np.where(null, 0, values).astype(np.int64)
    array = pa.array(values, mask=null)
    if data_type.kind in (Kind.INT64, Kind.FLOAT64):
        return array
    return array.cast(_storage(data_type)).cast(arrow_type(data_type))


def _storage(data_type: DataType) -> pa.DataType:
    return {Kind.BOOL: pa.int64(), Kind.TIMESTAMP: pa.timestamp("us"), Kind.DATE: pa.int32()}[data_type.kind]


def _decimals(data_type: DataType, unscaled: NDArray[Any], null: NDArray[np.bool_]) -> pa.Array:
    limbs = to_wide(np.where(null, 0, unscaled))
    valid = pa.array(~null).buffers()[1]
    return pa.Array.from_buffers(arrow_type(data_type), len(limbs), [valid, pa.py_buffer(limbs)])


def derived_input(array: pa.Array) -> NDArray[Any]:
    """A column as derived features take it: float64 with NaN for null, text as objects with None."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        texts: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return texts
    if pa.types.is_decimal(array.type):
        return _decimal_numbers(array)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    elif pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        array = array.cast(pa.int64() if pa.types.is_timestamp(array.type) else pa.int32())
    numbers: NDArray[Any] = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def _decimal_numbers(array: pa.Array) -> NDArray[np.float64]:
    """Unscaled over a power of ten in float64: as the SDK does it, so that both sides round alike."""
    limbs = wide_numpy(array)
    narrow = limbs["low"].astype(np.int64)
    if bool(np.all((limbs["high"] == narrow >> 63) | ~array.is_valid().to_numpy(zero_copy_only=False))):
        unscaled = narrow.astype(np.float64)
    else:
        unscaled = np.array([(int(x["high"]) << 64) + int(x["low"]) for x in limbs], dtype=object).astype(np.float64)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return np.where(valid, np.where(valid, unscaled, 0.0) / 10**array.type.scale, np.nan)


def derived_output(data_type: DataType, values: NDArray[Any]) -> pa.Array:
    """What a derived function returned as an Arrow column of its declared type."""
    if data_type.kind is Kind.STRING:
        return pa.array(values, pa.string())
    null = np.isnan(values)
    array = pa.array(values, mask=null)
    return array if data_type.kind is Kind.FLOAT64 else _rounded(data_type, values, null)


def _rounded(data_type: DataType, values: NDArray[np.float64], null: NDArray[np.bool_]) -> pa.Array:
    scaled = np.rint(np.where(null, 0, values) * 10**data_type.scale)
    if data_type.kind is Kind.DECIMAL:
        return _decimals(data_type, np.array([int(value) for value in scaled], dtype=object), null)
    array = pa.array(scaled.astype(np.int64), mask=null)
    return array if data_type.kind is Kind.INT64 else array.cast(_storage(data_type)).cast(arrow_type(data_type))
