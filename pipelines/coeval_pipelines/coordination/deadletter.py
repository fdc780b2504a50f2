"""Replaying dead letters, exactly once: planned in the control plane, sent to the source topic, marked as sent.

A record that is sent names the place of the reject in a header. What was planned and not marked may have been sent
by a process that died: the topic is searched for the header, from where it ended when the replay was planned. It knows
Kafka and the control plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from coeval.settings import Settings
from coeval.spec.model import EventSource
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.deadletters import Place, Replay, ReplayBook
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.kafka import answering, client_options, producer_options
from coeval_pipelines.offline.event_log import topic_ends
from coeval_pipelines.offline.repairs import Repaired

HEADER = "coeval-replay-of"
"""The header of a replayed record: the source, and the reject's log, topic, partition and offset."""
_POLL_MILLISECONDS = 500


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a replay: sent now, found in the topic after a crash, or sent before (with the instant)."""

    sent: tuple[Place, ...] = ()
    recovered: tuple[Place, ...] = ()
    before: Mapping[Place, int] = field(default_factory=dict)
    refused: tuple[Repaired, ...] = ()

    def plus(self, other: Replayed) -> Replayed:
        """Both together."""
        return Replayed(
            self.sent + other.sent,
            self.recovered + other.recovered,
            {**self.before, **other.before},
            self.refused + other.refused,
        )


def replay(
    settings: Settings,
    control: ControlPlane,
    source: EventSource,
    repaired: Sequence[Repaired],
    now: Callable[[], int],
    progress: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Send repaired rejects to the source's topic, each once however often it is asked for. Invalid ones are not sent.

    Raises:
        BrokerError: the broker does not answer; run it again, and what was sent is found.
    """
    book = ReplayBook(control)
    valid = {item.reject.place: item for item in repaired if not item.problems}
    with only_one(settings, "deadletter"):
        known = book.of(source.name)
        before = {place: known[place].sent_at for place in valid if place in known}
        done = {place: at for place, at in before.items() if at is not None}
        recovered = _recover(settings, source, book, [known[p] for p, at in before.items() if at is None], now)
        left = [item for place, item in valid.items() if place not in done and place not in recovered]
        if left:
            _, ends = topic_ends(settings, source.topic)
            book.plan([Replay(source.name, item.reject.place, ends) for item in left], now())
        sent = tuple(_send(settings, source, book, left, now, progress))
    return Replayed(sent, tuple(sorted(recovered)), done, tuple(item for item in repaired if item.problems))


def _recover(
    settings: Settings, source: EventSource, book: ReplayBook, unsure: Sequence[Replay], now: Callable[[], int]
) -> set[Place]:
    """Mark what an interrupted replay had sent."""
    if not unsure:
        return set()
    names = {header(source, item.place): item.place for item in unsure}
    start = {part: min(item.ends.get(part, 0) for item in unsure) for part in {p for i in unsure for p in i.ends}}
    found = {names[text] for text in _headers(settings, source.topic, start) if text in names}
    book.sent(source.name, sorted(found), now())
    return found


def header(source: EventSource, place: Place) -> str:
    """What the header of a replayed record says."""
    return f"{source.name}/{place.log}/{place.topic}/{place.partition}/{place.offset}"


def unread(start: Mapping[int, int], first: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, int]:
    """By partition, where to begin to read what is there from `start` on; without what is at its end. Pure.

    What the topic has forgotten since cannot be read any more.
    """
    begin = {part: max(start.get(part, 0), first.get(part, 0)) for part in ends}
    return {part: offset for part, offset in begin.items() if offset < ends[part]}


def _headers(settings: Settings, topic: str, start: Mapping[int, int]) -> Iterator[str]:
    """What the replayed records of a topic say, from some offsets up to its end now."""
    from kafka import KafkaConsumer, TopicPartition

    first, ends = topic_ends(settings, topic)
    begin = unread(start, first, ends)
    with answering(settings.kafka):
        options = {**client_options(settings.kafka), "enable_auto_commit": False, "auto_offset_reset": "earliest"}
        with closing(KafkaConsumer(**options)) as consumer:
            parts = {TopicPartition(topic, part): ends[part] for part in begin}
            consumer.assign(list(parts))
            for part in parts:
                consumer.seek(part, begin[part.partition])
            while any(consumer.position(part) < end for part, end in parts.items()):
                for records in consumer.poll(timeout_ms=_POLL_MILLISECONDS).values():
                    for record in records:
                        yield from (value.decode() for name, value in record.headers if name == HEADER and value)


def _send(
    settings: Settings,
    source: EventSource,
    book: ReplayBook,
    items: Sequence[Repaired],
    now: Callable[[], int],
    progress: Callable[[int], None],
) -> Iterator[Place]:
    from kafka import KafkaProducer

    if not items:
        return
    with answering(settings.kafka), closing(KafkaProducer(**producer_options(settings.kafka))) as producer:
        for start in range(0, len(items), _AT_ONCE):
            some = items[start : start + _AT_ONCE]
            futures = [producer.send(source.topic, **_message(source, item)) for item in some]
            producer.flush()
            for future in futures:
                future.get(timeout=30)
            places = [item.reject.place for item in some]
            book.sent(source.name, places, now())
            progress(len(some))
            yield from places


_AT_ONCE = 500
"""Records that are sent and marked together."""


def _message(source: EventSource, item: Repaired) -> dict[str, Any]:
    record = item.reject.record
    # The client sends no header without a value; to whom reads it, one that is missing says the same.
    kept = [(name, value) for name, value in record.headers if name != HEADER and value is not None]
    return {
        "value": item.value,
        "key": record.key,
        "partition": record.partition if record.partition >= 0 else None,
        "headers": [*kept, (HEADER, header(source, item.reject.place).encode())],
    }
