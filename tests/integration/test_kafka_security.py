"""A broker that asks for certificate, user and password: every engine reaches it, and no file holds the password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from coeval.client import open_redis
from coeval.errors import BrokerError
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of
from coeval.settings import KafkaSettings, Settings
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.records import Record, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.kafka import client_options
from coeval_pipelines.local.prepare import free_port
from coeval_pipelines.offline.event_log import ingest_topic
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import job_name
from coeval_pipelines.streaming.progress import await_caught_up
from tests.support import catalog
from tests.support.events import records
from tests.support.online import expected, read
from tests.support.secured import PASSWORD, secured_broker, secured_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SOURCE = replace(catalog.PAYMENTS, topic="secured_payments")
COUNT = 300
DEADLINE = 120


@pytest.fixture(scope="module")
def secured(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The engines with a broker of that kind."""
    home = tmp_path_factory.mktemp("secured")
    base = stack.model_copy(update={"home": home, "kafka": KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}")})
    settings = secured_settings(base, tmp_path_factory.mktemp("certificates"))
    with secured_broker(settings):
        yield settings


@contextmanager
def streaming(settings: Settings, manifest: Manifest, control: ControlPlane) -> Iterator[None]:
    deploy(settings, manifest, control, START - DAY)
    environment = {**os.environ, **settings.variables(), **settings.secrets()}
    log = (settings.home / "writer.log").open("ab")
    command = [sys.executable, "-m", "coeval_pipelines.streaming.writer"]
    with log, subprocess.Popen(command, stderr=log, env=environment) as writer:
        try:
            yield
        finally:
            writer.send_signal(signal.SIGTERM)
            cluster = FlinkCluster.open(settings)
            names = {job_name(manifest, run) for run in control.runs()}
            for job in cluster.jobs():
                if job.name in names and job.live:
                    cluster.cancel(job.id)


def produce(settings: Settings, made: list[Record]) -> None:
    from kafka import KafkaProducer

    with closing(KafkaProducer(**client_options(settings.kafka), acks="all")) as producer:
        for record in made:
            stamp = record.available_at // 1000
            producer.send(SOURCE.topic, value=record.value, partition=record.partition, timestamp_ms=stamp)
        producer.flush()


def test_every_engine_reaches_a_secured_broker_and_no_file_holds_the_password(
    spark: SparkSession, secured: Settings
) -> None:
    view = with_version(catalog.PAIR, SOURCE)
    manifest = Manifest("test", "secured", event_sources=(SOURCE,), windowed_views=(view,))  # type: ignore[arg-type]
    made = records(4, COUNT, START, DAY)
    with closing(ControlPlane.open(secured)) as control, streaming(secured, manifest, control):
        produce(secured, made)
        await_caught_up(secured, manifest, control, DEADLINE)
    good = ingest(SOURCE, made).good
    assert ingest_topic(spark, secured, manifest, SOURCE).good == len(good)
    keys = sorted({key_of(view, event) for event in good}, key=str)
    with closing(open_redis(secured)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        assert writer.mark_ready(view, writer.incarnation(view), "test")
        online = read(client, manifest, view, keys, START + DAY)
    truth = [expected(view, SOURCE, good, key, START + DAY, late_seen=False) for key in keys]
    assert list(online) == truth
    files = [path for path in secured.home.rglob("*") if path.is_file() and path.stat().st_size < 50_000_000]
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_a_wrong_password_is_said_with_what_to_correct(secured: Settings) -> None:
    wrong = secured.kafka.model_copy(update={"password": SecretStr("guessed")})
    with pytest.raises(BrokerError) as caught, Broker(wrong):
        pass
    assert "does not let coeval in with SCRAM-SHA-512" in caught.value.reason
    assert "COEVAL_KAFKA__PASSWORD" in caught.value.instruction
    assert "guessed" not in str(caught.value)
