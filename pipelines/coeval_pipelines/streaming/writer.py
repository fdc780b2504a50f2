"""The online writer: changelog topics to Redis, its offsets kept in Redis with the data. It knows Kafka and Redis.

There are no consumer groups: each call to the store advances the changelog offset of its bucket by compare-and-set, in
the same step as the data. So a store that was wiped or rolled back takes the offset back with it, and two writers fence
each other. Stored offsets are also looked at when nothing flows. Everything else is repetition: values are absolute and
guarded, so reading a stretch of a changelog again ends in the same state.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from coeval.errors import CoevalError
from coeval.logs import configure_logging
from coeval.online.layout import Update
from coeval.online.writer import Fence, FencedError, OnlineWriter
from coeval.settings import Settings, load_settings
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.kafka import client_options
from coeval_pipelines.streaming.certificates import Certifier
from coeval_pipelines.streaming.feeds import Feed, feeds, ranges

UPDATES_PER_CALL = 1000
LOOK_SECONDS = 0.5
"""How often deployments and stored offsets are looked at: a wiped store is noticed within this and a poll."""
_POLL_MILLISECONDS = 100
_POLL_RECORDS = 20_000
_RETRY_SECONDS = 1.0
_LOG: Any = structlog.get_logger("coeval.writer")


@dataclass(slots=True)
class Tally:
    """What one look-interval did, for the log."""

    messages: int = 0
    written: int = 0
    refused: int = 0
    since: float = field(default_factory=time.monotonic)


class Writer:
    """One writer process. Not thread-safe; `run` ends when `stop` is set."""

    def __init__(self, settings: Settings, control: ControlPlane, client: Any, consumer: Any) -> None:
        self._settings = settings
        self._control = control
        self._client = client
        self._consumer = consumer
        self._writers: dict[str, OnlineWriter] = {}
        self._feeds: dict[str, Feed] = {}
        self._stored: dict[tuple[str, int], int | None] = {}
        self._tally = Tally()

    def run(self, stop: threading.Event) -> None:
        """Read and write until told to stop.

        Raises:
            redis.RedisError, kafka.errors.KafkaError: a component is away; what was read is read again later.
        """
        looked = 0.0
        while not stop.is_set():
            if time.monotonic() - looked >= LOOK_SECONDS:
                self._look()
                looked = time.monotonic()
            if not self._stored:
                stop.wait(LOOK_SECONDS)
                continue
            for partition, records in self._poll().items():
                self._write(partition, records)

    def _look(self) -> None:
        """Take up new deployments, and go back where the store is not where this writer left it."""
        current = feeds(self._control)
        if current != self._feeds:
            self._assign(current)
        for feed in self._feeds.values():
            for bucket, stored in self._online(feed).offsets(feed.view).items():
                known = self._stored.get((feed.topic, bucket), _UNKNOWN)
                if known is not _UNKNOWN and known != stored:
                    self._seek(feed.topic, bucket, stored)
        self._report()

    def _assign(self, current: dict[str, Feed]) -> None:
        from kafka import TopicPartition

        present = self._consumer.topics()
        ready = {topic: feed for topic, feed in current.items() if topic in present}
        if ready.keys() == self._feeds.keys():
            return
        self._consumer.assign([TopicPartition(t, p) for t, feed in ready.items() for p in range(feed.view.partitions)])
        self._feeds = ready
        self._stored = {}
        for feed in ready.values():
            for bucket, stored in self._online(feed).offsets(feed.view).items():
                self._seek(feed.topic, bucket, stored)
        _LOG.info("reading changelogs", topics=sorted(ready))

    def _seek(self, topic: str, bucket: int, stored: int | None) -> None:
        from kafka import TopicPartition

        if (topic, bucket) in self._stored:
            _LOG.warning(
                "the store is elsewhere: reading again",
                topic=topic, partition=bucket, known=self._stored[topic, bucket], stored=stored,
            )  # fmt: skip
        self._stored[topic, bucket] = stored
        self._consumer.seek(TopicPartition(topic, bucket), stored or 0)

    def _online(self, feed: Feed) -> OnlineWriter:
        if feed.tenant not in self._writers:
            self._writers[feed.tenant] = OnlineWriter(self._client, feed.tenant)
        return self._writers[feed.tenant]

    def _poll(self) -> dict[str, list[Any]]:
        """The records of one poll by topic; of all its partitions together, so that they are parsed in one go."""
        by_topic: dict[str, list[Any]] = {}
        polled = self._consumer.poll(timeout_ms=_POLL_MILLISECONDS, max_records=_POLL_RECORDS)
        for partition, records in polled.items():
            by_topic.setdefault(partition.topic, []).extend(records)
        return by_topic

    def _write(self, topic: str, records: Sequence[Any]) -> None:
        feed = self._feeds[topic]
        self._tally.messages += len(records)
        for bucket, (first, following, updates) in ranges(feed, records).items():
            try:
                self._apply(feed, bucket, first, following, updates)
            except FencedError as error:
                self._seek(topic, bucket, error.stored)

    def _apply(self, feed: Feed, bucket: int, first: int, following: int, updates: Sequence[Update]) -> None:
        """Write a range of a changelog partition; its offset advances with the last call."""
        stored = self._stored[feed.topic, bucket]
        for start in range(0, max(1, len(updates)), UPDATES_PER_CALL):
            chunk = updates[start : start + UPDATES_PER_CALL]
            last = start + UPDATES_PER_CALL >= len(updates)
            reached = following if last else first if stored is None else stored
            applied = self._online(feed).apply(feed.view, bucket, chunk, Fence(stored, reached))
            self._stored[feed.topic, bucket] = stored = reached
            self._tally.written += applied.written
            self._tally.refused += applied.refused

    def _report(self) -> None:
        tally = self._tally
        if tally.messages:
            seconds = time.monotonic() - tally.since
            _LOG.info(
                "written",
                messages=tally.messages,
                written=tally.written,
                refused=tally.refused,
                seconds=round(seconds, 2),
            )
        self._tally = Tally()


_UNKNOWN = object()


def open_consumer(settings: Settings) -> Any:
    """A consumer without a group."""
    from kafka import KafkaConsumer

    return KafkaConsumer(
        **client_options(settings.kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        fetch_max_bytes=16 << 20,
        max_partition_fetch_bytes=2 << 20,
        max_poll_records=_POLL_RECORDS,
        check_crcs=False,
        metadata_max_age_ms=10_000,
    )


def serve(settings: Settings, stop: threading.Event) -> None:
    """Run a writer until told to stop; a component that is away is waited for, and said once."""
    import redis
    import sqlalchemy as sa
    from kafka.errors import KafkaError

    complaint = ""
    with contextlib.closing(ControlPlane.open(settings)) as control, Certifier(settings, control):
        while not stop.is_set():
            try:
                _serve_once(settings, control, stop)
            except (CoevalError, redis.RedisError, KafkaError, sa.exc.OperationalError) as error:
                if str(error) != complaint:
                    complaint = str(error)
                    _LOG.warning("waiting for a component", error=complaint)
                stop.wait(_RETRY_SECONDS)
            else:
                complaint = ""


def _serve_once(settings: Settings, control: ControlPlane, stop: threading.Event) -> None:
    from coeval.client import open_redis

    with contextlib.closing(open_redis(settings)) as client, contextlib.closing(open_consumer(settings)) as consumer:
        _LOG.info("connected", redis=settings.redis.shown, kafka=settings.kafka.bootstrap)
        Writer(settings, control, client, consumer).run(stop)


def main() -> int:
    """The process: until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logging("info")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(settings, stop)
    _LOG.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
