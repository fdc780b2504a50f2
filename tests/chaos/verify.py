"""Compares everything that is online with what the produced events come to: every key, every tile, every row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from coeval.aggregations.partial import fold
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.client import open_redis
from coeval.online.keys import data_key
from coeval.online.rows import decode_row
from coeval.reference.oracle import is_late, key_of, seen_by
from coeval.settings import Settings
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import RowView, View, WindowedView
from coeval.spec.records import Event, Ingested, Record, ingest
from coeval_parity.evidence import Slot
from coeval_parity.online_state import stored_keys, stored_state
from coeval_pipelines.kafka import client_options
from coeval_pipelines.streaming.broker import Broker, partitions_of

SHOWN = 10
_CHUNK = 500
_TOLERANCE = 1e-9

Tiles = Mapping[int, Mapping[int, Sequence[Event]]]
"""Events on time by hop and tile index."""


@dataclass(slots=True)
class Verdict:
    """What was compared, and what differs: how much of it, and the first few in words."""

    keys: int = 0
    tiles: int = 0
    rows: int = 0
    wrong: int = 0
    differences: list[str] = field(default_factory=list)

    def differs(self, what: str) -> None:
        """Note a difference."""
        self.wrong += 1
        if len(self.differences) < SHOWN:
            self.differences.append(what)


def on_topic(settings: Settings, topic: str) -> list[Record]:
    """Everything that a topic holds, as the log will see it."""
    from kafka import KafkaConsumer, TopicPartition

    with Broker(settings.kafka) as broker:
        ends = broker.ends(partitions_of(broker, [topic]))[topic]
    found: list[Record] = []
    with closing(KafkaConsumer(**client_options(settings.kafka), auto_offset_reset="earliest")) as consumer:
        consumer.assign([TopicPartition(topic, partition) for partition in ends])
        while len(found) < sum(ends.values()):
            for partition, records in consumer.poll(timeout_ms=1000, max_records=20_000).items():
                found += [Record(r.value, r.timestamp * 1000, partition.partition, r.offset) for r in records]
    return found


def verify(
    settings: Settings, manifest: Manifest, records: Mapping[str, Sequence[Record]]
) -> tuple[Verdict, dict[str, Ingested]]:
    """Compare the online state of every streamed view with the records of each source, late ones left out."""
    judged = {name: ingest(manifest.sources[name], items) for name, items in records.items()}  # type: ignore[arg-type]
    verdict = Verdict()
    with closing(open_redis(settings)) as client:
        for view in manifest.views.values():
            by_key = _by_key(manifest, view, judged[view.source].good)
            stored = set(stored_keys(client, manifest, view))
            for key in sorted(stored ^ by_key.keys()):
                verdict.differs(f"{view.name} {key}: {'stored, and no event' if key in stored else 'not stored'}")
            for keys, blobs in _fetched(client, manifest, view, sorted(by_key)):
                for key, blob in zip(keys, blobs, strict=True):
                    verdict.keys += 1
                    if blob is not None:
                        _compare(verdict, manifest, view, key, blob, by_key[key])
    return verdict, judged


def _by_key(manifest: Manifest, view: View, good: Sequence[Event]) -> dict[str, list[Event]]:
    """The events of each key that the stream makes known: in a windowed view, one that is in time for some tile."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in seen_by(view, good):
        if all(event.values[item.name] is not None for item in view.key):
            found[encode_key(view.key, key_of(view, event))].append(event)
    if isinstance(view, RowView):
        return found
    assert isinstance(view, WindowedView)
    lateness = manifest.event_source(view).allowed_lateness
    # Later for a tile means in time for no smaller one.
    longest = max(aggregate.hop for aggregate in view.aggregates)
    return {key: items for key, items in found.items() if not all(is_late(item, longest, lateness) for item in items)}


def _fetched(
    client: Any, manifest: Manifest, view: View, keys: Sequence[str]
) -> Iterator[tuple[Sequence[str], Sequence[bytes | None]]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        yield chunk, client.mget([data_key(manifest.tenant, view, key) for key in chunk])


def _compare(verdict: Verdict, manifest: Manifest, view: View, key: str, blob: bytes, events: Sequence[Event]) -> None:
    if isinstance(view, RowView):
        last = max(events, key=lambda event: event.order)
        expected = last.order, [last.values[item.name] for item in view.features]
        verdict.rows += 1
        if (found := decode_row(view.features, blob)) != expected:
            verdict.differs(f"{view.name} {key}: row {found}, expected {expected}")
        return
    assert isinstance(view, WindowedView)
    source = manifest.event_source(view)
    stored = stored_state(manifest, view, blob).tiles
    for granularity in tile_plan(view, source).granularities:
        tiles = _tiles(granularity, events, source.allowed_lateness)
        _compare_tiles(verdict, f"{view.name} {key} by {granularity.hop}", granularity, tiles, stored[granularity.hop])


def _tiles(granularity: Granularity, events: Sequence[Event], lateness: int) -> dict[int, list[Event]]:
    """The events on time of each tile that the ring still holds: of two that share a slot, the newer one."""
    found: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        if not is_late(event, granularity.hop, lateness):
            found[event.event_ts // granularity.hop].append(event)
    newest: dict[int, int] = {}
    for tile in found:
        slot = tile % granularity.slots
        newest[slot] = max(tile, newest.get(slot, tile))
    return {tile: found[tile] for tile in newest.values()}


def _compare_tiles(
    verdict: Verdict,
    where: str,
    granularity: Granularity,
    expected: Mapping[int, Sequence[Event]],
    stored: Mapping[int, Slot],
) -> None:
    for tile in sorted(expected.keys() ^ stored.keys()):
        verdict.differs(f"{where}: tile {tile} {'is missing' if tile in expected else 'comes from nowhere'}")
    for tile in expected.keys() & stored.keys():
        verdict.tiles += 1
        events, slot = expected[tile], stored[tile]
        if slot.events != len(events):
            verdict.differs(f"{where}: tile {tile} counts {slot.events} events of {len(events)}")
            continue
        for component in granularity.components:
            pairs = [(event.order, event.values[component.column]) for event in events]
            total = fold(component, [pair for pair in pairs if pair[1] is not None])
            if not _equal(slot.states[component.name], total):
                verdict.differs(f"{where}: tile {tile} {component.name} is {slot.states[component.name]}, not {total}")


def _equal(stored: Any, total: Any) -> bool:
    if isinstance(total, float):
        return isclose(stored, total, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(stored == total)
