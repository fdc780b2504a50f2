"""Canaries: one synthetic event per source every few seconds, and how long until readers of each view can see it.

A canary goes the way of any event: produced to the source's topic, through the job, the changelog and the writer. It is
seen once the state of its key in the online store says that it holds an event as new as the canary. It knows Kafka and
Redis. What is sent, and under which key, the source declares (`coeval.spec.canary`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import redis
import sqlalchemy as sa
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from coeval.client import open_redis
from coeval.errors import CoevalError
from coeval.online.store import fetch
from coeval.settings import Settings
from coeval.spec.canary import canary_record
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.complaints import Complaints
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.kafka import answering, client_options
from coeval_pipelines.streaming.freshness import FreshnessBook
from coeval_pipelines.streaming.probes import NEWEST, Probe, Sent, Watch, probes, quantile

LONGEST_POLL = 1.0
_SHORTEST_POLL = 0.01
_BOOK_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_ACK_SECONDS = 10
_BUCKETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_LOG: Any = structlog.get_logger("coeval.canary")


class CanaryMetrics:
    """The metrics of canaries, in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ("tenant", "source", "view")
        self.freshness = Histogram(
            "coeval_freshness_seconds",
            "From producing a canary to its being readable online",
            names,
            buckets=_BUCKETS,
            registry=registry,
        )
        self.newest = Gauge(
            "coeval_freshness_recent_seconds",
            f"The same as a quantile of the newest {NEWEST} canaries: 0.5, and 1 for the slowest",
            (*names, "quantile"),
            registry=registry,
        )
        self.waiting = Gauge(
            "coeval_canary_waiting_seconds",
            "How long the oldest canary is under way that is not readable yet",
            names,
            registry=registry,
        )
        self.missed = Counter(
            "coeval_canary_missed", "Canaries not readable within the view's promise", names, registry=registry
        )
        self.sent = Counter("coeval_canary_sent", "Canaries produced", ("tenant", "source"), registry=registry)

    def observe(self, watch: Watch, arrived: Sequence[float], late: int, now: float) -> None:
        """Take up what a look at a view found."""
        labels = watch.probe.labels
        for seconds in arrived:
            self.freshness.labels(**labels).observe(seconds)
        for name, share in (("0.5", 0.5), ("1", 1.0)) if arrived else ():
            self.newest.labels(**labels, quantile=name).set(quantile(watch.samples, share) or 0.0)
        self.missed.labels(**labels).inc(late)
        self.waiting.labels(**labels).set(watch.age(now))

    def forget(self, watch: Watch) -> None:
        """Stop waiting for a view that no canary reaches any more."""
        self.waiting.labels(**watch.probe.labels).set(0.0)


