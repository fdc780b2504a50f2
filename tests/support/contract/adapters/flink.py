"""The stream: what is visible before q goes to a real topic, through the real job, changelogs, writer and reader.

All cases go through one job: each has its own key, and only what is visible at its instant is produced. Late events are
left out of their tiles by rule.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from coeval.client import open_redis
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.records import Event, Record
from coeval.spec.time import DAY
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import job_name
from coeval_pipelines.streaming.progress import await_caught_up
from tests.support.contract import catalog
from tests.support.contract.cases import Case, record
from tests.support.contract.compare import Answers, in_time
from tests.support.contract.store import read_at_instants

SINCE = -719_162 * DAY
"""The stream owns every tile."""
_CATCH_UP_SECONDS = 240
_GARBAGE = (b"", b"not json", b"[]", b"17", b'{"event_id": "cut o', b'{"event_id": null}', b'{"c": 1, "c": 2}', b"\xff")
"""Records that are no events; the log rejects them and the stream skips them."""
_WHEN = 1_000_000_000_000_000


@dataclass
class Flink:
    """`coeval_pipelines.streaming`, from the topic to the reader."""

    settings: Settings
    name: str = "flink"

    def takes(self, case: Case) -> bool:
        # A record's timestamp is never negative in Kafka, and files are not its business.
        # Nor does it know erasures: the store does.
        streamed = not case.erasures and not catalog.is_batch(catalog.VIEWS[case.view])
        return streamed and all(event.available_at >= 0 and event.partition >= 0 for event in case.events)

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return in_time(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        deliver(self.settings, cases)
        return run(self.settings, catalog.manifest(), [("", cases)])[0]


@dataclass(frozen=True)
class Streamed:
    """One run of the stream: the cases that went through it, and what was online at their instants."""

    settings: Settings
    adapter: Flink
    cases: list[Case]
    answers: list[Answers]


def records(cases: Sequence[Case]) -> list[Record]:
    """What a topic holds when every case is at its instant: positions as the broker will give them."""
    in_order = ((case, event) for case in cases for event in sorted(case.events, key=lambda event: event.offset))
    found = [record(event) for case, event in in_order if event.available_at < case.q]
    found += [Record(value, _WHEN, place % catalog.PARTITIONS, 0) for place, value in enumerate(_GARBAGE)]
    offsets = dict.fromkeys(range(catalog.PARTITIONS), -1)
    for place, item in enumerate(found):
        offsets[item.partition] += 1
        found[place] = replace(item, offset=offsets[item.partition])
    return found


def deliver(settings: Settings, cases: Sequence[Case]) -> None:
    """Make the topic, and put on it what is visible."""
    from kafka import KafkaProducer

    with Broker(settings.kafka) as broker:
        # Instants of any year: the broker's default refuses what is ahead of its clock.
        limits = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(2**63 - 1)}
        broker.create(catalog.EVENTS.topic, catalog.PARTITIONS, {"retention.ms": "-1", **limits})
    with closing(KafkaProducer(bootstrap_servers=settings.kafka.bootstrap, acks="all", linger_ms=20)) as producer:
        for item in records(cases):
            producer.send(
                catalog.EVENTS.topic, item.value, partition=item.partition, timestamp_ms=item.available_at // 1000
            )
        producer.flush()


def run(settings: Settings, manifest: Manifest, asked: Sequence[tuple[str, Sequence[Case]]]) -> list[list[Answers]]:
    """Deploy the jobs of a manifest over the topic, wait until all of it is online, and read; the jobs end.

    `asked` are cases, and what the names of their views end with in this manifest.
    """
    with closing(ControlPlane.open(settings)) as control, closing(open_redis(settings)) as client:
        with streaming(settings, manifest, control):
            await_caught_up(settings, manifest, control, _CATCH_UP_SECONDS)
        writer = OnlineWriter(client, manifest.tenant)
        for view in manifest.views.values():
            assert writer.mark_ready(view, writer.incarnation(view), "test")
        return [read_at_instants(client, manifest, cases, suffix) for suffix, cases in asked]


@contextmanager
def streaming(settings: Settings, manifest: Manifest, control: ControlPlane) -> Iterator[None]:
    """The jobs of a manifest and a writer, while the context lasts."""
    deploy(settings, manifest, control, SINCE)
    writer = subprocess.Popen(
        [sys.executable, "-m", "coeval_pipelines.streaming.writer"], env={**os.environ, **settings.variables()}
    )
    try:
        yield
    finally:
        writer.send_signal(signal.SIGTERM)
        assert writer.wait(30) == 0
        cluster = FlinkCluster.open(settings)
        names = {job_name(manifest, run) for run in control.runs()}
        for job in cluster.jobs():
            if job.name in names and job.live:
                cluster.cancel(job.id)
