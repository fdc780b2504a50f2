"""The records of a topic between offsets, as they stand there. It knows Kafka, and no table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from coeval.settings import Settings
from coeval.spec.records import Record
from coeval_pipelines.kafka import answering, client_options

_POLL_MILLISECONDS = 1_000


def topic_records(settings: Settings, topic: str, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Record]:
    """The records of a topic between offsets (next to read), in the order of each partition.

    Raises:
        BrokerError: the broker does not answer.
    """
    from kafka import KafkaConsumer, TopicPartition

    left = {part for part, last in end.items() if last > start.get(part, 0)}
    if not left:
        return
    options = {**client_options(settings.kafka), "enable_auto_commit": False, "bootstrap_timeout_ms": 10_000}
    with answering(settings.kafka), closing(KafkaConsumer(**options)) as consumer:
        partitions = {part: TopicPartition(topic, part) for part in sorted(left)}
        consumer.assign([*partitions.values()])
        for part, place in partitions.items():
            consumer.seek(place, start.get(part, 0))
        while left:
            for batch in consumer.poll(_POLL_MILLISECONDS).values():
                for item in batch:
                    if item.offset < end[item.partition]:
                        headers = [(name, value) for name, value in item.headers or ()]
                        at = item.timestamp * 1000
                        yield Record(item.value, at, item.partition, item.offset, item.key, headers)
            # Offsets may have gaps, so it is the place of reading that tells.
            left = {part for part in left if consumer.position(partitions[part]) < end[part]}
