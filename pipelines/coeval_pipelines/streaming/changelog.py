"""The changelog topics: their names, and the values of a poll parsed in one vectorised go. It knows pyarrow.csv.

A value is CSV: the hop of its tile (or `ROW_MARKER`), then tile or row columns, then components or features; the key of
the message is the encoded entity key. Nothing between two commas is NULL; a text stands behind a mark, so that an empty
one is not NULL.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.online.layout import TileColumns, Update, encode_tiles
from coeval.online.rows import RowColumns, encode_rows
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval.spec.types import Physical
from coeval_pipelines.arrow import stored_states
from coeval_pipelines.streaming.literals import sql_type
from coeval_pipelines.streaming.outputs import ROW_COLUMNS, ROW_MARKER, STRING_MARK, TILE_COLUMNS

_WIDE = pa.decimal128(38, 0)
_ARROW = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "STRING": pa.string(), "DECIMAL(38, 0)": _WIDE}
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Changes:
    """Messages of one shape (a granularity's tiles, or rows) of a poll, parsed.

    `index` says which message of the poll each one is; `hop` is `ROW_MARKER` for rows.
    """

    hop: int
    index: Index
    keys: Sequence[str]
    table: pa.Table


def parse(view: View, source: EventSource | None, keys: Sequence[bytes], values: Sequence[bytes]) -> list[Changes]:
    """Parse the messages of a poll, in any order and of all shapes of a view.

    Raises:
        Exception: one of them is none of this view's, of whatever kind: no two parsers agree what to raise.
    """
    markers: dict[bytes, list[int]] = {}
    for position, value in enumerate(values):
        markers.setdefault(value[: value.index(b",")], []).append(position)
    return [_parse_shape(view, source, int(marker), positions, keys, values) for marker, positions in markers.items()]


def _parse_shape(
    view: View,
    source: EventSource | None,
    hop: int,
    positions: list[int],
    keys: Sequence[bytes],
    values: Sequence[bytes],
) -> Changes:
    types = _columns(view, source, hop)
    lines = b"\n".join([values[position] for position in positions])
    table = csv.read_csv(
        io.BytesIO(lines),
        read_options=csv.ReadOptions(column_names=list(types), use_threads=False, block_size=len(lines) + 1),
        parse_options=csv.ParseOptions(newlines_in_values=isinstance(view, RowView)),
        convert_options=csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    if len(table) != len(positions):
        raise ValueError(f"{len(positions)} messages have {len(table)} lines.")
    return Changes(hop, np.array(positions, dtype=np.int64), [keys[at].decode() for at in positions], table)


def _columns(view: View, source: EventSource | None, hop: int) -> dict[str, pa.DataType]:
    if isinstance(view, WindowedView):
        assert source is not None
        components = tile_plan(view, source).granularity(hop).components
        named = {f"c:{item.name}": _ARROW[item.storage.value] for item in components}
        return {"marker": pa.int64(), **dict.fromkeys(TILE_COLUMNS, pa.int64()), **named}
    named = {f"c:{field.name}": _ARROW[sql_type(field.type)] for field in view.features}
    return {"marker": pa.int64(), **dict.fromkeys(ROW_COLUMNS, pa.int64()), **named}


def coalesce(changes: Changes, part_of: Index) -> Changes:
    """Keep, of each tile or key, only the message that the store's guard would let win: the greatest in its order.

    `part_of` says which part of the poll each of its messages belongs to; each part keeps its own.
    """
    codes = pa.array(changes.keys, pa.string()).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    if changes.hop == ROW_MARKER:
        order = [_ints(changes.table, name) for name in ("event_ts", "available_at", "log_partition", "log_offset")]
        groups = [part_of[changes.index], codes]
    else:
        order = [_ints(changes.table, "events")]
        groups = [part_of[changes.index], codes, _ints(changes.table, "tile")]
    # lexsort: the last key is the primary one; it is stable, so of equals the later message stays last.
    ranked = np.lexsort((*reversed(order), *reversed(groups)))
    last = np.ones(len(ranked), dtype=bool)
    if len(ranked) > 1:
        changed = [group[ranked[1:]] != group[ranked[:-1]] for group in groups]
        last[:-1] = np.logical_or.reduce(changed)
    winners = np.sort(ranked[last])
    kept = [changes.keys[at] for at in winners.tolist()]
    return Changes(changes.hop, changes.index[winners], kept, changes.table.take(pa.array(winners)))


def available_at(changes: Changes) -> Index:
    """The greatest available_at behind each message, in microseconds UTC."""
    return _ints(changes.table, ROW_COLUMNS[1] if changes.hop == ROW_MARKER else TILE_COLUMNS[3])


def encode(view: View, source: EventSource | None, changes: Changes) -> list[Update]:
    """The guarded writes of parsed messages, one each, in their order. The stream's epoch is 0."""
    if isinstance(view, RowView):
        return encode_rows(view, _rows(view, changes))
    assert source is not None
    plan = tile_plan(view, source)
    return encode_tiles(plan, changes.hop, _tiles(plan.granularity(changes.hop), changes), epoch=0)


def _tiles(granularity: Granularity, changes: Changes) -> TileColumns:
    table = changes.table
    states = {item.name: stored_states(item.storage, table[f"c:{item.name}"]) for item in granularity.components}
    tile, events, last_event_ts, last_available_at = (_ints(table, name) for name in TILE_COLUMNS)
    return TileColumns(changes.keys, tile, events, last_event_ts, last_available_at, states)


def _rows(view: RowView, changes: Changes) -> RowColumns:
    event_ts, available_at, partition, offset = (_ints(changes.table, name) for name in ROW_COLUMNS)
    values = {field.name: list(_physical(changes.table[f"c:{field.name}"])) for field in view.features}
    return RowColumns(changes.keys, event_ts, available_at, partition, offset, values)


def _ints(table: pa.Table, name: str) -> Index:
    values: Index = table[name].to_numpy()
    return values


def _physical(column: pa.ChunkedArray) -> Iterator[Physical]:
    if column.type == pa.string():
        return (None if value is None else value.removeprefix(STRING_MARK) for value in column.to_pylist())
    if column.type == _WIDE:
        return (None if value is None else int(value) for value in column.to_pylist())
    return iter(column.to_pylist())
