"""Faults of a running pipeline (broker, Flink, writer, Redis): parity finds them and calls them by their names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import redis
import tenacity

from coeval.client import open_redis
from coeval.online.keys import data_key, offset_key
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of
from coeval.settings import Settings
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import Sla, Tolerance
from coeval.spec.records import Event, Record, ingest
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import micros
from coeval_parity.result import Cause, ParityResult, Suspect
from coeval_parity.run import run_parity
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination import runs
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.streaming.broker import Broker, ensure_topics
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import changelog_topic, group_id
from coeval_pipelines.streaming.progress import await_caught_up
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import produce

SEED = 20261122
START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 20 * DAY
END = START + SPAN + 31 * HOUR
SOURCE = replace(catalog.PAYMENTS, topic="faulty_payments")
PROMPT = Sla(tolerated=(Tolerance("late", 1.0),), freshness=HOUR)
DEADLINE = 240


def _manifest() -> Manifest:
    base = catalog.manifest()
    return replace(
        base,
        tenant="faulty",
        event_sources=(SOURCE,),
        windowed_views=tuple(replace(v, sla=PROMPT) for v in base.windowed_views if v.name == "card_merchant"),
        row_views=tuple(replace(view, sla=PROMPT) for view in base.row_views),
        derived_views=(),
        services=(),
    )


MANIFEST = _manifest()


@dataclass
class Pipeline:
    """A deployed stream with a writer; `made` are all its records, of which some are on the topic."""

    settings: Settings
    control: ControlPlane
    made: list[Record]
    produced: int = 0
    writer: subprocess.Popen[bytes] | None = None

    def start_writer(self) -> None:
        command = [sys.executable, "-m", "coeval_pipelines.streaming.writer"]
        with (self.settings.home / "writer.log").open("ab") as log:
            self.writer = subprocess.Popen(command, stderr=log, env={**os.environ, **self.settings.variables()})

    def stop_writer(self) -> None:
        if self.writer is not None:
            self.writer.send_signal(signal.SIGTERM)
            self.writer.wait(60)

    def produce(self, until: int) -> None:
        produce(self.settings.kafka.bootstrap, SOURCE.topic, self.made[self.produced : until])
        self.produced = until

    def catch_up(self) -> None:
        await_caught_up(self.settings, MANIFEST, self.control, DEADLINE)

    def parity(self) -> ParityResult:
        return run_parity(self.settings, MANIFEST, q=END, wanted="local")

    def last_events(self, since: int) -> list[Event]:
        """What became of the records from that one on."""
        known = {event.event_id for event in ingest(SOURCE, self.made[:since]).good}
        return [event for event in ingest(SOURCE, self.made[: self.produced]).good if event.event_id not in known]


@pytest.fixture
def pipeline(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The stream is up; three quarters of its events are online, and parity is content."""
    print(f"seed {SEED}")
    settings = stack.model_copy(update={"home": tmp_path_factory.mktemp("faulty")})
    with closing(ControlPlane.open(settings)) as control, closing(open_redis(settings)) as client:
        made = records(SEED, 400, START, SPAN, settings.kafka.partitions)
        found = Pipeline(settings, control, made)
        ensure_topics(settings, MANIFEST)
        found.start_writer()
        jobs = deploy(settings, MANIFEST, control, START - 40 * DAY)
        try:
            runs.await_running(settings, jobs.values())
            found.produce(300)
            found.catch_up()
            writer = OnlineWriter(client, MANIFEST.tenant)
            for view in MANIFEST.views.values():
                assert writer.mark_ready(view, writer.incarnation(view), "test")
            assert set(found.parity().causes) <= {Cause.LATE}
            yield found
        finally:
            found.stop_writer()
            for job in jobs.values():
                with suppress(Exception):
                    FlinkCluster.open(settings).cancel(job)


def _await(condition: Callable[[], bool]) -> None:
    tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        wait=tenacity.wait_fixed(0.3),
        stop=tenacity.stop_after_delay(DEADLINE),
    )(condition)


def test_a_stopped_sink_what_it_drops_and_a_lost_write_are_named(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    (run,) = pipeline.control.runs("payments")
    pair, latest = MANIFEST.views["card_merchant"], MANIFEST.views["latest_payment"]
    pipeline.stop_writer()
    pipeline.produce(len(pipeline.made))
    with Broker(settings.kafka) as broker:
        ends = broker.ends({SOURCE.topic: settings.kafka.partitions})[SOURCE.topic]
        # What Flink has committed, it has written to the changelogs.
        _await(lambda: dict(broker.committed(group_id(MANIFEST, run), SOURCE.topic)) == dict(ends))
        changes = broker.ends({changelog_topic(MANIFEST, pair): pair.partitions})[changelog_topic(MANIFEST, pair)]
    stopped = pipeline.parity()
    assert not stopped.passed
    assert set(stopped.causes) <= {Cause.LATE, Cause.STALE, Cause.IN_FLIGHT}, stopped.headline
    assert stopped.causes[Cause.STALE] > 5

    with closing(open_redis(settings)) as client:
        # The writer is told that it has written what it has not.
        client.mset({offset_key(MANIFEST.tenant, pair, bucket): end for bucket, end in changes.items()})
        newest_first = sorted(pipeline.last_events(300), key=lambda event: event.order, reverse=True)
        before = {name: _stored(client, name) for name in map(_row_key, newest_first)}
        pipeline.start_writer()
        pipeline.catch_up()
        # And one write of the other view never reached the store.
        lost = next(name for name, value in before.items() if value and _stored(client, name) != value)
        client.set(lost, before[lost])
    defects = pipeline.parity()
    assert set(defects.causes) <= {Cause.LATE, Cause.UNEXPLAINED}, defects.headline
    wrong = [item for item in defects.mismatches if item.cause is Cause.UNEXPLAINED]
    assert {item.view for item in wrong} == {pair.name, latest.name}
    assert {item.suspect for item in wrong} == {Suspect.LOST_UPDATE}


def _stored(client: redis.Redis, name: str) -> bytes:
    found = client.get(name)
    return found if isinstance(found, bytes) else b""


def _row_key(event: Event) -> str:
    view = MANIFEST.views["latest_payment"]
    return data_key(MANIFEST.tenant, view, encode_key(view.key, key_of(view, event)))
