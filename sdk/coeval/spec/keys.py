"""Entity keys: one injective text per typed tuple, and the bucket that it lives in. Pure.

`i4711` is the integer 4711, `s4711` the string, `i1|s23` a pair. `%` and `|` inside a string are percent-escaped, so no
two tuples share a text. Flink and Spark build the same bytes in SQL; the bucket is Kafka's own partition of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from coeval.spec.model import Field
from coeval.spec.types import Kind, Physical

KEY_KINDS = {Kind.INT64: "i", Kind.STRING: "s", Kind.BOOL: "b", Kind.DATE: "d"}
"""Kinds that a key may have, and the letter that tells them apart."""


def encode_key(fields: Sequence[Field], values: Sequence[Physical]) -> str:
    """The text of a key, its parts in the declared order.

    Raises:
        ValueError: a part is null, or of a type that cannot be a key.
    """
    return "|".join(_encode_part(field, value) for field, value in zip(fields, values, strict=True))


def encode_keys(fields: Sequence[Field], columns: Sequence[Sequence[Physical]]) -> list[str]:
    """The texts of many keys, given as one column per field; see `encode_key`."""
    if len(fields) == 1 and fields[0].type.kind is Kind.INT64:
        return [f"i{value}" for value in columns[0]]
    return [encode_key(fields, values) for values in zip(*columns, strict=True)]


def _encode_part(field: Field, value: Physical) -> str:
    if value is None:
        raise ValueError(f"the key {field.name} is null")
    if field.type.kind not in KEY_KINDS:
        raise ValueError(f"the key {field.name} is a {field.type}; a key is int64, string, bool or date")
    text = value.replace("%", "%25").replace("|", "%7C") if isinstance(value, str) else str(value)
    return KEY_KINDS[field.type.kind] + text


def decode_key(fields: Sequence[Field], text: str) -> tuple[Physical, ...]:
    """The typed parts of an encoded key.

    Raises:
        ValueError: the text is not a key of these fields.
    """
    parts = text.split("|")
    if len(parts) != len(fields):
        raise ValueError(f"{text!r} has {len(parts)} parts, not {len(fields)}")
    values = tuple(_decode_part(field, part) for field, part in zip(fields, parts, strict=True))
    if encode_key(fields, values) != text:
        raise ValueError(f"{text!r} is not how a key is written")
    return values


def _decode_part(field: Field, part: str) -> Physical:
    if part[:1] != KEY_KINDS.get(field.type.kind):
        raise ValueError(f"{part!r} is not a {field.type}")
    if field.type.kind is Kind.STRING:
        return part[1:].replace("%7C", "|").replace("%25", "%")
    return int(part[1:])


def key_sql(fields: Sequence[Field], physical: Callable[[Field], str]) -> str:
    """The SQL, in Flink and Spark alike, that builds `encode_key` from non-null columns.

    `physical` gives the SQL of a field's physical value: a BIGINT or a STRING.
    """
    parts = ", '|', ".join(_part_sql(field, physical(field)) for field in fields)
    return f"CONCAT({parts})"


def _part_sql(field: Field, column: str) -> str:
    letter = f"'{KEY_KINDS[field.type.kind]}', "
    if field.type.kind is Kind.STRING:
        return f"{letter}REPLACE(REPLACE({column}, '%', '%25'), '|', '%7C')"
    return f"{letter}CAST({column} AS STRING)"


@lru_cache(maxsize=1 << 17)
def bucket_of(key: str, partitions: int) -> int:
    """The changelog partition of a key, computed as Kafka's default partitioner does: murmur2 of its UTF-8 bytes."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bit, with the seed that Kafka's default partitioner uses; unsigned."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if whole != len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
