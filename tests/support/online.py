"""Writes events to a real online store as the stream would, but computed by the oracle: for tests of writer and reader."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from coeval.aggregations.partial import Component, to_wide
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.online.layout import RowColumns, TileColumns, Update, encode_rows, encode_tiles
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of
from coeval.spec.keys import bucket_of, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import RowView, View, WindowedView
from coeval.spec.records import Event
from tests.support.events import expected_tiles

FIRST = -(2**62)


def updates(
    view: View, manifest: Manifest, events: Sequence[Event], since: int = FIRST, epoch: int = 0
) -> list[Update]:
    """The guarded writes that these events lead to."""
    source = manifest.event_source(view)
    if isinstance(view, RowView):
        return encode_rows(view, _rows(view, events))
    plan = tile_plan(view, source)
    found: list[Update] = []
    for granularity in plan.granularities:
        tiles = expected_tiles(view, source, events, granularity.hop, since)
        found += encode_tiles(plan, granularity.hop, _tiles(view, granularity, tiles), epoch)
    return found


def write(writer: OnlineWriter, view: View, found: Sequence[Update]) -> None:
    """Apply updates bucket by bucket, in their order."""
    buckets: dict[int, list[Update]] = defaultdict(list)
    for update in found:
        buckets[bucket_of(update.key, view.partitions)].append(update)
    for bucket, mine in buckets.items():
        writer.apply(view, bucket, mine)


def _rows(view: RowView, events: Sequence[Event]) -> RowColumns:
    def column(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    return RowColumns(
        [encode_key(view.key, key_of(view, event)) for event in events],
        column([event.event_ts for event in events]),
        column([event.available_at for event in events]),
        column([event.partition for event in events]),
        column([event.offset for event in events]),
        {field.name: [event.values[field.name] for event in events] for field in view.features},
    )


def _tiles(
    view: WindowedView, granularity: Granularity, tiles: dict[tuple[tuple[object, ...], int], list[Event]]
) -> TileColumns:
    members = list(tiles.values())
    return TileColumns(
        [encode_key(view.key, key_of(view, events[0])) for events in members],
        np.array([tile for _, tile in tiles], dtype=np.int64),
        np.array([len(events) for events in members], dtype=np.int64),
        np.array([max(event.event_ts for event in events) for events in members], dtype=np.int64),
        np.array([max(event.available_at for event in events) for events in members], dtype=np.int64),
        {item.name: _states(item, members) for item in granularity.components},
    )


def _states(component: Component, members: Sequence[Sequence[Event]]) -> np.ndarray:  # type: ignore[type-arg]
    totals: list[int] = []
    for events in members:
        total = component.op.identity
        for event in events:
            value = event.values[component.column]
            if value is not None:
                total = component.op.merge(total, component.op.lift(value))  # type: ignore[arg-type]
        totals.append(total)
    return to_wide(np.array(totals, dtype=object)) if component.wide else np.array(totals, dtype=np.int64)
