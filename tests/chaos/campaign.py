"""A campaign: payments flow into a whole stack while one fault after the other hits it, each until values are fresh."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import redis

from coeval.client import open_redis
from coeval.errors import StoreError
from coeval.online.keys import data_key
from coeval.online.rows import decode_row
from coeval.reference.oracle import is_late
from coeval.settings import Settings
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import WindowedView
from coeval.spec.records import Ingested, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination import requests, runs
from coeval_pipelines.coordination.deploy import deploy, release, retire
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.kafka import client_options
from coeval_pipelines.local import stack
from coeval_pipelines.local.components import workers
from coeval_pipelines.streaming.accounting import read_accounting
from coeval_pipelines.streaming.progress import await_caught_up
from tests.chaos import faults
from tests.chaos.verify import Verdict, on_topic, verify
from tests.support.payments import catalog
from tests.support.payments.generator import generate
from tests.support.payments.shape import HOT_CARD, Spec

START = micros(datetime(2026, 9, 1, 7, tzinfo=UTC))
SPAN_SECONDS = 2 * 86_400
FRESH_SECONDS = 240.0
CATCH_UP_SECONDS = 900.0
_SLICE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign's size: records, how many of each fault, and how many records a second are sent meanwhile."""

    seed: int
    events: int
    rate: float
    counts: dict[str, int]
    views: catalog.ViewSet = "all"
    """All sources, or a few views of the payments alone."""
    changes: bool = True
    """Whether the stream is rescaled, and a changed view deployed, while it runs."""


@dataclass(slots=True)
class Outcome:
    """What a campaign came to. Recovery: seconds from the fault until a record sent after it could be read online."""

    records: int = 0
    seconds: float = 0.0
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    verdict: Verdict = field(default_factory=Verdict)
    accounting: dict[str, dict[str, int]] = field(default_factory=dict)
    """By source, what became of its records, by the rules of the log; the rejected by reason."""
    uncounted: list[str] = field(default_factory=list)
    """Where the producer or the stream's own counters, per reason and granularity, say something else."""
    skipped: list[str] = field(default_factory=list)


class Producer(threading.Thread):
    """Sends a spec's records at a rate until all are sent; a broker that is away is waited for."""

    def __init__(self, settings: Settings, manifest: Manifest, spec: Spec, rate: float) -> None:
        super().__init__(name="producer", daemon=True)
        self._settings, self._spec, self.rate = settings, spec, rate
        topics = {source.name: source.topic for source in manifest.event_sources}
        self._topics = [topics.get(source.name) for source in catalog.SOURCES]
        self.sent = 0
        self.stamp = 0
        """When the newest payment that was sent became available, in milliseconds."""
        self.failure: BaseException | None = None
        self.allowed = 0
        """How many records may be sent by now: each fault has its share, half before it and half after."""

    def run(self) -> None:
        """Send; what went wrong is kept for whoever joins."""
        try:
            self._send()
        except BaseException as error:
            self.failure = error
            raise

    def _send(self) -> None:
        from kafka import KafkaProducer

        options = client_options(self._settings.kafka)
        # Idempotent, so that what is sent again after a failure stands in the log once.
        options |= {"acks": "all", "enable_idempotence": True, "linger_ms": 5, "delivery_timeout_ms": 300_000}
        due, pending = time.monotonic(), []
        with closing(KafkaProducer(**options)) as producer:
            for batch in generate(self._spec):
                for index in range(len(batch)):
                    due = max(due, time.monotonic() - _SLICE_SECONDS) + 1 / self.rate
                    while self.sent >= self.allowed or due > time.monotonic() + _SLICE_SECONDS:
                        time.sleep(_SLICE_SECONDS)
                    stamp, source = int(batch.timestamp_ms[index]), int(batch.source[index])
                    if self._topics[source] is None:
                        continue
                    pending.append(
                        producer.send(
                            self._topics[source],
                            key=batch.key[index],
                            value=batch.value[index],
                            partition=int(batch.partition[index]),
                            timestamp_ms=stamp,
                        )
                    )
                    self.sent += 1
                    if not source:
                        self.stamp = stamp
                pending = [item for item in pending if not item.succeeded()]
                for item in pending:
                    if item.failed():
                        raise item.exception
            producer.flush()


