"""The contract over real engines: the same events through the oracle, the online path and the offline path are equal.

Online path: Kafka, Flink, changelog topics, the online writer, Redis, the reader. Offline path: Kafka, Spark, Delta.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from coeval.client import open_redis
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of, value_at
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.records import Event, Ingested, Record, ingest
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import Physical, micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.coordination.fill import fill, load_in_session
from coeval_pipelines.offline.event_log import ingest_topic, read_log
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.session import spark_session
from coeval_pipelines.streaming.progress import await_caught_up
from tests.support import catalog
from tests.support.events import records
from tests.support.online import expected, read

SEED = 20260320
START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 35 * DAY
COUNT = 2500
END = START + SPAN + 2 * DAY


@dataclass(frozen=True)
class World:
    """One set of events, delivered to every engine."""

    settings: Settings
    manifest: Manifest
    control: ControlPlane
    delivered: list[Record]
    truth: Ingested

    @property
    def keys(self) -> dict[str, list[tuple[Physical, ...]]]:
        """Every key by view."""
        views = self.manifest.views.values()
        return {view.name: sorted({key_of(view, event) for event in self.truth.good}, key=str) for view in views}


@pytest.fixture(scope="module")
def world(stack: Settings) -> Iterator[World]:
    print(f"seed {SEED}")
    manifest = catalog.manifest()
    delivered = records(SEED, COUNT, START, SPAN, stack.kafka.partitions)
    with closing(ControlPlane.open(stack)) as control:
        deploy(stack, manifest, control, START - 40 * DAY)
        _produce(stack, delivered)
        writer = subprocess.Popen(
            [sys.executable, "-m", "coeval_pipelines.streaming.writer"], env={**os.environ, **stack.variables()}
        )
        try:
            await_caught_up(stack, manifest, control, 180)
            with closing(open_redis(stack)) as client:
                online = OnlineWriter(client, manifest.tenant)
                assert all(online.mark_ready(view, online.incarnation(), "test") for view in manifest.views.values())
            yield World(stack, manifest, control, delivered, ingest(catalog.PAYMENTS, delivered))
        finally:
            writer.send_signal(signal.SIGTERM)
            assert writer.wait(30) == 0


def _produce(settings: Settings, delivered: list[Record]) -> None:
    from kafka import KafkaProducer

    with closing(KafkaProducer(bootstrap_servers=settings.kafka.bootstrap, acks="all")) as producer:
        for record in delivered:
            producer.send(
                "payments", value=record.value, partition=record.partition, timestamp_ms=record.available_at // 1000
            )
        producer.flush()


@pytest.fixture(scope="module")
def spark(world: World) -> Iterator[object]:
    with spark_session(world.settings) as session:
        for source in world.manifest.event_sources:
            ingest_topic(session, world.settings, world.manifest, source)
        yield session


def test_the_log_accounts_for_every_record(world: World, spark: object) -> None:
    from coeval_pipelines.offline.event_log import totals

    report = totals(world.settings, world.manifest, catalog.PAYMENTS)
    truth = world.truth
    assert report.read == len(world.delivered) == report.good + sum(report.rejected.values()) + report.duplicates
    assert (report.good, report.duplicates) == (len(truth.good), len(truth.duplicates))
    assert report.rejected == Counter(reason.value for _, reason in truth.rejected)
    assert min(report.rejected.values()) > 0
    rows = read_log(spark, world.settings, world.manifest, catalog.PAYMENTS).collect()  # type: ignore[arg-type]
    positions = {(row.partition, row.offset, row.event_ts, row.available_at) for row in rows}
    assert positions == {(e.partition, e.offset, e.event_ts, e.available_at) for e in truth.good}


def test_the_online_path_equals_the_contract(world: World) -> None:
    compared = 0
    with closing(open_redis(world.settings)) as client:
        for view in world.manifest.views.values():
            keys = world.keys[view.name]
            # The store knows all that was delivered, so it may only be asked of instants at which all was available.
            for q in (END, END + 11 * HOUR, END + 20 * DAY):
                for key, values in zip(keys, read(client, world.manifest, view, keys, q), strict=True):
                    truth = expected(view, catalog.PAYMENTS, world.truth.good, key, q, late_seen=False)
                    assert values == truth, (view.name, key, q, _differences(values, truth))
                    compared += len(values)
    assert compared > 500


def test_the_offline_path_equals_the_contract(world: World, spark: object) -> None:
    compared = 0
    for view in world.manifest.views.values():
        keys = world.keys[view.name]
        instants = _instants(world.truth.good)
        spine = [(*key, q) for key in keys for q in instants]
        columns = [*(field.name for field in view.key), "event_timestamp"]
        frame = spark.createDataFrame(spine, columns)  # type: ignore[attr-defined]
        found = point_in_time(spark, world.settings, world.manifest, view, frame).collect()  # type: ignore[arg-type]
        assert len(found) == len(spine)
        for row in found:
            key = tuple(row[field.name] for field in view.key)
            truth = value_at(view, catalog.PAYMENTS, world.truth.good, key, row.event_timestamp)
            values = {
                field.name: _physical(row[f"{view.name}__{field.name}"], field.type.scale) for field in view.features
            }
            assert values == {name: item.value for name, item in truth.items()}, (view.name, key, row.event_timestamp)
            compared += len(values)
    assert compared > 5000


def test_a_batch_correction_brings_the_late_events_online(world: World, spark: object) -> None:
    written: dict[str, int] = {}
    load = load_in_session(spark, world.settings, world.manifest, world.control, written)  # type: ignore[arg-type]
    fill(world.settings, world.manifest, world.control, world.manifest.views.values(), load, cut=END)
    with closing(open_redis(world.settings)) as client:
        for view in world.manifest.views.values():
            keys = world.keys[view.name]
            for key, values in zip(keys, read(client, world.manifest, view, keys, END), strict=True):
                truth = expected(view, catalog.PAYMENTS, world.truth.good, key, END, late_seen=True)
                assert values == truth, (view.name, key, _differences(values, truth))


def _instants(events: tuple[Event, ...]) -> list[int]:
    chosen = [events[index] for index in range(0, len(events), len(events) // 12)]
    return sorted({q for event in chosen for q in (event.available_at, event.available_at + 1)} | {END})


def _physical(value: object, scale: int) -> object:
    from decimal import Decimal

    return int(value.scaleb(scale)) if isinstance(value, Decimal) else value


def _differences(one: dict[str, Physical], other: dict[str, Physical]) -> dict[str, tuple[Physical, Physical]]:
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}
