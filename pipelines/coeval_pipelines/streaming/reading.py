"""The changelogs as the online writer reads them: a consumer without a group, what a poll comes to. It knows Kafka.

A message that cannot be read holds up its own partition: what stands before it is written, the offset stays in front of
it, and whoever reads the partition says so. All others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import structlog

from coeval.online.keys import offset_key
from coeval.settings import Settings
from coeval_pipelines.kafka import client_options
from coeval_pipelines.streaming.feeds import Feed, Range, ranges, readable
from coeval_pipelines.streaming.meters import Meters

POLL_RECORDS = 10_000
_POLL_MILLISECONDS = 100
_ANSWER_MILLISECONDS = 5_000
_LOG: Any = structlog.get_logger("coeval.writer")
Place = tuple[str, int]
"""A changelog partition: topic and number."""


def open_consumer(settings: Settings) -> Any:
    """A consumer without a group. It holds at most a fetch of each of its partitions beyond what was polled."""
    from kafka import KafkaConsumer

    return KafkaConsumer(
        **client_options(settings.kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        fetch_max_bytes=16 << 20,
        max_partition_fetch_bytes=1 << 20,
        max_poll_records=POLL_RECORDS,
        check_crcs=False,
        metadata_max_age_ms=10_000,
    )


def where(feed: Feed, bucket: int) -> dict[str, Any]:
    """What logs call a changelog partition."""
    return {
        "tenant": feed.tenant,
        "view": f"{feed.view.name}.{feed.view.version}",
        "topic": feed.topic,
        "partition": bucket,
    }


class Changelogs:
    """The changelog partitions that one writer reads; not thread-safe."""

    def __init__(self, consumer: Any, meters: Meters) -> None:
        self._consumer = consumer
        self._meters = meters
        self._held: dict[Place, int] = {}
        """The offset of the message that cannot be read, by partition."""
        self.feeds: dict[str, Feed] = {}
        """What is read, by topic."""

    def take_up(self, feeds: Mapping[str, Feed]) -> None:
        """Read these changelogs from now on, as far as their topics are there."""
        if feeds.keys() != self.feeds.keys():
            present = self._consumer.topics()
            self.feeds = {topic: feed for topic, feed in feeds.items() if topic in present}

    def assign(self, places: Collection[Place]) -> None:
        """Read these partitions: those that were read before go on where they are, the others want a `seek`."""
        from kafka import TopicPartition

        self._consumer.assign([TopicPartition(*place) for place in sorted(places)])
        self._held = {place: offset for place, offset in self._held.items() if place in places}

    def seek(self, place: Place, offset: int) -> None:
        """Read a partition from an offset on, also where it was held."""
        from kafka import TopicPartition

        self._consumer.seek(TopicPartition(*place), offset)
        if self._held.pop(place, None) is not None:
            self._consumer.resume(TopicPartition(*place))
        self._meters.reread.labels(*self.feeds[place[0]].labels).inc()

    def first_since(self, instants: Mapping[Place, int]) -> dict[Place, int]:
        """By partition, the offset of its first message of an instant (microseconds UTC) or later; its end if none is.

        Where the partition begins behind that, it says so: what stood before may have been needed.
        """
        from kafka import TopicPartition

        wanted = {TopicPartition(*place): max(0, instant // 1000) for place, instant in instants.items()}
        if not wanted:
            return {}
        # The ends first: what comes in between is not passed over.
        ends = self._consumer.end_offsets(list(wanted), timeout_ms=_ANSWER_MILLISECONDS)
        begins = self._consumer.beginning_offsets(list(wanted), timeout_ms=_ANSWER_MILLISECONDS)
        found = self._consumer.offsets_for_times(wanted, timeout_ms=_ANSWER_MILLISECONDS)
        starts = {at: ends[at] if found.get(at) is None else found[at].offset for at in wanted}
        for at, start in starts.items():
            if 0 < begins[at] >= start:
                _LOG.warning("the changelog was cut", found=start, **where(self.feeds[at.topic], at.partition))
        return {(at.topic, at.partition): start for at, start in starts.items()}

    def poll(self) -> list[tuple[Feed, Range]]:
        """What one poll comes to; the messages of a topic are parsed in one go."""
        by_topic: dict[str, dict[int, Sequence[Any]]] = {}
        polled = self._consumer.poll(timeout_ms=_POLL_MILLISECONDS, max_records=POLL_RECORDS)
        for place, records in polled.items():
            by_topic.setdefault(place.topic, {})[place.partition] = records
            self._meters.messages.labels(*self.feeds[place.topic].labels).inc(len(records))
        if polled:
            self._meters.poll_messages.observe(sum(len(records) for records in polled.values()))
        return [
            (self.feeds[topic], item)
            for topic, mine in by_topic.items()
            for item in self._ranges(self.feeds[topic], mine)
        ]

    def _ranges(self, feed: Feed, polled: Mapping[int, Sequence[Any]]) -> list[Range]:
        try:
            return ranges(feed, polled)
        except Exception:  # noqa: BLE001 - whatever a message does to its parser
            # It must not end the writer, and with it all of them in turn.
            sound: dict[int, Sequence[Any]] = {}
            for bucket, records in polled.items():
                count, error = readable(feed, records)
                if error is not None:
                    self._hold(feed, bucket, records[count].offset, error)
                if count:
                    sound[bucket] = records[:count]
            return ranges(feed, sound)

    def _hold(self, feed: Feed, bucket: int, offset: int, error: Exception) -> None:
        from kafka import TopicPartition

        self._held[feed.topic, bucket] = offset
        self._consumer.pause(TopicPartition(feed.topic, bucket))
        _LOG.error(
            "a message cannot be read: its partition is held",
            offset=offset,
            # Its text may hold a value of somebody.
            error=type(error).__name__,
            repair="start writers that can read it; or leave it out: "
            f"SET {offset_key(feed.tenant, feed.view, bucket)} {offset + 1} in Redis, "
            f"then coeval stream rewind {feed.source.name}",
            **where(feed, bucket),
        )

    def held(self) -> dict[tuple[str, str, str], int]:
        """By tenant and view, the number of partitions that are held; 0 of the others that are read."""
        found = Counter({feed.labels: 0 for feed in self.feeds.values()})
        found.update(self.feeds[topic].labels for topic, _ in self._held)
        return dict(found)

    def lag(self, stored: Mapping[Place, int | None]) -> dict[tuple[str, str, str, str], int]:
        """The messages that the store does not cover yet; asking the broker also tells whether it is there."""
        from kafka import TopicPartition

        places = [TopicPartition(*place) for place in stored]
        ends = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MILLISECONDS) if places else {}
        return {
            (*self.feeds[at.topic].labels, str(at.partition)): end - (stored[at.topic, at.partition] or 0)
            for at, end in ends.items()
        }