class Campaign:
    """One campaign on a stack of its own."""

    def __init__(self, settings: Settings, plan: Plan, say: Callable[[str], None]) -> None:
        self._settings, self._plan, self._say = settings, plan, say
        self._random = random.Random(plan.seed)
        self._manifest = catalog.manifest(plan.views, tenant="chaos")
        self._outcome = Outcome()
        self._disk = settings.home.resolve() / "local" / "checkpoints"

    def run(self) -> Outcome:
        """Bring the stack up, let it suffer, compare, and take it down."""
        small = self._plan.counts.get("full disk", 0) > 0 and faults.small_disk(self._disk)
        began = time.monotonic()
        try:
            stack.up(self._settings)
            with closing(ControlPlane.open(self._settings)) as control:
                self._suffer(control, small)
                self._compare(control)
        finally:
            stack.down(self._settings)
            if small:
                faults.remove_disk(self._disk)
        self._outcome.seconds = time.monotonic() - began
        return self._outcome

    def _suffer(self, control: ControlPlane, small: bool) -> None:
        deploy(self._settings, self._manifest, control, START - 40 * DAY)
        plan = self._plan
        spec = Spec(seed=plan.seed, events=plan.events, start=START, rate=plan.events / SPAN_SECONDS)
        producer = Producer(self._settings, self._manifest, spec, plan.rate)
        steps = self._schedule(control, small)
        half = plan.events // (2 * len(steps) + 4)
        producer.allowed = half
        producer.start()
        self._await_fresh("start", 0, time.monotonic())
        for number, (name, step) in enumerate(steps, 1):
            if producer.failure:
                raise RuntimeError("the producer failed") from producer.failure
            self._say(f"[{number}/{len(steps)}] {producer.sent:,} sent: {name}")
            restarts = {item.name: item.restarts for item in stack.status(self._settings).components}
            began = time.monotonic()
            producer.allowed += half
            hit = step()
            mark = producer.stamp
            producer.allowed += half
            faults.await_healthy(self._settings, {one: restarts[one] for one in hit})
            self._await_fresh(name, mark, began)
        self._say("all faults done: sending the rest")
        producer.rate, producer.allowed = float("inf"), plan.events
        producer.join()
        self._outcome.records = producer.sent
        self._say("waiting until everything is online")
        one_each = len(self._manifest.event_sources)
        faults.await_(lambda: len(control.runs()) == one_each, CATCH_UP_SECONDS, lambda: str(control.runs()))
        await_caught_up(self._settings, self._manifest, control, CATCH_UP_SECONDS)

    def _schedule(self, control: ControlPlane, small: bool) -> list[tuple[str, Callable[[], Sequence[str]]]]:
        """The faults in a random order; what changes the stream, in the middle of them, in its own order."""
        settings = self._settings
        known: dict[str, Callable[[], Sequence[str]]] = {
            "worker": lambda: _hit(faults.kill_workers(settings), *workers(settings)),
            "worker, standby": lambda: _hit(faults.kill_worker(settings), "taskmanager"),
            "job manager": lambda: _hit(faults.kill(settings, "jobmanager"), "jobmanager"),
            "writer": lambda: _hit(faults.kill(settings, "writer"), "writer"),
            "redis": lambda: _hit(faults.kill(settings, "redis"), "redis"),
            "redis wiped": lambda: _hit(faults.wipe(settings), "redis"),
            "broker": lambda: _hit(faults.kill(settings, "broker"), "broker"),
            "worker paused": lambda: _hit(faults.pause(settings, "taskmanager")),
            "writer paused": lambda: _hit(faults.pause(settings, "writer")),
            "full disk": lambda: _hit(faults.fill_disk(self._disk)),
        }
        chosen = [name for name, count in self._plan.counts.items() for _ in range(count)]
        if not small and "full disk" in chosen:
            self._outcome.skipped.append("full disk: no file system may be mounted here")
            chosen.remove("full disk")
        self._random.shuffle(chosen)
        steps = [(name, known[name]) for name in chosen]
        if self._plan.changes:
            changes: list[tuple[str, Callable[[], Sequence[str]]]] = [
                ("rescale 1 -> 2", lambda: self._rescale(control, 2)),
                ("rescale 2 -> 1", lambda: self._rescale(control, 1)),
                ("changed view", lambda: self._change_view(control)),
                ("retire", lambda: self._retire(control)),
            ]
            for part, change in enumerate(changes, 1):
                steps.insert(part * len(steps) // (len(changes) + 1), change)
        return steps

    def _rescale(self, control: ControlPlane, parallelism: int) -> Sequence[str]:
        with only_one(self._settings, "deploy"):
            change = requests.rescale(self._settings, control, "payments", parallelism)
            runs.carry_out(self._settings, control, [change], self._say)
        return ()

    def _change_view(self, control: ControlPlane) -> Sequence[str]:
        """A new version of a view fills beside the old one; readers go over to it at once, as in no real store."""
        self._manifest = changed(self._manifest)
        deploy(self._settings, self._manifest, control, START - 40 * DAY, self._say)
        release(self._settings, control, self._manifest)
        return ()

    def _retire(self, control: ControlPlane) -> Sequence[str]:
        retire(self._settings, control, self._say)
        return ()

    def _await_fresh(self, name: str, mark: int, began: float) -> None:
        """Wait until a payment that was sent after `mark` (milliseconds) can be read; note how long after the fault."""
        complaint = f"{name}: nothing that was sent after {mark} is online, only what was sent at"
        faults.await_(lambda: self._read() > mark, FRESH_SECONDS, lambda: f"{complaint} {self._read()}")
        self._outcome.recovery[name].append(time.monotonic() - began)

    def _read(self) -> int:
        """When the newest payment of the hot card that is online became available, in milliseconds; 0 for none."""
        view = self._manifest.views["latest_payment"]
        with suppress(redis.RedisError, StoreError), closing(open_redis(self._settings)) as client:
            name = data_key(self._manifest.tenant, view, encode_key(view.key, (HOT_CARD,)))
            blob: Any = client.get(name)
            return decode_row(view.features, blob)[0][1] // 1000 if blob else 0
        return 0

    def _compare(self, control: ControlPlane) -> None:
        self._say("reading the topics, and comparing every key")
        records = {source.name: on_topic(self._settings, source.topic) for source in self._manifest.event_sources}
        if (there := sum(map(len, records.values()))) != self._outcome.records:
            self._outcome.uncounted.append(f"{self._outcome.records} records were sent, and the topics hold {there}")
        self._outcome.verdict, judged = verify(self._settings, self._manifest, records)
        for source in self._manifest.event_sources:
            self._outcome.accounting[source.name] = _counts(judged[source.name])
            (run,) = control.runs(source.name)
            # A run that was rewound judges what lies above its start, and knows no earlier copies.
            seen = [item for item in records[source.name] if item.offset >= run.start.get(item.partition, 0)]
            found = read_accounting(self._settings.kafka, self._manifest, run)
            said = {"read": found.read, "good": found.good, "duplicates": found.duplicates, **found.rejected}
            said |= {f"late by {hop}": late for hop, late in found.late.items()}
            log = ingest(source, seen)
            expected = _counts(log)
            for hop in found.late:
                expected[f"late by {hop}"] = sum(is_late(item, hop, source.allowed_lateness) for item in log.good)
            if said != expected:
                self._outcome.uncounted.append(f"{source.name}: the stream counts {said}, the log {expected}")


def _counts(judged: Ingested) -> dict[str, int]:
    """What became of records: read, good, duplicates, and the rejected by reason."""
    rejected = Counter(str(reason) for _, reason in judged.rejected)
    read = len(judged.good) + len(judged.duplicates) + len(judged.rejected)
    return {"read": read, "good": len(judged.good), "duplicates": len(judged.duplicates), **rejected}


def changed(manifest: Manifest) -> Manifest:
    """The manifest with another version of card_spend: one aggregate fewer."""

    def change(view: WindowedView) -> WindowedView:
        if view.name != "card_spend":
            return view
        fewer = replace(view, aggregates=view.aggregates[:-1], features=view.features[:-1])
        return with_version(fewer, manifest.event_source(view))

    return replace(manifest, windowed_views=tuple(change(view) for view in manifest.windowed_views), services=())


def _hit(_: None, *names: str) -> Sequence[str]:
    return names
