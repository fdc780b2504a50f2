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
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from coeval.online.writer import Applied, Call, Fence, FencedError, OnlineWriter
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.coverage import CoverageWatch
from coeval_pipelines.streaming.feeds import Feed, Range, feeds, replay_from
from coeval_pipelines.streaming.members import Members, owners
from coeval_pipelines.streaming.meters import Meters
from coeval_pipelines.streaming.reading import Changelogs, Place, where

LOOK_SECONDS = 0.5
"""How often deployments, other writers and stored offsets are looked at: a wiped store is noticed within this."""
_LOG: Any = structlog.get_logger("coeval.writer")


@dataclass(frozen=True, slots=True)
class Work:
    """A range of a feed and the call that writes it."""

    feed: Feed
    range: Range
    call: Call

    @property
    def place(self) -> Place:
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

    def __init__(
        self,
        name: str,
        control: ControlPlane,
        client: Any,
        consumer: Any,
        meters: Meters,
        well: Callable[[], None] = lambda: None,
    ) -> None:
        self._control = control
        self._client = client
        self._changelogs = Changelogs(consumer, meters)
        self._meters = meters
        self._members = Members(client, name)
        self._well = well
        """Called whenever all components have answered."""
        self._writers: dict[str, OnlineWriter] = {}
        self._stored: dict[Place, int | None] = {}
        """What the store holds of the partitions that are read here: by the last answer, once nothing is under way."""
        self._coverage = CoverageWatch(control)
        self._tally = Tally()
        self._idle = False
        """Whether the control plane knows of no changelog."""

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
                polled = self._changelogs.poll()
                self._tally.messages += sum(item.following - item.first for _, item in polled)
                lost = self._settle(sent, answer)
                sent, answer = self._work(polled, lost), None
                if sent:
                    answer = pool.submit(self._send, sent)
            self._settle(sent, answer)
        self._members.leave({feed.tenant for feed in self._changelogs.feeds.values()})

    def _look(self) -> None:
        """Take up new deployments and this writer's share, and go back where the store is not where it was left."""
        self._find()
        mine = self._share()
        if mine != self._stored.keys():
            self._assign(mine)
        moved: dict[Place, int | None] = {}
        for feed in self._changelogs.feeds.values():
            written = self._online(feed).offsets(feed.view)
            self._note(feed, written)
            for bucket, stored in written.items():
                place = feed.topic, bucket
                if place in self._stored and self._stored[place] != stored:
                    _LOG.warning(
                        "the store is elsewhere: reading again", known=self._stored[place], **where(feed, bucket)
                    )
                    moved[place] = stored
        self._go_on(moved)
        self._report()
        self._well()

    def _note(self, feed: Feed, written: Mapping[int, int | None]) -> None:
        """Take down what the store covers, before anything is written again."""
        known = {bucket: self._stored.get((feed.topic, bucket)) or 0 for bucket in written}
        fell = any((offset or 0) < known[bucket] for bucket, offset in written.items())
        self._coverage.note(feed, written, mine=(feed.topic, 0) in self._stored, fell=fell)

    def _find(self) -> None:
        deployed = feeds(self._control)
        if not deployed and not self._idle:
            url = self._control.engine.url.render_as_string(hide_password=True)
            _LOG.warning("nothing is deployed: waiting", control_plane=url)
        self._idle = not deployed
        self._changelogs.take_up(deployed)

    def _share(self) -> set[Place]:
        tenants = {feed.tenant for feed in self._changelogs.feeds.values()}
        members = {tenant: self._members.renew(tenant) for tenant in tenants}
        return {
            (topic, bucket)
            for topic, feed in self._changelogs.feeds.items()
            for bucket, owner in enumerate(owners(topic, feed.view.partitions, members[feed.tenant]))
            if owner == self._members.name
        }

    def _assign(self, mine: set[Place]) -> None:
        """Read these partitions; those that were read before go on where they are."""
        self._changelogs.assign(mine)
        fresh = mine - self._stored.keys()
        self._stored = {place: offset for place, offset in self._stored.items() if place in mine}
        for topic in sorted({topic for topic, _ in fresh}):
            feed = self._changelogs.feeds[topic]
            stored = self._online(feed).offsets(feed.view)
            self._go_on({(topic, bucket): at for bucket, at in stored.items() if (topic, bucket) in fresh})
        _LOG.info(
            "reading changelogs", partitions={topic: sorted(b for t, b in mine if t == topic) for topic, _ in mine}
        )

    def _go_on(self, places: Mapping[Place, int | None]) -> None:
        """Read on from where the store is; where it holds nothing, from where the last batch load leaves off."""
        begun = self._begin([place for place, stored in places.items() if stored is None])
        for place, stored in {**places, **begun}.items():
            self._stored[place] = stored
            self._changelogs.seek(place, stored or 0)

    def _begin(self, places: Collection[Place]) -> dict[Place, int | None]:
        """Note in the store where the partitions begin that need not be read from their first message on."""
        feeds = {topic: self._changelogs.feeds[topic] for topic, _ in places}
        instants = {topic: replay_from(self._control, feed) for topic, feed in feeds.items()}
        starts = self._changelogs.first_since({at: since for at in places if (since := instants[at[0]]) is not None})
        found: dict[Place, int | None] = {}
        for topic, feed in feeds.items():
            # Noted, or a partition without a later message would never come to the end that a certificate names.
            mine = {bucket: start for (name, bucket), start in starts.items() if name == topic and start}
            calls = [Call(feed.view, bucket, [], Fence(None, start)) for bucket, start in mine.items()]
            for (bucket, start), done in zip(mine.items(), self._online(feed).apply_all(calls), strict=True):
                found[topic, bucket] = done.stored if isinstance(done, FencedError) else start
        return found

    def _online(self, feed: Feed) -> OnlineWriter:
        if feed.tenant not in self._writers:
            self._writers[feed.tenant] = OnlineWriter(self._client, feed.tenant)
        return self._writers[feed.tenant]

    def _work(self, polled: Sequence[tuple[Feed, Range]], lost: set[Place]) -> list[Work]:
        """The calls of a poll, each behind the one before; without partitions that were lost after they were polled."""
        expected = dict(self._stored)
        found: list[Work] = []
        for feed, item in polled:
            place = feed.topic, item.bucket
            if place in lost:
                continue
            if (expected[place] or 0) != item.first:
                # Its retention was shorter than this writer was away; the next batch load covers what is gone.
                _LOG.warning(
                    "the changelog was cut", expected=expected[place], found=item.first, **where(feed, item.bucket)
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

    def _settle(self, sent: Sequence[Work], answer: Future[Answer] | None) -> set[Place]:
        """Wait for what was sent, and take note of it; the partitions whose fence did not hold are read again."""
        if answer is None:
            return set()
        lost: dict[Place, FencedError] = {}
        found = answer.result()
        for work, outcome in zip(sent, found.outcomes, strict=True):
            self._meters.calls.labels(*work.feed.labels).inc()
            if isinstance(outcome, FencedError):
                lost[work.place] = outcome
                self._meters.fenced.labels(*work.feed.labels).inc()
            else:
                self._written(work, outcome, found.at)
        for (topic, bucket), error in lost.items():
            _LOG.warning(
                "fenced off: reading again", stored=error.stored, **where(self._changelogs.feeds[topic], bucket)
            )
        for feed in {topic: self._changelogs.feeds[topic] for topic, _ in lost}.values():
            self._note(feed, self._online(feed).offsets(feed.view))
        self._go_on({place: error.stored for place, error in lost.items()})
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
        self._meters.lag(self._changelogs.lag(self._stored))
        self._meters.held(self._changelogs.held())
        tally = self._tally
        if tally.messages:
            seconds = round(time.monotonic() - tally.since, 2)
            _LOG.info("written", messages=tally.messages, written=tally.written, refused=tally.refused, seconds=seconds)
        self._tally = Tally()
