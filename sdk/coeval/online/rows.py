"""The bytes of row views, and from them to features: for few rows one by one, for many in place. Pure.

One string per key: a 40-byte header, the null bitmap, 8 bytes per feature of fixed width (16 for a decimal of more than
18 digits), then the strings. The guard is big-endian (a Lua script unpacks it), values are little-endian.

Of few rows the values are Python's from the start, as numpy would cost more than it saves; of many they stay in the
bytes that were fetched until a column is asked for. Both decoders give the same.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.online.layout import LAYOUT, NO_FLOOR, Update
from coeval.online.result import Column, Status
from coeval.spec.model import Field, RowView
from coeval.spec.types import Kind, Logical, Physical, to_logical

ROW_HEADER = struct.Struct(">Iiqqqq")
"""Layout id (one byte) and the epoch of the writer (three), partition, event_ts, available_at, offset, floor.

A row that was available at or before the floor does not count."""
_HEADER_BYTES = ROW_HEADER.size
FEW = 16
"""Up to so many rows are decoded one by one."""
_HEADER_FIELDS = ("first", "partition", "event_ts", "available_at", "offset", "floor")
_HEADER_TYPES = (">u4", ">i4", ">i8", ">i8", ">i8", ">i8")


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Rows of a row view, columnar. The four times and positions are the total order; values are physical."""

    keys: Sequence[str]
    event_ts: NDArray[np.int64]
    available_at: NDArray[np.int64]
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    values: Mapping[str, Sequence[Physical]]


