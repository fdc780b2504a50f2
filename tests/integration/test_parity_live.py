"""Parity beside a running stream: the topic is ahead of the store, only what a certificate leaves open is benign."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import redis

from coeval.online.keys import data_key, offset_key
from coeval.online.writer import Fence, OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import Sla, Tolerance
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_parity.document import to_document
from coeval_parity.result import BENIGN, Cause, ParityResult
from coeval_parity.run import run_parity
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.names import changelog_topic
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import produce
from tests.support.online import updates, write

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
Q = START + 3 * DAY
PATIENT = Sla(tolerated=(Tolerance("late", 1.0),), freshness=40 * DAY)
REACHED = 10
"""The changelog offset of every bucket that the store has written."""


def _manifest() -> Manifest:
    base = catalog.manifest()
    return replace(
        base,
        tenant="live",
        event_sources=(replace(catalog.PAYMENTS, topic="live-payments"),),
        windowed_views=tuple(replace(view, sla=PATIENT) for view in base.windowed_views),
        row_views=tuple(replace(view, sla=PATIENT) for view in base.row_views),
    )


MANIFEST = _manifest()


@dataclass(frozen=True)
class Live:
    """A topic with everything, a store with some of it."""

    settings: Settings
    client: redis.Redis
    spark: SparkSession
    events: tuple[Event, ...]

    def parity(self, *views: str) -> ParityResult:
        return run_parity(self.settings, MANIFEST, None, Q, views or None, wanted="local")

    def certify(self, offsets: Mapping[int, int], reached: int = REACHED) -> None:
        ends = {
            changelog_topic(MANIFEST, view): dict.fromkeys(range(view.partitions), reached)
            for view in MANIFEST.views.values()
        }
        with closing(ControlPlane.open(self.settings)) as control:
            control.record_certificate(Certificate("payments", 1, offsets, ends, Q))


@pytest.fixture(scope="module")
def live(spark: SparkSession, broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The stream has processed three quarters of each partition, and a little more."""
    settings = broker.model_copy(update={"home": tmp_path_factory.mktemp("live")})
    source = MANIFEST.event_sources[0]
    made = records(3, 500, START, 3 * DAY)
    with Broker(settings.kafka) as admin:
        admin.create(source.topic, 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    produce(settings.kafka.bootstrap, source.topic, made)
    good = ingest(source, made).good
    client = redis.Redis.from_url(settings.redis.url)
    client.flushall()
    _deliver(settings, client, [event for event in good if event.available_at < Q and event.offset < 170])
    yield Live(settings, client, spark, good)
    client.close()


def _deliver(settings: Settings, client: redis.Redis, events: list[Event]) -> None:
    writer = OnlineWriter(client, MANIFEST.tenant)
    with closing(ControlPlane.open(settings)) as control:
        for view in MANIFEST.views.values():
            control.deploy(view.name, view.version, MANIFEST.hash, START - 100 * DAY, START)
            write(writer, view, updates(view, MANIFEST, events))
            for bucket in range(view.partitions):
                writer.apply(view, bucket, [], Fence(None, REACHED))
            assert writer.mark_ready(view, writer.incarnation(view), "test")


def test_the_topic_reaches_further_than_the_store(live: Live) -> None:
    for partition in (0, 1):
        visible = [e.offset for e in live.events if e.partition == partition and e.available_at < Q]
        assert max(visible) > 180


def test_this_process_reads_from_the_topic_what_the_log_lacks(live: Live) -> None:
    """Before anything was ingested, with some of it, and as Spark does after its ingest: it is the same."""
    live.certify({0: 160, 1: 160})
    before = to_document(replace(run_parity(live.settings, MANIFEST, q=Q, wanted="local"), seconds=0, run=0, report=""))
    by_spark = to_document(replace(run_parity(live.settings, MANIFEST, live.spark, Q), seconds=0, run=0, report=""))
    after = to_document(replace(run_parity(live.settings, MANIFEST, q=Q, wanted="local"), seconds=0, run=0, report=""))
    assert before == by_spark == after
    assert before["causes"]["in_flight"] > 10


def test_what_lies_above_the_certified_offsets_is_in_flight(live: Live) -> None:
    live.certify({0: 160, 1: 160})
    result = live.parity()
    assert result.breaches == ()
    assert set(result.causes) <= BENIGN
    assert result.causes[Cause.IN_FLIGHT] > 10


def test_a_certificate_that_the_store_has_not_reached_proves_nothing(live: Live) -> None:
    live.certify({0: 160, 1: 160})
    live.certify({0: 10**6, 1: 10**6}, reached=REACHED + 1)
    assert live.parity("latest_payment").passed


def test_what_a_certificate_covers_and_the_store_lacks_is_lost(live: Live) -> None:
    live.certify({0: 10**6, 1: 10**6})
    result = live.parity("card_merchant")
    assert not result.passed
    assert Cause.IN_FLIGHT not in result.causes
    assert result.causes[Cause.UNEXPLAINED] > 5
    live.certify({0: 160, 1: 160})


def test_a_store_that_rolled_back_is_no_longer_certified(live: Live) -> None:
    """Its changelog offsets roll back with its data: older certificates hold, newer ones do not."""
    live.certify({0: 10**6, 1: 10**6})
    view = MANIFEST.views["latest_payment"]
    for bucket in range(view.partitions):
        live.client.set(offset_key(MANIFEST.tenant, view, bucket), REACHED - 1)
    result = live.parity("latest_payment", "card_merchant")
    by_view = {item.view: item for item in result.views}
    assert by_view["latest_payment"].certified is None
    assert by_view["card_merchant"].certified == {0: 10**6, 1: 10**6}


def test_an_edited_row_is_unexplained_beside_events_in_flight(live: Live) -> None:
    view = MANIFEST.views["latest_payment"]
    for bucket in range(view.partitions):
        live.client.set(offset_key(MANIFEST.tenant, view, bucket), REACHED)
    live.certify({0: 160, 1: 160})
    name = data_key(MANIFEST.tenant, view, "i0")
    blob = live.client.get(name)
    assert isinstance(blob, bytes)
    live.client.set(name, blob[:40] + bytes([blob[40] ^ 1]) + blob[41:])
    result = live.parity("latest_payment")
    live.client.set(name, blob)
    assert {(item.view, item.key) for item in result.failing()} == {("latest_payment", "i0")}