class Canaries:
    """Sends canaries and watches for them in a thread of its own, until closed. A context manager."""

    def __init__(self, settings: Settings, control: ControlPlane, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._control = control
        self._metrics = CanaryMetrics(registry)
        self._watches: dict[tuple[str, str], Watch] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canaries", daemon=True)

    def __enter__(self) -> Canaries:
        if self._settings.metrics.canary_seconds > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        """Work; a component that is away is waited for, and said once, as is whatever else goes wrong."""
        complaints = Complaints(_LOG, "canaries do not go on")
        while not self._stop.is_set():
            try:
                if not self._declared():
                    self._stop.wait(self._settings.metrics.canary_seconds)
                    continue
                self._connected(complaints)
            except Exception as error:  # noqa: BLE001 - a thread that ends measures nothing, and nobody would know
                away = isinstance(error, (CoevalError, redis.RedisError, sa.exc.SQLAlchemyError))
                complaints.say(error, trace=not away)
                self._grow_old(time.monotonic())
                self._stop.wait(_RETRY_SECONDS)

    def _connected(self, complaints: Complaints) -> None:
        with (
            contextlib.closing(FreshnessBook.open(self._settings)) as book,
            contextlib.closing(open_redis(self._settings)) as client,
            contextlib.closing(Sender(self._settings)) as sender,
        ):
            send_at = write_at = 0.0
            while not self._stop.is_set():
                if (now := time.monotonic()) >= send_at:
                    send_at = now + self._settings.metrics.canary_seconds
                    self._send(sender)
                self._look(client)
                if now >= write_at:
                    write_at = now + _BOOK_SECONDS
                    book.write([watch.freshness(now, time.time_ns() // 1000) for watch in self._watches.values()])
                complaints.well()
                self._stop.wait(self._pause(time.monotonic(), send_at))

    def _declared(self) -> list[tuple[Manifest, EventSource]]:
        manifest = self._control.released()
        return [(manifest, source) for source in manifest.event_sources if source.canary] if manifest else []

    def _send(self, sender: Sender) -> None:
        """Send one canary per source, all at once, then watch for them."""
        flying: list[tuple[tuple[Probe, ...], float, Any]] = []
        for manifest, source in self._declared():
            began, at = time.monotonic(), whole_milliseconds(time.time_ns() // 1000)
            if reached := probes(manifest, source, at):
                flying.append((reached, began, sender.send(source, at)))
                self._metrics.sent.labels(tenant=manifest.tenant, source=source.name).inc()
        found: dict[tuple[str, str], Watch] = {}
        for reached, began, promise in flying:
            sent = Sent(sender.landed(promise), began)
            for probe in reached:
                name = (probe.view.name, probe.view.version)
                old = self._watches.get(name)
                found[name] = old if old and old.probe == probe else Watch(probe)
                found[name].waiting.append(sent)
        for name in self._watches.keys() - found.keys():
            self._metrics.forget(self._watches[name])
        self._watches = found

    def _grow_old(self, now: float) -> None:
        """Count on while nothing can be looked at."""
        for watch in self._watches.values():
            self._observe(watch, [], now)

    def _look(self, client: redis.Redis) -> None:
        watches = [watch for watch in self._watches.values() if watch.waiting]
        blobs = fetch(client, [watch.probe.key for watch in watches]) if watches else []
        now = time.monotonic()
        for watch, blob in zip(watches, blobs, strict=True):
            self._observe(watch, watch.look(watch.probe.reached(blob), now), now)

    def _observe(self, watch: Watch, arrived: Sequence[float], now: float) -> None:
        late = watch.late(now)
        self._metrics.observe(watch, arrived, late, now)
        if late and not watch.slow:
            watch.slow = True
            _LOG.warning("canaries are not readable within the view's promise", **_about(watch, now))
        elif watch.slow and not late and watch.age(now) * 1e6 <= watch.probe.view.sla.freshness:
            watch.slow = False
            _LOG.info("canaries are readable in time again", **_about(watch, now))

    def _pause(self, now: float, send_at: float) -> float:
        """Seconds until the next look: short while canaries are fresh, a twentieth of their age later."""
        newest = min((now - watch.waiting[-1].began for watch in self._watches.values() if watch.waiting), default=None)
        wait = LONGEST_POLL if newest is None else min(LONGEST_POLL, max(_SHORTEST_POLL, newest / 20))
        return max(0.0, min(wait, send_at - now))


def _about(watch: Watch, now: float) -> dict[str, object]:
    probe, view = watch.probe, watch.probe.view
    promised, waiting = view.sla.freshness / 1e6, round(watch.age(now), 1)
    return {
        "job": probe.job, "source": probe.source.name, "view": view.name, "version": view.version,
        "promised_seconds": promised, "waiting_seconds": waiting, "missed": watch.missed,
    }  # fmt: skip


def whole_milliseconds(at: int) -> int:
    """The instant (microseconds UTC) as Kafka keeps it, in whole milliseconds.

    A canary that claimed to have happened later than that would be ahead of its own record.
    """
    return at - at % 1000


class Sender:
    """Produces canaries, to the partitions of a topic in turn. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        from kafka import KafkaProducer

        self._kafka = settings.kafka
        self._turn = 0
        with answering(self._kafka):
            self._producer: Any = KafkaProducer(
                **client_options(self._kafka), acks="all", linger_ms=0, max_block_ms=_ACK_SECONDS * 1000
            )

    def close(self) -> None:
        """Close the connection; what was not sent by now is dropped."""
        self._producer.close(timeout=1)

    def send(self, source: EventSource, at: int) -> Any:
        """Produce the canary of an instant (microseconds UTC); gives what `landed` waits for.

        Raises:
            BrokerError: the broker refuses or does not answer.
        """
        record = canary_record(source, at)
        with answering(self._kafka):
            partitions = sorted(self._producer.partitions_for(source.topic) or {0})
            self._turn += 1
            return self._producer.send(
                source.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=partitions[self._turn % len(partitions)],
                timestamp_ms=at // 1000,
            )

    def landed(self, promise: Any) -> int:
        """When the record was available (microseconds UTC): its timestamp, which the broker may have set.

        Raises:
            BrokerError: the broker refused it or does not answer.
        """
        with answering(self._kafka):
            return int(promise.get(timeout=_ACK_SECONDS).timestamp) * 1000
