"""Digests of rows, and the content hash of many: the same in any order and engine. Pure; it knows Arrow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coeval_pipelines.arrow import single, wide_numpy
from coeval_pipelines.offline.columns import sql_name

Words = NDArray[np.uint64]
_LANES = 4
"""Words of 64 bits in a row's SHA-256, each summed on its own."""
_TEXT = 16
"""Bytes of the digest that stands for a text, whose length is its own."""


def row_digests(batch: pa.RecordBatch, columns: Sequence[str]) -> Words:
    """The SHA-256 of each row's values in these columns, as rows of four words."""
    parts = [np.zeros((batch.num_rows, 0), dtype=np.uint8)]
    for name in columns:
        valid, words = value_words(batch.column(name))
        parts += [valid.view(np.uint8)[:, None], np.ascontiguousarray(words).view(np.uint8)]
    rows = np.concatenate(parts, axis=1)
    width, data = rows.shape[1], memoryview(rows.tobytes())
    found = b"".join(hashlib.sha256(data[at : at + width]).digest() for at in range(0, len(data), width or 1))
    return np.frombuffer(found, dtype="<u8").reshape(-1, _LANES)


def sums(digests: Words) -> Words:
    """What digests add up to, word by word, modulo 2**64: the same for the same rows in any order."""
    total: Words = digests.sum(axis=0, dtype=np.uint64)
    return total


def nothing() -> Words:
    """The sums of no rows."""
    return np.zeros(_LANES, dtype=np.uint64)


def content_hash(schema: pa.Schema, rows: int, total: Words) -> str:
    """SHA-256 (hex) over the names and types of columns, the number of rows, and the sums of their digests."""
    document = {"columns": columns_of(schema), "rows": rows, "sums": [int(word) for word in total]}
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def columns_of(schema: pa.Schema) -> list[list[str]]:
    """Names and types, as Spark calls them."""
    return [[field.name, sql_name(field.type)] for field in schema]


def value_words(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.bool_], Words]:
    """Which values are there, and each as words of 64 bits (zero where it is null); equal values have equal words."""
    array = single(column)
    valid: NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    words = _words(array)
    return valid, np.where(valid[:, None], words, np.uint64(0)) if array.null_count else words


def _words(array: pa.Array) -> Words:
    kind = array.type
    if pa.types.is_floating(kind):
        numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.isnan(numbers), np.nan, numbers).view(np.uint64)[:, None]
    if pa.types.is_decimal128(kind):
        return wide_numpy(array).view(np.uint64).reshape(-1, 2)
    if pa.types.is_timestamp(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _integers(array)
    if pa.types.is_date32(kind):
        return _integers(array.cast(pa.int32()))
    return _texts(array)


def _integers(array: pa.Array) -> Words:
    return array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).view(np.uint64)[:, None]  # type: ignore[no-any-return]


def _texts(array: pa.Array) -> Words:
    """Texts and bytes by their own bytes; lists, structs and all else by how Python writes them."""
    plain = pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_binary(array.type)
    if not plain:
        array = pa.array([repr(value) for value in array.to_pylist()], pa.string())
    coded = array.dictionary_encode()
    values = [value.encode() if isinstance(value, str) else value for value in coded.dictionary.to_pylist()]
    known = b"".join(hashlib.blake2b(value, digest_size=_TEXT).digest() for value in values)
    words = np.frombuffer(known + bytes(_TEXT), dtype="<u8").reshape(-1, _TEXT // 8)  # the last is for nulls
    places: NDArray[np.int64] = coded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    return words[places]
