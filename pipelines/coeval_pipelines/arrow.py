"""Arrow columns of physical values to numpy, in both engines' paths alike. Pure; it knows Arrow."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coeval.aggregations.states import WIDE, Numbers, Storage, from_limbs


def single(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def physical_numpy(column: pa.Array | pa.ChunkedArray) -> tuple[Numbers, NDArray[np.bool_]]:
    """A column of numbers, and where it is not null (the entry of a null means nothing).

    int64 of integers and of decimals that fit it, float64 of doubles, else Python integers (unscaled) as objects.
    """
    array = single(column)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_decimal(array.type):
        limbs = wide_numpy(pc.fill_null(array, pa.scalar(Decimal(0), array.type)) if array.null_count else array)
        return from_limbs(limbs["low"], limbs["high"]), valid
    filled = pc.fill_null(array, 0) if array.null_count else array
    dtype = np.float64 if pa.types.is_floating(array.type) else np.int64
    return filled.to_numpy(zero_copy_only=False).astype(dtype, copy=False), valid


def wide_numpy(array: pa.Array) -> NDArray[np.void]:
    """A decimal128 column without nulls as 16-byte states: the bytes are the same."""
    return np.frombuffer(array.buffers()[1], dtype=WIDE)[array.offset : array.offset + len(array)]


def stored_states(storage: Storage, column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A component's column as its slots store it; it has no nulls."""
    if storage is Storage.WIDE:
        return wide_numpy(single(column).cast(pa.decimal128(38, 0)))
    return physical_numpy(column)[0]
