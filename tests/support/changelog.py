"""Changelog messages as the stream would write them, computed by the oracle; their topics, and writers of them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from coeval.aggregations.partial import fold
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.client import open_redis
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of
from coeval.settings import Settings
from coeval.spec.keys import bucket_of, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY
from coeval.spec.types import Physical
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.kafka import client_options
from coeval_pipelines.streaming.names import changelog_topic
from coeval_pipelines.streaming.outputs import ROW_MARKER, STRING_MARK
from tests.support import catalog
from tests.support.events import expected_tiles, records
from tests.support.online import expected, read

DEADLINE = 120.0


@dataclass(frozen=True, slots=True)
class Message:
    """One changelog message; without a value it takes an old one back."""

    at: int
    bucket: int
    key: bytes
    value: bytes | None


def messages(view: View, source: EventSource, events: Sequence[Event], rng: random.Random) -> list[Message]:
    """The changelog of a view in its order: tiles grow as events arrive, and now and then one is said again."""
    if isinstance(view, RowView):
        found = [_row(view, event) for event in events]
    else:
        plan = tile_plan(view, source)
        found = [
            message
            for granularity in plan.granularities
            for (_, tile), members in expected_tiles(view, source, events, granularity.hop, -(2**62)).items()
            for message in _tile(view, granularity, tile, members, rng)
        ]
    found += rng.sample(found, len(found) // 10)
    return sorted(found, key=lambda message: message.at)


def _tile(
    view: WindowedView, granularity: Granularity, tile: int, members: Sequence[Event], rng: random.Random
) -> Iterator[Message]:
    key = encode_key(view.key, key_of(view, members[0]))
    bucket = bucket_of(key, view.partitions)
    sizes = sorted({len(members), *(rng.randint(1, len(members)) for _ in range(2))})
    for number, size in enumerate(sizes):
        counted = members[:size]
        times = max(event.event_ts for event in counted), max(event.available_at for event in counted)
        states = [
            fold(item, [(e.order, e.values[item.column]) for e in counted if e.values[item.column] is not None])
            for item in granularity.components
        ]
        if number:
            yield Message(times[1], bucket, key.encode(), None)
        yield Message(times[1], bucket, key.encode(), _csv(granularity.hop, tile, size, *times, *states))


def _row(view: RowView, event: Event) -> Message:
    key = encode_key(view.key, key_of(view, event))
    order = (event.event_ts, event.available_at, event.partition, event.offset)
    values = [event.values[field.name] for field in view.features]
    return Message(event.available_at, bucket_of(key, view.partitions), key.encode(), _csv(ROW_MARKER, *order, *values))


def _csv(*values: Physical) -> bytes:
    return ",".join(_cell(value) for value in values).encode()


def _cell(value: Physical) -> str:
    if isinstance(value, str):
        text = (STRING_MARK + value).replace('"', '""')
        return f'"{text}"'
    return "" if value is None else str(value)


@dataclass
class Changelogs:
    """The deployed views of a tenant of their own: their topics, what the store shall hold, and writers."""

    settings: Settings
    manifest: Manifest
    events: list[Event]
    end: int
    upcoming: list[tuple[str, Message]]
    total: int = 0
    """Messages that were produced."""
    writers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def deploy(self) -> None:
        """Create the topics and record the deployments."""
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic

        views = self.manifest.views.values()
        with closing(KafkaAdminClient(**client_options(self.settings.kafka))) as admin:
            admin.create_topics([NewTopic(changelog_topic(self.manifest, view), view.partitions, 1) for view in views])
        with closing(ControlPlane.open(self.settings)) as control:
            control.save_manifest(self.manifest, 0)
            for view in views:
                control.deploy(view.name, view.version, self.manifest.hash, 0, 0)

    def produce(self, share: float = 1.0) -> None:
        """Write a share of what is left of the changelogs."""
        from kafka import KafkaProducer

        count = round(len(self.upcoming) * share)
        taken, self.upcoming = self.upcoming[:count], self.upcoming[count:]
        with closing(KafkaProducer(**client_options(self.settings.kafka), acks="all", linger_ms=5)) as producer:
            for topic, message in taken:
                producer.send(topic, key=message.key, value=message.value, partition=message.bucket)
            producer.flush()
        self.total += len(taken)

    def start_writer(self, settings: Settings | None = None) -> subprocess.Popen[bytes]:
        """A writer process; its log is in the home directory."""
        environment = {**os.environ, **(settings or self.settings).variables()}
        log = (self.settings.home / f"writer-{len(self.writers)}.log").open("ab")
        command = [sys.executable, "-m", "coeval_pipelines.streaming.writer"]
        self.writers.append(subprocess.Popen(command, stderr=log, env=environment))
        return self.writers[-1]

    def log(self, writer: subprocess.Popen[bytes]) -> str:
        """What a writer has logged."""
        return (self.settings.home / f"writer-{self.writers.index(writer)}.log").read_text(encoding="utf-8")

    def stop(self) -> None:
        """End all writers."""
        for writer in self.writers:
            writer.kill()
            writer.wait()

    def covered(self, settings: Settings | None = None) -> int:
        """How many of the messages the store covers."""
        with closing(open_redis(settings or self.settings)) as client:
            writer = OnlineWriter(client, self.manifest.tenant)
            return sum(offset or 0 for view in self.manifest.views.values() for offset in writer.offsets(view).values())

    def await_covered(self, settings: Settings | None = None) -> None:
        """Wait until the store holds all that was produced."""
        await_true(lambda: self.covered(settings) == self.total)

    def assert_equals_the_reference(self, settings: Settings | None = None) -> None:
        """Mark what is in the store as ready and compare every value of every key."""
        compared = 0
        with closing(open_redis(settings or self.settings)) as client:
            writer = OnlineWriter(client, self.manifest.tenant)
            for view in self.manifest.views.values():
                assert writer.mark_ready(view, writer.incarnation(view), "test")
                keys = sorted({key_of(view, event) for event in self.events}, key=str)
                for key, values in zip(keys, read(client, self.manifest, view, keys, self.end), strict=True):
                    source = self.manifest.event_sources[0]
                    assert values == expected(view, source, self.events, key, self.end, late_seen=False), (view, key)
                    compared += len(values)
        assert compared > 100


def _streams(manifest: Manifest, events: Sequence[Event], rng: random.Random) -> list[tuple[str, Message]]:
    """All messages with their topics, in the order in which they are written."""
    found = [
        (changelog_topic(manifest, view), message)
        for view in manifest.views.values()
        for message in messages(view, manifest.event_sources[0], events, rng)
    ]
    return sorted(found, key=lambda item: item[1].at)


@contextmanager
def changelogs(settings: Settings, tenant: str, seed: int, count: int, start: int, span: int) -> Iterator[Changelogs]:
    """Deployed changelogs over generated events, with a control plane in the settings' home."""
    print(f"seed {seed}")
    manifest = replace(catalog.manifest(), tenant=tenant)
    events = list(ingest(catalog.PAYMENTS, records(seed, count, start, span, cards=40)).good)
    found = Changelogs(
        settings, manifest, events, start + span + 3 * DAY, _streams(manifest, events, random.Random(seed))
    )
    found.deploy()
    try:
        yield found
    finally:
        found.stop()


def await_true(condition: Callable[[], bool], seconds: float = DEADLINE) -> float:
    """Wait for a condition; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)
    return time.monotonic() - began
