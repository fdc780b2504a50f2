"""The loop of the online writer: changelog topics to Redis, offsets kept in Redis with the data. It knows both.

Each call to the store advances the changelog offset of its bucket by compare-and-set, in the same step as the data. So
a store that was wiped or rolled back takes the offset back with it, and two writers fence each other. Stored offsets
are also looked at when nothing flows. Everything else is repetition: values are absolute and guarded, so reading a
stretch of a changelog again ends in the same state.

While the store works on one batch, the next one is polled and encoded; no more than these two are ever held, so a store
that is slow slows the reading down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from coeval.online.writer import Applied, Call, Fence, FencedError, OnlineWriter
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.feeds import Feed, Range, feeds, ranges
from coeval_pipelines.streaming.members import Members, owner
from coeval_pipelines.streaming.meters import Meters

LOOK_SECONDS = 0.5
"""How often deployments, other writers and stored offsets are looked at: a wiped store is noticed within this."""
_POLL_MILLISECONDS = 100
POLL_RECORDS = 10_000
_ANSWER_MILLISECONDS = 5_000
_LOG: Any = structlog.get_logger("coeval.writer")
_Place = tuple[str, int]
"""A changelog partition: topic and number."""


@dataclass(frozen=True, slots=True)
class Work:
    """A range of a feed and the call that writes it."""

    feed: Feed
    range: Range
    call: Call

    @property
    def place(self) -> _Place:
        """The changelog partition."""
        return self.feed.topic, self.range.bucket


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of calls, in their order, and when the store had answered (seconds since the epoch)."""

    outcomes: Sequence[Applied | FencedError]
    at: float


@dataclass(slots=True)
class Tally:
    """What one look-interval did, for the log."""

    messages: int = 0
    written: int = 0
    refused: int = 0
    since: float = field(default_factory=time.monotonic)


