"""The bytes of windowed views: headers and tile slots; and the guarded writes made of them. Pure.

One string per key: a 32-byte header, then per granularity (coarse first) a ring of slots; a tile's slot is its index
modulo the ring. A ring that was never written may be missing at the end: absent bytes are empty slots.
A header ends with the key's erasure floor (see `coeval.online.erase`).
Guards are big-endian (a Lua script unpacks them), state is little-endian (numpy reads it in place).
Row views are laid out by `coeval.online.rows`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.tiles import Granularity, TilePlan

LAYOUT = 3
TILE_HEADER = struct.Struct(">B3xIqqq")
"""Layout id, epoch of the floor, the greatest event_ts and available_at (microseconds UTC) of what was written, floor.

A tile that starts at or before the floor counts only if its epoch is greater than the floor's."""
NO_FLOOR = -(2**63)
"""The floor of a key of which nothing was erased."""
TILE_BIAS = 2**52
"""Added to a tile index, so that it is positive and 0 means an empty slot; Lua's numbers are exact to twice that."""

_WRITE_PREFIX = struct.Struct(">Iqqq")
"""Of a tile's payload: the byte that its slot begins at, its last_event_ts and last_available_at, where it starts."""


@dataclass(frozen=True, slots=True)
class Update:
    """One guarded absolute write: the encoded entity key, and what the store's script is given for it."""

    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class TileColumns:
    """Tiles of one granularity, columnar; every array has one entry per tile.

    `last_event_ts` and `last_available_at` are the greatest of the tile's events (microseconds UTC); `states` hold one
    array per component, in the dtype of its storage.
    """

    keys: Sequence[str]
    tile: NDArray[np.int64]
    events: NDArray[np.int64]
    last_event_ts: NDArray[np.int64]
    last_available_at: NDArray[np.int64]
    states: Mapping[str, NDArray[Any]]


def ring_offset(plan: TilePlan, hop: int) -> int:
    """The byte at which the ring of a granularity begins."""
    start = TILE_HEADER.size
    for granularity in plan.granularities:
        if granularity.hop == hop:
            return start
        start += granularity.slots * granularity.dtype.itemsize
    raise KeyError(hop)


def blob_size(plan: TilePlan) -> int:
    """Bytes of a key whose every ring exists."""
    return TILE_HEADER.size + plan.bytes_per_key


def encode_tiles(plan: TilePlan, hop: int, columns: TileColumns, epoch: int) -> list[Update]:
    """The guarded writes of tiles of one granularity. Batch runs have an epoch of at least 1, the stream has 0."""
    granularity = plan.granularity(hop)
    slots = np.zeros(len(columns.keys), dtype=granularity.dtype)
    slots["tile"] = columns.tile + TILE_BIAS
    slots["epoch"] = epoch
    slots["events"] = columns.events
    for component in granularity.components:
        slots[component.name] = columns.states[component.name]
    positions = ring_offset(plan, hop) + columns.tile % granularity.slots * granularity.dtype.itemsize
    return [
        Update(key, _WRITE_PREFIX.pack(position, event_ts, available_at, start) + slot)
        for key, position, event_ts, available_at, start, slot in zip(
            columns.keys,
            positions.tolist(),
            columns.last_event_ts.tolist(),
            columns.last_available_at.tolist(),
            (columns.tile * hop).tolist(),
            slots.view(f"V{slots.dtype.itemsize}").tolist(),
            strict=True,
        )
    ]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Many keys of a windowed view, decoded in place: per granularity a (keys, slots) structured array.

    A key that is not stored has empty slots; `stored` tells which are, `unknown` which are laid out in a way that this
    release does not know. Times are microseconds UTC, 0 where not stored. `floor` (microseconds UTC, NO_FLOOR for none)
    and its epoch say which tiles of a key are erased.
    """

    stored: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    last_event_ts: NDArray[np.int64]
    last_available_at: NDArray[np.int64]
    floor: NDArray[np.int64]
    floor_epoch: NDArray[np.int64]
    rings: Mapping[int, NDArray[np.void]]


def decode_tiles(plan: TilePlan, blobs: Sequence[bytes | None]) -> Tiles:
    """Decode the blobs of an MGET; missing ends of rings and missing keys read as empty slots."""
    size = blob_size(plan)
    raw = np.frombuffer(b"".join([(blob or b"")[:size].ljust(size, b"\0") for blob in blobs]), dtype=np.uint8)
    table = raw.reshape(len(blobs), size)
    header = np.ascontiguousarray(table[:, : TILE_HEADER.size]).view(_HEADER)[:, 0]
    stored = header["layout"] != 0
    return Tiles(
        stored,
        stored & (header["layout"] != LAYOUT),
        header["event_ts"].astype(np.int64),
        header["available_at"].astype(np.int64),
        np.where(stored, header["floor"].astype(np.int64), NO_FLOOR),
        header["epoch"].astype(np.int64),
        {item.hop: _ring(table, plan, item) for item in plan.granularities},
    )


_HEADER = np.dtype(
    [("layout", "u1"), ("pad", "V3"), ("epoch", ">u4"), ("event_ts", ">i8"), ("available_at", ">i8"), ("floor", ">i8")]
)


def _ring(table: NDArray[np.uint8], plan: TilePlan, granularity: Granularity) -> NDArray[np.void]:
    start = ring_offset(plan, granularity.hop)
    end = start + granularity.slots * granularity.dtype.itemsize
    return np.ascontiguousarray(table[:, start:end]).view(granularity.dtype)
