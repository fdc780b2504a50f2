"""Writes events to a real online store as the stream would, computed by the oracle; reads and expects what is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import redis

from coeval.aggregations.partial import Component, fold
from coeval.aggregations.states import Storage, to_wide
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.online.layout import TileColumns, Update, encode_tiles
from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.online.result import Status
from coeval.online.rows import RowColumns, encode_rows
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import is_late, key_of, value_at
from coeval.spec.keys import bucket_of, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, ServiceView, View, WindowedView
from coeval.spec.records import Event
from coeval.spec.types import Physical
from tests.support.events import expected_tiles

FIRST = -(2**62)


def updates(
    view: View, manifest: Manifest, events: Sequence[Event], since: int = FIRST, epoch: int = 0
) -> list[Update]:
    """The guarded writes that these events lead to."""
    source = manifest.event_source(view)
    if isinstance(view, RowView):
        return encode_rows(view, _rows(view, events), epoch)
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
    values = [[(event.order, event.values[component.column]) for event in events] for events in members]
    totals = [fold(component, [pair for pair in pairs if pair[1] is not None]) for pairs in values]
    if component.storage is Storage.WIDE:
        return to_wide(np.array(totals, dtype=object))
    return np.array(totals, dtype=component.dtype)


def read(
    client: redis.Redis, manifest: Manifest, view: View, keys: Sequence[tuple[Physical, ...]], q: int
) -> list[dict[str, Physical]]:
    """What the reader gives for keys at q: physical values by feature, None for null."""
    service = ServiceView(view.name, view.version, tuple(field.name for field in view.features))
    entities = {field.name: [key[index] for key in keys] for index, field in enumerate(view.key)}
    columns = OnlineReader(client, lambda: q).read(ReadPlanner(manifest, [service]), entities).columns[view.name]
    unavailable = {name for name, column in columns.items() if (column.status == Status.UNAVAILABLE).any()}
    assert not unavailable, unavailable
    return [
        {name: None if column.null[row] else column.values[row] for name, column in columns.items()}
        for row in range(len(keys))
    ]


def expected(
    view: View, source: EventSource, events: Sequence[Event], key: tuple[Physical, ...], q: int, late_seen: bool
) -> dict[str, Physical]:
    """What the contract says at q; without `late_seen`, what it says as long as no batch run has put late events in."""
    if late_seen or not isinstance(view, WindowedView):
        return {name: found.value for name, found in value_at(view, source, events, key, q).items()}
    values: dict[str, Physical] = {}
    for hop in {aggregate.hop for aggregate in view.aggregates}:
        on_time = [event for event in events if not is_late(event, hop, source.allowed_lateness)]
        found = value_at(view, source, on_time, key, q)
        values |= {item.feature: found[item.feature].value for item in view.aggregates if item.hop == hop}
    return values