class Writer:
    """One writer process. Not thread-safe; `run` ends when `stop` is set."""

    def __init__(self, name: str, control: ControlPlane, client: Any, consumer: Any, meters: Meters) -> None:
        self._control = control
        self._client = client
        self._consumer = consumer
        self._meters = meters
        self._members = Members(client, name)
        self._writers: dict[str, OnlineWriter] = {}
        self._feeds: dict[str, Feed] = {}
        self._stored: dict[_Place, int | None] = {}
        """What the store holds of the partitions that are read here: by the last answer, once nothing is under way."""
        self._tally = Tally()

    def run(self, stop: threading.Event) -> None:
        """Read and write until told to stop; what is in hand then is finished.

        Raises:
            redis.RedisError, kafka.errors.KafkaError: a component is away; what was read is read again later.
        """
        looked = -LOOK_SECONDS
        sent: Sequence[Work] = ()
        answer: Future[Answer] | None = None
        with ThreadPoolExecutor(1, "store") as pool:
            while not stop.is_set():
                if time.monotonic() - looked >= LOOK_SECONDS:
                    self._settle(sent, answer)
                    answer = None
                    self._look()
                    looked = time.monotonic()
                if not self._stored:
                    stop.wait(LOOK_SECONDS)
                    continue
                polled = self._poll()
                lost = self._settle(sent, answer)
                sent, answer = self._work(polled, lost), None
                if sent:
                    answer = pool.submit(self._send, sent)
            self._settle(sent, answer)
        self._members.leave({feed.tenant for feed in self._feeds.values()})

    def _look(self) -> None:
        """Take up new deployments and this writer's share, and go back where the store is not where it was left."""
        self._find_feeds()
        mine = self._share()
        if mine != self._stored.keys():
            self._assign(mine)
        for feed in self._feeds.values():
            for bucket, stored in self._online(feed).offsets(feed.view).items():
                place = feed.topic, bucket
                if place in self._stored and self._stored[place] != stored:
                    _LOG.warning(
                        "the store is elsewhere: reading again", known=self._stored[place], **_where(feed, bucket)
                    )
                    self._seek(place, stored)
        self._report()

    def _find_feeds(self) -> None:
        current = feeds(self._control)
        if current.keys() != self._feeds.keys():
            present = self._consumer.topics()
            self._feeds = {topic: feed for topic, feed in current.items() if topic in present}

    def _share(self) -> set[_Place]:
        members = {tenant: self._members.renew(tenant) for tenant in {feed.tenant for feed in self._feeds.values()}}
        return {
            (topic, bucket)
            for topic, feed in self._feeds.items()
            for bucket in range(feed.view.partitions)
            if owner(topic, bucket, members[feed.tenant]) == self._members.name
        }

    def _assign(self, mine: set[_Place]) -> None:
        from kafka import TopicPartition

        self._consumer.assign([TopicPartition(*place) for place in sorted(mine)])
        self._stored = {}
        for topic in sorted({topic for topic, _ in mine}):
            feed = self._feeds[topic]
            for bucket, stored in self._online(feed).offsets(feed.view).items():
                if (topic, bucket) in mine:
                    self._seek((topic, bucket), stored)
        _LOG.info(
            "reading changelogs", partitions={topic: sorted(b for t, b in mine if t == topic) for topic, _ in mine}
        )

    def _seek(self, place: _Place, stored: int | None) -> None:
        from kafka import TopicPartition

        self._stored[place] = stored
        self._consumer.seek(TopicPartition(*place), stored or 0)
        self._meters.reread.labels(*self._feeds[place[0]].labels).inc()

    def _online(self, feed: Feed) -> OnlineWriter:
        if feed.tenant not in self._writers:
            self._writers[feed.tenant] = OnlineWriter(self._client, feed.tenant)
        return self._writers[feed.tenant]

    def _poll(self) -> list[tuple[Feed, Range]]:
        """What one poll comes to; the messages of a topic are parsed in one go."""
        by_topic: dict[str, dict[int, Sequence[Any]]] = {}
        polled = self._consumer.poll(timeout_ms=_POLL_MILLISECONDS, max_records=POLL_RECORDS)
        for place, records in polled.items():
            by_topic.setdefault(place.topic, {})[place.partition] = records
            self._meters.messages.labels(*self._feeds[place.topic].labels).inc(len(records))
            self._tally.messages += len(records)
        if polled:
            self._meters.poll_messages.observe(sum(len(records) for records in polled.values()))
        return [
            (self._feeds[topic], item) for topic, mine in by_topic.items() for item in ranges(self._feeds[topic], mine)
        ]

    def _work(self, polled: Sequence[tuple[Feed, Range]], lost: set[_Place]) -> list[Work]:
        """The calls of a poll, each behind the one before; without partitions that were lost after they were polled."""
        expected = dict(self._stored)
        found: list[Work] = []
        for feed, item in polled:
            place = feed.topic, item.bucket
            if place in lost:
                continue
            if expected[place] not in {None, item.first}:
                # Its retention was shorter than this writer was away; the next batch load covers what is gone.
                _LOG.warning(
                    "the changelog was cut", expected=expected[place], found=item.first, **_where(feed, item.bucket)
                )
            fence = Fence(expected[place], item.following)
            expected[place] = item.following
            found.append(Work(feed, item, Call(feed.view, item.bucket, item.updates, fence)))
        return found

    def _send(self, works: Sequence[Work]) -> Answer:
        """Write; in a thread of its own, of which there is one."""
        outcomes: dict[int, Applied | FencedError] = {}
        for tenant in dict.fromkeys(work.feed.tenant for work in works):
            mine = [at for at, work in enumerate(works) if work.feed.tenant == tenant]
            with self._meters.write_seconds.time():
                found = self._writers[tenant].apply_all([works[at].call for at in mine])
            outcomes.update(zip(mine, found, strict=True))
        return Answer([outcomes[at] for at in range(len(works))], time.time())

    def _settle(self, sent: Sequence[Work], answer: Future[Answer] | None) -> set[_Place]:
        """Wait for what was sent, and take note of it; the partitions whose fence did not hold are read again."""
        if answer is None:
            return set()
        lost: dict[_Place, FencedError] = {}
        found = answer.result()
        for work, outcome in zip(sent, found.outcomes, strict=True):
            self._meters.calls.labels(*work.feed.labels).inc()
            if isinstance(outcome, FencedError):
                lost[work.place] = outcome
                self._meters.fenced.labels(*work.feed.labels).inc()
            else:
                self._written(work, outcome, found.at)
        for (topic, bucket), error in lost.items():
            _LOG.warning("fenced off: reading again", stored=error.stored, **_where(self._feeds[topic], bucket))
            self._seek((topic, bucket), error.stored)
        return set(lost)

    def _written(self, work: Work, outcome: Applied, at: float) -> None:
        labels = work.feed.labels
        self._stored[work.place] = work.range.following
        self._meters.written.labels(*labels).inc(outcome.written)
        self._meters.refused.labels(*labels).inc(outcome.refused)
        self._tally.written += outcome.written
        self._tally.refused += outcome.refused
        if work.range.newest is not None:
            self._meters.freshness.labels(*labels).observe(max(0.0, at - work.range.newest / 1e6))

    def _report(self) -> None:
        self._meters.lag(self._lag())
        tally = self._tally
        if tally.messages:
            seconds = round(time.monotonic() - tally.since, 2)
            _LOG.info("written", messages=tally.messages, written=tally.written, refused=tally.refused, seconds=seconds)
        self._tally = Tally()

    def _lag(self) -> dict[tuple[str, str, str], int]:
        """The messages that the store does not cover yet; asking the broker also tells whether it is there."""
        from kafka import TopicPartition

        places = [TopicPartition(*place) for place in self._stored]
        ends = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MILLISECONDS) if places else {}
        return {
            (*self._feeds[at.topic].labels, str(at.partition)): end - (self._stored[at.topic, at.partition] or 0)
            for at, end in ends.items()
        }


def _where(feed: Feed, bucket: int) -> dict[str, Any]:
    return {"tenant": feed.tenant, "view": feed.labels[1], "topic": feed.topic, "partition": bucket}
