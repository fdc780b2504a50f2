"""From stored bytes to columns of values and statuses at an instant: decode, mask, merge, finalise. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import COUNT_OP, Component, Finalised
from coeval.aggregations.states import Ints, Mask, Numbers
from coeval.aggregations.tiles import Granularity, aggregate_column, tile_plan
from coeval.online.layout import NO_FLOOR, TILE_BIAS, Tiles, decode_row, decode_tiles, is_erased
from coeval.online.result import Column, Status
from coeval.spec.model import Aggregate, EventSource, Field, RowView, WindowedView
from coeval.spec.time import floor_to
from coeval.spec.types import Kind, Physical


def read_windows(
    view: WindowedView, source: EventSource, blobs: Sequence[bytes | None], features: Sequence[str], q: int
) -> tuple[dict[str, Column], Ints]:
    """Columns of a windowed view's features at q, and the newest event time per key (0 where nothing is stored)."""
    plan = tile_plan(view, source)
    tiles = decode_tiles(plan, blobs)
    wanted = set(features)
    columns: dict[str, Column] = {}
    for aggregate, field in zip(view.aggregates, view.features, strict=True):
        if aggregate.feature in wanted:
            finalised = _merge_window(aggregate, source, plan.granularity(aggregate.hop), tiles, q)
            columns[aggregate.feature] = _column(field, finalised, tiles.stored)
    return {name: columns[name] for name in features}, tiles.last_event_ts


def _merge_window(
    aggregate: Aggregate, source: EventSource, granularity: Granularity, tiles: Tiles, q: int
) -> Finalised:
    ring = tiles.rings[aggregate.hop]
    oldest = floor_to(q - aggregate.window, aggregate.hop) // aggregate.hop
    newest = (q - 1) // aggregate.hop
    index = ring["tile"].astype(np.int64) - TILE_BIAS
    mask: Mask = (index >= oldest) & (index <= newest)
    if (tiles.floor != NO_FLOOR).any():
        mask &= ~_erased(tiles, ring, index, aggregate.hop)
    events: Ints = np.where(mask, ring["events"].astype(np.int64), 0).sum(axis=1)
    column = aggregate_column(aggregate, source)
    needed = AGGREGATIONS[aggregate.function].components(column)
    if column is not None:
        # A tile may hold events without a value of this column: its other components then mean nothing.
        mask &= ring[Component(COUNT_OP, column.name).name] > 0
    state: dict[str, Numbers] = {item.op.name: item.op.reduce(ring[item.name], mask, index) for item in needed}
    return AGGREGATIONS[aggregate.function].finalise(events, state, column.type if column else None)


def _erased(tiles: Tiles, ring: NDArray[np.void], index: Ints, hop: int) -> Mask:
    """The tiles that may hold what was erased: written before the erasure, of a time up to the floor."""
    below: Mask = index <= (tiles.floor // hop)[:, None]
    return below & (ring["epoch"].astype(np.int64) <= tiles.floor_epoch[:, None])


def _column(field: Field, finalised: Finalised, stored: Mask) -> Column:
    status = np.where(finalised.null, Status.NULL, Status.PRESENT).astype(np.int8)
    status[finalised.overflow] = Status.OVERFLOW
    status[~stored] = Status.NOT_FOUND
    return Column(field.type, finalised.values, finalised.null, status)


def read_rows(
    view: RowView, blobs: Sequence[bytes | None], features: Sequence[str], q: int
) -> tuple[dict[str, Column], Ints]:
    """Columns of a row view's features at q, and the event time per key (0 where nothing is stored)."""
    rows: list[list[Physical]] = []
    event_ts = np.zeros(len(blobs), dtype=np.int64)
    absent = np.zeros(len(blobs), dtype=np.int8)
    for index, blob in enumerate(blobs):
        if blob is None or is_erased(blob):
            absent[index] = Status.NOT_FOUND
            rows.append([None] * len(view.features))
            continue
        order, values = decode_row(view.features, blob)
        event_ts[index] = order[0]
        if view.ttl and order[0] < q - view.ttl:
            absent[index] = Status.EXPIRED
            values = [None] * len(view.features)
        rows.append(values)
    position = {field.name: index for index, field in enumerate(view.features)}
    columns = {
        name: _row_column(view.features[position[name]], [row[position[name]] for row in rows], absent)
        for name in features
    }
    return columns, event_ts


def _row_column(field: Field, values: Sequence[Physical], absent: NDArray[np.int8]) -> Column:
    null = np.fromiter((value is None for value in values), dtype=bool, count=len(values))
    status = np.where(absent != 0, absent, np.where(null, Status.NULL, Status.PRESENT)).astype(np.int8)
    filled: NDArray[Any]
    if field.type.kind is Kind.STRING or field.type.is_wide:
        filled = np.array(values, dtype=object)
    else:
        kind = np.float64 if field.type.kind is Kind.FLOAT64 else np.int64
        filled = np.array([0 if value is None else value for value in values], dtype=kind)
    return Column(field.type, filled, null, status)


def unavailable(field: Field, rows: int) -> Column:
    """A column of a view that cannot be believed now: no value at all."""
    return Column(
        field.type,
        np.zeros(rows, dtype=object if field.type.kind is Kind.STRING else np.int64),
        np.ones(rows, dtype=bool),
        np.full(rows, Status.UNAVAILABLE, dtype=np.int8),
    )