class RowCodec:
    """How the rows of a view's features are laid out: worked out once, then used for every row."""

    def __init__(self, features: Sequence[Field], ttl: int = 0) -> None:
        self.features = tuple(features)
        self.ttl = ttl
        self.position = {field.name: index for index, field in enumerate(self.features)}
        self._fixed = struct.Struct("<" + "".join(_code(field) for field in self.features if not _is_text(field)))
        self._values = ROW_HEADER.size + (len(self.features) + 7) // 8
        self.size = self._values + self._fixed.size
        """Bytes of a row without its strings."""
        self.plain = not any(_is_text(field) or field.type.is_wide for field in self.features)
        self._no_nulls = bytes(self._values - ROW_HEADER.size)
        self.names = tuple(field.name for field in self.features)
        self.units = np.array([float(10**field.type.scale) for field in self.features])
        self.has_units = bool((self.units != 1).any())
        self.nothing: tuple[Physical, ...] = (None,) * len(self.features)
        self.layout = (self.size, self._values, self._no_nulls, self._fixed.unpack_from, ROW_HEADER.unpack_from)
        """What a plain row is read by: its size, where its nulls end, those of none, how values and header are read."""
        self.floats = self.plain and all(field.type.kind is Kind.FLOAT64 for field in self.features)
        self.values_at = self._values

    def read(
        self, blobs: Sequence[bytes | None], features: Sequence[str], doubted: Sequence[bool], q: int
    ) -> FewRows | ManyRows:
        """The rows of some keys at q (microseconds UTC); of what is `doubted`, no value may be believed.

        `features` are those of interest; the others are there too, as nothing is decoded before it is asked for.
        """
        del features
        return (FewRows if len(blobs) <= FEW else ManyRows)(self, blobs, doubted, q)

    def encode(self, values: Sequence[Physical]) -> bytes:
        """What follows the header: nulls, fixed values, strings."""
        nulls = bytearray(self._no_nulls)
        fixed: list[Physical | bytes] = []
        tail = bytearray()
        for index, (field, value) in enumerate(zip(self.features, values, strict=True)):
            if value is None:
                nulls[index // 8] |= 1 << index % 8
            if _is_text(field):
                text = str(value or "").encode()
                tail += struct.pack("<I", len(text)) + text
            elif field.type.is_wide:
                fixed.append(int(value or 0).to_bytes(16, "little", signed=True))
            else:
                fixed.append(0 if value is None else value)
        return bytes(nulls) + self._fixed.pack(*fixed) + bytes(tail)

    def decode(self, blob: bytes) -> Sequence[Physical]:
        """The physical values of a stored row."""
        nulls = blob[ROW_HEADER.size : self._values]
        fixed = self._fixed.unpack_from(blob, self._values)
        if self.plain and nulls == self._no_nulls:
            return fixed
        texts = iter(self.texts(blob))
        numbers = iter(fixed)
        values: list[Physical] = []
        for index, field in enumerate(self.features):
            value: Physical = next(texts) if _is_text(field) else _number(field, next(numbers))
            values.append(None if nulls[index // 8] >> index % 8 & 1 else value)
        return values

    def texts(self, blob: bytes) -> list[str]:
        """The strings of a stored row, in their order; an absent one is empty."""
        found: list[str] = []
        position = self.size
        while position < len(blob):
            end = position + 4 + int.from_bytes(blob[position : position + 4], "little")
            found.append(blob[position + 4 : end].decode())
            position = end
        return found

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """A stored row without its strings."""
        values = [
            (f"v{index}", "V16" if field.type.is_wide else "<f8" if field.type.kind is Kind.FLOAT64 else "<i8")
            for index, field in enumerate(self.features)
            if not _is_text(field)
        ]
        header: list[Any] = list(zip(_HEADER_FIELDS, _HEADER_TYPES, strict=True))
        return np.dtype([*header, ("nulls", "u1", (len(self._no_nulls),)), *values])


def _code(field: Field) -> str:
    if field.type.is_wide:
        return "16s"
    return "d" if field.type.kind is Kind.FLOAT64 else "q"


def _is_text(field: Field) -> bool:
    return field.type.kind is Kind.STRING


def _number(field: Field, value: Any) -> int | float:
    return int.from_bytes(value, "little", signed=True) if field.type.is_wide else value


def encode_rows(view: RowView, columns: RowColumns, epoch: int = 0) -> list[Update]:
    """The guarded writes of rows. Batch runs have an epoch of at least 1 (below 2^24), the stream has 0."""
    codec, first = RowCodec(view.features), LAYOUT << 24 | epoch
    order = zip(
        columns.partition.tolist(),
        columns.event_ts.tolist(),
        columns.available_at.tolist(),
        columns.offset.tolist(),
        strict=True,
    )
    rows = zip(*(columns.values[field.name] for field in view.features), strict=True)
    return [
        Update(key, ROW_HEADER.pack(first, *position, NO_FLOOR) + codec.encode(row))
        for key, position, row in zip(columns.keys, order, rows, strict=True)
    ]


def decode_row(features: Sequence[Field], blob: bytes) -> tuple[tuple[int, int, int, int], Sequence[Physical]]:
    """The order (event_ts, available_at, partition, offset) and the physical values of a stored row."""
    _, partition, event_ts, available_at, offset, _ = ROW_HEADER.unpack_from(blob)
    return (event_ts, available_at, partition, offset), RowCodec(features).decode(blob)


class FewRows:
    """Rows that were decoded one by one: a `Block`."""

    def __init__(self, codec: RowCodec, blobs: Sequence[bytes | None], doubted: Sequence[bool], q: int) -> None:
        self._codec = codec
        oldest = q - codec.ttl
        self._full = codec.plain
        self._rows: list[Sequence[Physical]] = []
        self._absent: list[int] = []
        self._times: list[int] = []
        if not doubted and codec.plain and self._read_plain(blobs, oldest):
            return
        self._rows, self._times = [], []
        for index, blob in enumerate(blobs):
            event_ts, absent = 0, 0
            row: Sequence[Physical] = codec.nothing
            if doubted and doubted[index]:
                absent = Status.UNAVAILABLE
            elif blob is None:
                absent = Status.NOT_FOUND
            elif blob[0] != LAYOUT or len(blob) < codec.size:
                absent = Status.UNAVAILABLE
            else:
                _, _, event_ts, available_at, _, floor = ROW_HEADER.unpack_from(blob)
                if available_at <= floor:
                    event_ts, absent = 0, Status.NOT_FOUND
                elif codec.ttl and event_ts < oldest:
                    absent = Status.EXPIRED
                else:
                    row = codec.decode(blob)
            # A list is a row with nulls, texts or wide numbers: what is not decoded in one go.
            self._full = self._full and absent == 0 and isinstance(row, tuple)
            self._rows.append(row)
            self._absent.append(absent)
            self._times.append(event_ts)

    def _read_plain(self, blobs: Sequence[bytes | None], oldest: int) -> bool:
        """Read rows that are all there and without nulls, as most are; False: some are not, or may not be."""
        codec, rows, times = self._codec, self._rows, self._times
        size, nulls_end, no_nulls, unpack, header = codec.layout
        for blob in blobs:
            if blob is None or len(blob) != size or blob[0] != LAYOUT or blob[_HEADER_BYTES:nulls_end] != no_nulls:
                return False
            _, _, event_ts, available_at, _, floor = header(blob)
            if available_at <= floor or (codec.ttl and event_ts < oldest):
                return False
            rows.append(unpack(blob, nulls_end))
            times.append(event_ts)
        self._absent = [0] * len(rows)
        return True

    @property
    def event_ts(self) -> NDArray[np.int64]:
        """See `Block`."""
        return np.array(self._times, dtype=np.int64)

    @property
    def present(self) -> bool:
        """See `Block`."""
        return self._full

    def plain(self, names: Sequence[str]) -> Sequence[Sequence[Any]] | None:
        """See `Block`."""
        codec = self._codec
        return self._rows if self._full and self._rows and names == codec.names and not codec.has_units else None

    def column(self, name: str) -> Column:
        """See `Block`."""
        at = self._codec.position[name]
        data_type = self._codec.features[at].type
        values = [row[at] for row in self._rows]
        null = np.array([value is None for value in values], dtype=bool)
        return Column(data_type, _as_array(data_type, values), null, self.codes([name])[:, 0])

    def logical(self, name: str) -> list[Logical]:
        """See `Block`."""
        at = self._codec.position[name]
        data_type = self._codec.features[at].type
        return [to_logical(data_type, row[at]) for row in self._rows]

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """See `Block`."""
        codec = self._codec
        chosen = [codec.position[name] for name in names]
        rows: list[list[Any]] = [[row[at] for at in chosen] for row in self._rows]
        values = [[math.nan if value is None else float(value) for value in row] for row in rows]
        matrix = np.array(values, dtype=np.float64).reshape(len(rows), len(chosen))
        matrix /= codec.units[chosen]
        return matrix

    def codes(self, names: Sequence[str]) -> NDArray[np.int8]:
        """See `Block`."""
        codes = np.zeros((len(self._rows), len(names)), dtype=np.int8)
        if not self._full:
            chosen = [self._codec.position[name] for name in names]
            for index, (row, absent) in enumerate(zip(self._rows, self._absent, strict=True)):
                codes[index] = absent or [Status.NULL if row[at] is None else Status.PRESENT for at in chosen]
        return codes


class ManyRows:
    """Rows that are still the bytes that were fetched: a `Block`."""

    def __init__(self, codec: RowCodec, blobs: Sequence[bytes | None], doubted: Sequence[bool], q: int) -> None:
        self._codec = codec
        self._blobs = blobs
        self.present = False
        if not doubted and not codec.ttl and codec.plain and self._read_plain():
            return
        nothing = bytes(codec.size)
        parts = [nothing if blob is None else blob[: codec.size] for blob in blobs]
        self._table = np.frombuffer(b"".join([part.ljust(codec.size, b"\0") for part in parts]), dtype=codec.dtype)
        event_ts = self._table["event_ts"].astype(np.int64)
        stored = self._table["first"] != 0
        gone = ~stored | (self._table["available_at"] <= self._table["floor"])
        unknown = stored & (self._table["first"] >> 24 != LAYOUT)
        unknown |= np.array([blob is not None and len(blob) < codec.size for blob in blobs], dtype=bool)
        if doubted:
            unknown |= np.asarray(doubted, dtype=bool)
        absent = np.where(unknown, Status.UNAVAILABLE, np.where(gone, Status.NOT_FOUND, 0)).astype(np.int8)
        if codec.ttl:
            absent[(absent == 0) & (event_ts < q - codec.ttl)] = Status.EXPIRED
        event_ts[gone | unknown] = 0
        self._absent = absent
        self.event_ts: NDArray[np.int64] = event_ts

    def _read_plain(self) -> bool:
        """Read rows that are all there and without nulls, as most are; False: some are not, or may not be."""
        codec, blobs = self._codec, self._blobs
        if None in blobs or set(map(len, blobs)) != {codec.size}:  # type: ignore[arg-type]
            return False
        table = np.frombuffer(b"".join(blobs), dtype=codec.dtype)  # type: ignore[arg-type]
        known = (table["first"] >> 24 == LAYOUT).all() and (table["available_at"] > table["floor"]).all()
        if not known or table["nulls"].any():
            return False
        self._table = table
        self._absent = np.zeros(len(blobs), dtype=np.int8)
        self.event_ts = table["event_ts"].astype(np.int64)
        self.present = True
        return True

    def plain(self, names: Sequence[str]) -> None:
        """See `Block`."""
        del names

    def column(self, name: str) -> Column:
        """See `Block`."""
        at = self._codec.position[name]
        field = self._codec.features[at]
        null = self._nulls[:, at]
        values: NDArray[Any]
        if _is_text(field):
            order = [item.name for item in self._codec.features if _is_text(item)].index(name)
            values = _as_array(
                field.type,
                [None if skip else self._texts[row][order] for row, skip in enumerate(null.tolist())],
            )
        elif field.type.is_wide:
            numbers = zip(self._table[f"v{at}"].tolist(), null.tolist(), strict=True)
            values = _as_array(field.type, [None if skip else _number(field, item) for item, skip in numbers])
        else:
            values = np.where(null, 0, self._table[f"v{at}"])
        return Column(field.type, values, null, self._codes[:, at])

    def logical(self, name: str) -> list[Logical]:
        """See `Block`."""
        return self.column(name).logical()

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """See `Block`."""
        codec = self._codec
        if self.present and codec.floats and names == codec.names:
            raw = self._table.view(np.uint8).reshape(len(self._table), codec.size)
            return np.ascontiguousarray(raw[:, codec.values_at :]).view("<f8")
        chosen = [codec.position[name] for name in names]
        found = np.empty((len(self._table), len(chosen)))
        for to, at in enumerate(chosen):
            if codec.features[at].type.is_wide:
                found[:, to] = [float(_number(codec.features[at], item)) for item in self._table[f"v{at}"].tolist()]
            else:
                found[:, to] = self._table[f"v{at}"]
        found /= codec.units[chosen]
        found[self._nulls[:, chosen]] = np.nan
        return found

    def codes(self, names: Sequence[str]) -> NDArray[np.int8]:
        """See `Block`."""
        return self._codes[:, [self._codec.position[name] for name in names]]

    @cached_property
    def _nulls(self) -> NDArray[np.bool_]:
        """Where there is no value, (rows, features)."""
        bits = np.unpackbits(self._table["nulls"], axis=1, count=len(self._codec.features), bitorder="little")
        nulls: NDArray[np.bool_] = bits.astype(bool)
        nulls[self._absent != 0] = True
        return nulls

    @cached_property
    def _codes(self) -> NDArray[np.int8]:
        codes = self._nulls.astype(np.int8)
        gone = self._absent != 0
        codes[gone] = self._absent[gone, None]
        return codes

    @cached_property
    def _texts(self) -> list[list[str]]:
        return [[] if blob is None else self._codec.texts(blob) for blob in self._blobs]


def _as_array(data_type: Any, values: Sequence[Physical]) -> NDArray[Any]:
    if data_type.kind is Kind.STRING or data_type.is_wide:
        return np.array(values, dtype=object)
    kind = np.float64 if data_type.kind is Kind.FLOAT64 else np.int64
    return np.array([0 if value is None else value for value in values], dtype=kind)
