"""Runs of a stream on real engines: resumed, rescaled, stopped, rewound, replaced; and versions side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coeval.client import open_redis
from coeval.errors import CheckFailedError, EngineError, UsageError
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import budgets_text
from coeval.spec.records import Record, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_pipelines.control import STOPPED, ControlPlane, ParityCheck, Run
from coeval_pipelines.control.parity import ParityBook
from coeval_pipelines.coordination import requests, runs
from coeval_pipelines.coordination.changes import Change, ownership, plan
from coeval_pipelines.coordination.deploy import deploy, reconcile, retire, switch
from coeval_pipelines.streaming.broker import ensure_topics
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.progress import await_caught_up, progress
from coeval_pipelines.streaming.submit import Submission, submit
from tests.chaos.campaign import changed
from tests.support import catalog
from tests.support.events import records
from tests.support.online import expected, read

SEED = 20260711
START = micros(datetime(2026, 3, 20, tzinfo=UTC))
END = START + 37 * DAY
COUNT = 3000
SOURCE = replace(catalog.PAYMENTS, topic="recovery_payments")
DEADLINE = 240


@dataclass
class Stream:
    """One deployed stream with its own tenant, control plane and topic; `produced` is what its topic holds."""

    engines: Settings
    settings: Settings
    manifest: Manifest
    control: ControlPlane
    jobs: dict[int, str] = field(default_factory=dict)
    upcoming: list[Record] = field(default_factory=list)
    produced: list[Record] = field(default_factory=list)
    writers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def since(self) -> int:
        return START - 40 * DAY

    @property
    def run(self) -> Run:
        (run,) = self.control.runs("payments")
        return run

    @property
    def job(self) -> str:
        return self.jobs[self.run.number]

    def deploy(self) -> None:
        self.jobs = deploy(self.settings, self.manifest, self.control, self.since)
        runs.await_running(self.settings, self.jobs.values())

    def carry_out(self, change: Change) -> None:
        self.jobs = runs.carry_out(self.settings, self.control, [change], print)
        runs.await_running(self.settings, self.jobs.values())

    def await_one_run(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while len(self.control.runs("payments")) > 1:
            assert time.monotonic() < deadline
            self.jobs = reconcile(self.settings, self.control)
            time.sleep(0.3)
        self.jobs = reconcile(self.settings, self.control)

    def start_writer(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "coeval_pipelines.streaming.writer"]
        log = (self.settings.home / "writer.log").open("ab")
        self.writers.append(subprocess.Popen(command, stderr=log, env={**os.environ, **self.settings.variables()}))
        return self.writers[-1]

    def produce(self, count: int, pause: float = 0.0) -> None:
        from kafka import KafkaProducer

        taken, self.upcoming = self.upcoming[:count], self.upcoming[count:]
        with closing(KafkaProducer(bootstrap_servers=self.settings.kafka.bootstrap, acks="all")) as producer:
            for number, record in enumerate(taken):
                stamp = record.available_at // 1000
                producer.send(SOURCE.topic, value=record.value, partition=record.partition, timestamp_ms=stamp)
                if pause and number % 50 == 0:
                    time.sleep(pause)
            producer.flush()
        self.produced += taken

    def arrived(self) -> int:
        return progress(self.settings, self.manifest, self.control).produced

    def catch_up(self) -> None:
        await_caught_up(self.settings, self.manifest, self.control, DEADLINE)

    def assert_online_equals_the_contract(self) -> None:
        good = ingest(SOURCE, self.produced).good
        compared = 0
        with closing(open_redis(self.settings)) as client:
            writer = OnlineWriter(client, self.manifest.tenant)
            for view in self.manifest.views.values():
                assert writer.mark_ready(view, writer.incarnation(view), "test")
                keys = sorted({key_of(view, event) for event in good}, key=str)
                for key, values in zip(keys, read(client, self.manifest, view, keys, END), strict=True):
                    truth = expected(view, SOURCE, good, key, END, late_seen=False)
                    assert values == truth, (view.name, key)
                    compared += len(values)
        assert compared > 200


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    print(f"seed {SEED}")
    settings = stack.model_copy(update={"home": tmp_path_factory.mktemp("recovery")})
    manifest = replace(catalog.manifest(), tenant="recovery", event_sources=(SOURCE,))
    with closing(ControlPlane.open(settings)) as control:
        found = Stream(stack, settings, manifest, control)
        found.upcoming = records(SEED, COUNT, START, 35 * DAY, settings.kafka.partitions)
        # The writer comes first: it has to wait for topics that are not there.
        found.start_writer()
        assert SOURCE.topic in ensure_topics(settings, manifest)
        assert ensure_topics(settings, manifest) == ()
        found.deploy()
        try:
            yield found
        finally:
            with suppress(Exception):
                for job in found.jobs.values():
                    FlinkCluster.open(settings).cancel(job)
            for writer in found.writers:
                writer.kill()
                writer.wait()


def test_two_writers_fence_each_other_and_one_killed_is_replaced(stream: Stream) -> None:
    rival = stream.start_writer()
    stream.produce(800)
    stream.writers[0].kill()
    stream.produce(200)
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    third = stream.start_writer()
    rival.send_signal(signal.SIGTERM)
    assert rival.wait(30) == 0
    stream.produce(100)
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    assert third.poll() is None


def test_deploying_again_leaves_a_job_that_runs_alone(stream: Stream) -> None:
    before = stream.jobs
    stream.deploy()
    assert stream.jobs == before


def test_a_job_that_is_gone_goes_on_from_its_checkpoint(stream: Stream) -> None:
    cluster = FlinkCluster.open(stream.settings)
    run, job = stream.run, stream.job
    assert cluster.checkpointing(job).completed > 0
    cluster.cancel(job)
    stream.produce(300)
    stream.jobs = reconcile(stream.settings, stream.control)
    assert stream.run == run
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    assert stream.job != job
    assert _restored(stream)


def test_a_rescaled_job_takes_its_state_along(stream: Stream) -> None:
    for parallelism in (2, 1):
        change = requests.rescale(stream.settings, stream.control, "payments", parallelism)
        stream.carry_out(change)
        stream.produce(100)
        stream.catch_up()
        stream.assert_online_equals_the_contract()
        assert (stream.run.parallelism, stream.run.since) == (parallelism, change.run.since)
        assert "savepoint" in stream.run.restore
        assert _restored(stream)
    with pytest.raises(UsageError, match="the workers have"):
        requests.rescale(stream.settings, stream.control, "payments", 99)


def test_a_stopped_job_goes_on_from_its_savepoint(stream: Stream) -> None:
    cluster, before = FlinkCluster.open(stream.settings), stream.job
    runs.stop(stream.settings, stream.control, ["payments"], print)
    assert not cluster.job(before).live
    (stopped,) = stream.control.runs("payments", (STOPPED,))
    stream.produce(200)
    assert reconcile(stream.settings, stream.control) == {}, "what was stopped on purpose is not started again"
    owned = ownership(stream.manifest, stream.control)
    (change,) = plan(stream.settings, stream.manifest, stream.control, owned)
    assert (change.action, change.run) == ("resume", stopped)
    stream.deploy()
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    assert _restored(stream)


def test_a_rewind_goes_on_beside_the_old_run_and_ends_in_the_same_state(stream: Stream) -> None:
    old, before = stream.run, stream.job
    stream.produce(400)
    (change,) = requests.rewind(stream.settings, stream.control, "payments", None)
    # Of 35 days, only what may still count is read again.
    assert 0 < change.records < len(stream.produced) / 2
    assert min(change.run.since.values()) > START
    stream.carry_out(change)
    assert FlinkCluster.open(stream.settings).job(before).live
    stream.await_one_run()
    assert not FlinkCluster.open(stream.settings).job(before).live
    assert stream.run.replaces == (old.number,)
    stream.produce(100)
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    assert not _restored(stream)


def test_a_rewind_after_everything_was_lost_starts_as_early_as_needed(stream: Stream) -> None:
    """The changelogs, checkpoints and Redis are all caches of the log: a rewind to the start makes them anew."""
    with closing(open_redis(stream.settings)) as client:
        client.flushall()
    (change,) = requests.rewind(stream.settings, stream.control, "payments", stream.since)
    assert change.run.since == dict.fromkeys(stream.manifest.views, stream.since)
    stream.carry_out(change)
    stream.await_one_run()
    stream.catch_up()
    stream.assert_online_equals_the_contract()


def _restored(stream: Stream) -> bool:
    url = f"{stream.settings.flink.rest_url}/jobs/{stream.job}/checkpoints"
    with urllib.request.urlopen(url) as response:
        return bool(json.load(response)["latest"]["restored"])


def test_a_changed_view_fills_beside_the_old_one_until_readers_are_switched(stream: Stream) -> None:
    before, settings, control = stream.run, stream.settings, stream.control
    old, new = stream.manifest, changed(stream.manifest)
    say: list[str] = []
    deploy(settings, new, control, stream.since, say.append)
    assert any("beside: new version" in line for line in say)
    running, green = control.runs("payments")
    assert (running, green.views) == (before, ("card_spend",))
    assert control.released() == old
    stream.produce(100)
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    stream.manifest = new
    with pytest.raises(CheckFailedError, match="Not filled yet: card_spend"):
        switch(settings, new, control)
    stream.catch_up()
    stream.assert_online_equals_the_contract()
    with pytest.raises(
        CheckFailedError, match=r"Parity does not let it through. card_spend .*: no parity run has looked"
    ):
        switch(settings, new, control)
    view = new.views["card_spend"]
    passed = ParityCheck(view.name, view.version, 1, 7, 7, 7, {}, budgets=budgets_text(view))
    ParityBook(control).record(1, new.hash, False, {}, [replace(passed, breaches=("1 unexplained",))])
    with pytest.raises(CheckFailedError, match=r"run 1 of .* failed: 1 unexplained"):
        switch(settings, new, control)
    ParityBook(control).record(2, new.hash, True, {}, [passed])
    switch(settings, new, control)
    assert Manifest.from_json(settings.released_path.read_text()) == new
    switch(settings, old, control)
    assert control.released() == old
    switch(settings, new, control)
    assert retire(settings, control) == [f"card_spend {old.views['card_spend'].version}"]
    stream.await_one_run()
    assert set(stream.run.replaces) == {before.number, green.number}
    stream.produce(100)
    stream.catch_up()
    stream.assert_online_equals_the_contract()


def test_a_job_that_cannot_run_says_why(stream: Stream, tmp_path: Path) -> None:
    nowhere = stream.settings.flink.model_copy(update={"rest_url": "http://127.0.0.1:9"})
    with pytest.raises(EngineError, match="does not answer"):
        reconcile(stream.settings.model_copy(update={"flink": nowhere}), stream.control)
    bare = stream.settings.model_copy(update={"cache": tmp_path, "home": tmp_path})
    with pytest.raises(EngineError, match="flink-sql-connector-kafka is not in"):
        submit(bare, [Submission(stream.manifest, stream.run)])
