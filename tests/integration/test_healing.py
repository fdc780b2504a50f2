"""The whole stack with its services: a store that lost everything says so, and is filled again by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
import tenacity

from coeval.client import open_redis
from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.online.result import Status
from coeval.reference.oracle import key_of
from coeval.settings import Settings
from coeval.spec.model import ServiceView
from coeval.spec.records import ingest
from coeval.spec.time import DAY
from coeval.spec.types import Physical, micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.backfills import backfill
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.coordination.fill import unready
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.prepare import free_settings
from tests.support import catalog
from tests.support.events import records
from tests.support.online import read

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 20 * DAY
END = START + SPAN + 3 * DAY
HEAL_SECONDS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    settings = free_settings(tmp_path_factory.mktemp("whole"))
    local.up(settings)
    yield settings
    local.down(settings)


def _await(condition: Callable[[], bool]) -> None:
    tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        wait=tenacity.wait_fixed(0.5),
        stop=tenacity.stop_after_delay(HEAL_SECONDS),
    )(condition)


def _values(settings: Settings, keys: dict[str, list[tuple[Physical, ...]]]) -> list[dict[str, Physical]]:
    manifest = catalog.manifest()
    with closing(open_redis(settings)) as client:
        return [row for view in manifest.views.values() for row in read(client, manifest, view, keys[view.name], END)]


def test_a_wiped_store_is_unavailable_until_it_has_healed(whole: Settings) -> None:
    from kafka import KafkaProducer

    manifest = catalog.manifest()
    delivered = records(11, 600, START, SPAN, whole.kafka.partitions)
    good = ingest(catalog.PAYMENTS, delivered).good
    keys = {view.name: sorted({key_of(view, event) for event in good}, key=str) for view in manifest.views.values()}
    with closing(ControlPlane.open(whole)) as control:
        # Batch owns the first half, the stream the second.
        deploy(whole, manifest, control, START + SPAN // 2)
        with closing(KafkaProducer(bootstrap_servers=whole.kafka.bootstrap, acks="all")) as producer:
            for record in delivered:
                at = record.available_at // 1000
                producer.send("payments", value=record.value, partition=record.partition, timestamp_ms=at)
            producer.flush()
        assert {view.name for view in unready(whole, manifest)} == manifest.views.keys()
        written = backfill(whole, manifest, control, list(manifest.views.values()))
        assert all(count > 0 for name, count in written.items() if name != "latest_payment")
        before = _values(whole, keys)

        view = manifest.views["card_spend"]
        with closing(open_redis(whole)) as client:
            client.flushall()
            service = ServiceView(view.name, view.version, ("count_30d",))
            found = OnlineReader(client, lambda: END).read(ReadPlanner(manifest, [service]), {"card_id": [0]})
        assert found.columns["card_spend"]["count_30d"].status.tolist() == [Status.UNAVAILABLE]

        _await(lambda: not unready(whole, manifest))
        assert _values(whole, keys) == before
