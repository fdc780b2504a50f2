"""Replaying dead letters, exactly once: planned in the control plane, sent to the source topic, marked as sent.

A record that is sent names the position of the reject in a header. What was planned and not marked may have been sent
by a process that died: the topic is searched for the header, from where it ended when the replay was planned. It knows
Kafka and the control plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from coeval.settings import Settings
from coeval.spec.model import EventSource
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.deadletters import Replay, ReplayBook
from coeval_pipelines.coordination.deploy import only_one
from coeval_pipelines.kafka import answering, client_options
from coeval_pipelines.offline.deadletters import Position, Repaired
from coeval_pipelines.offline.event_log import topic_ends

HEADER = "coeval-replay-of"
"""The header of a replayed record: the source, partition and offset of the reject."""
_POLL_MILLISECONDS = 500


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a replay: sent now, found in the topic after a crash, or sent before (with the instant)."""

    sent: tuple[Position, ...]
    recovered: tuple[Position, ...]
    before: Mapping[Position, int]
    refused: tuple[Repaired, ...]


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
    valid = {item.reject.position: item for item in repaired if not item.problems}
    with only_one(settings, "deadletter"):
        known = book.of(source.name)
        before = {position: known[position].sent_at for position in valid if position in known}
        done = {position: at for position, at in before.items() if at is not None}
        recovered = _recover(settings, source, book, [known[p] for p, at in before.items() if at is None], now)
        left = [item for position, item in valid.items() if position not in done and position not in recovered]
        _, ends = topic_ends(settings, source.topic)
        book.plan([Replay(source.name, *item.reject.position, ends) for item in left], now())
        sent = tuple(_send(settings, source, book, left, now, progress))
    return Replayed(sent, tuple(sorted(recovered)), done, tuple(item for item in repaired if item.problems))


def _recover(
    settings: Settings, source: EventSource, book: ReplayBook, unsure: Sequence[Replay], now: Callable[[], int]
) -> set[Position]:
    """Mark what an interrupted replay had sent."""
    if not unsure:
        return set()
    names = {header(source, item.position): item.position for item in unsure}
    start = {part: min(item.ends.get(part, 0) for item in unsure) for part in {p for i in unsure for p in i.ends}}
    found = {names[text] for text in _headers(settings, source.topic, start) if text in names}
    book.sent(source.name, sorted(found), now())
    return found


def header(source: EventSource, position: Position) -> str:
    """What the header of a replayed record says."""
    return f"{source.name}/{position[0]}/{position[1]}"


def _headers(settings: Settings, topic: str, start: Mapping[int, int]) -> Iterator[str]:
    """What the replayed records of a topic say, from some offsets up to its end now."""
    from kafka import KafkaConsumer, TopicPartition

    _, ends = topic_ends(settings, topic)
    with answering(settings.kafka):
        options = {**client_options(settings.kafka), "enable_auto_commit": False}
        with closing(KafkaConsumer(**options)) as consumer:
            parts = {TopicPartition(topic, part): end for part, end in ends.items() if end > start.get(part, 0)}
            consumer.assign(list(parts))
            for part in parts:
                consumer.seek(part, start.get(part.partition, 0))
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
) -> Iterator[Position]:
    from kafka import KafkaProducer

    if not items:
        return
    with answering(settings.kafka):
        # Idempotent: the client's own retries do not double a record.
        options = {**client_options(settings.kafka), "acks": "all", "enable_idempotence": True}
        with closing(KafkaProducer(**options)) as producer:
            for start in range(0, len(items), _AT_ONCE):
                some = items[start : start + _AT_ONCE]
                futures = [producer.send(source.topic, **_message(source, item)) for item in some]
                producer.flush()
                for future in futures:
                    future.get(timeout=30)
                positions = [item.reject.position for item in some]
                book.sent(source.name, positions, now())
                progress(len(some))
                yield from positions


_AT_ONCE = 500
"""Records that are sent and marked together."""


def _message(source: EventSource, item: Repaired) -> dict[str, Any]:
    record = item.reject.record
    kept = [(name, value) for name, value in record.headers if name != HEADER]
    return {
        "value": item.value,
        "key": record.key,
        "partition": record.partition if record.partition >= 0 else None,
        "headers": [*kept, (HEADER, header(source, item.reject.position).encode())],
    }
