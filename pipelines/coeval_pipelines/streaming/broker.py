"""What this room asks of the broker: topics, end offsets, offsets that Flink committed. It knows Kafka."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from coeval.errors import BrokerError
from coeval.settings import KafkaSettings, Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.kafka import answering, client_options
from coeval_pipelines.streaming.names import accounting_topic, changelog_topic, stream_sources, stream_views
from coeval_pipelines.streaming.retention import CONFIGS, KEEP, check_changelog, check_retention

_REQUEST_MILLISECONDS = 10_000
_POLL_MILLISECONDS = 500
_AT_ONCE = 500
_TOTALS = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
"""Compacted soon, since whoever asks how the streams are reads all of it."""

_LATEST, _EARLIEST = -1, -2
"""What Kafka calls the ends of a log where it is asked for offsets by time."""
Offsets = dict[int, int]
"""Next offsets to read, by partition."""


class Broker:
    """An administration connection. Not thread-safe."""

    def __init__(self, kafka: KafkaSettings) -> None:
        from kafka import KafkaAdminClient

        self._kafka = kafka
        self._consumer: Any = None
        with answering(kafka):
            self._admin: Any = KafkaAdminClient(
                **client_options(kafka),
                request_timeout_ms=_REQUEST_MILLISECONDS,
                bootstrap_timeout_ms=_REQUEST_MILLISECONDS,
            )

    def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            self._consumer.close()
        self._admin.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def topics(self, named: Collection[str] | None = None) -> dict[str, int]:
        """The number of partitions by topic name; of all topics, or of those of the named ones that exist."""
        with answering(self._kafka):
            found = self._admin.describe_topics(None if named is None else sorted(named))
        # Of a topic that does not exist, the broker describes no partition.
        return {item["name"]: len(item["partitions"]) for item in found if item["partitions"]}

    def configs(self, topic: str, names: Collection[str]) -> dict[str, str]:
        """Configuration values of a topic, defaults included."""
        from kafka.admin import ConfigResource, ConfigResourceType

        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(names))
        with answering(self._kafka):
            (found,) = self._admin.describe_configs([wanted], config_filter="all").values()
        return {name: str(found[topic][name]["value"]) for name in names}

    def create(self, topic: str, partitions: int, configs: Mapping[str, str]) -> None:
        """Create a topic; one that is there already is left as it is."""
        from kafka.errors import TopicAlreadyExistsError

        wanted = {topic: {"num_partitions": partitions, "replication_factor": -1, "configs": dict(configs)}}
        with answering(self._kafka):
            try:
                self._admin.create_topics(wanted, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                return

    def ends(self, topics: Mapping[str, int]) -> dict[str, Offsets]:
        """The end offsets of topics, given with their number of partitions."""
        return self._offsets(topics, _LATEST)

    def begins(self, topics: Mapping[str, int]) -> dict[str, Offsets]:
        """The offsets of the earliest records that topics still hold, given with their number of partitions."""
        return self._offsets(topics, _EARLIEST)

    def forgotten_until(self, topic: str) -> int | None:
        """When the earliest record became available that is left of a partition which has forgotten others.

        Microseconds UTC, the latest of all partitions; None: nothing has been forgotten.
        """
        found = self.begins(partitions_of(self, [topic])).get(topic, {})
        cut = {partition: offset for partition, offset in found.items() if offset > 0}
        return max(self.timestamps(topic, cut).values(), default=None) if cut else None

    def _offsets(self, topics: Mapping[str, int], which: int) -> dict[str, Offsets]:
        from kafka import TopicPartition

        wanted = {TopicPartition(topic, part): which for topic, count in topics.items() for part in range(count)}
        if not wanted:
            return {}
        with answering(self._kafka):
            found = self._admin.list_partition_offsets(wanted)
        offsets: dict[str, Offsets] = {topic: {} for topic in topics}
        for partition, value in found.items():
            offsets[partition.topic][partition.partition] = value.offset
        return offsets

    def offsets_at(self, topic: str, instant: int) -> Offsets:
        """By partition, the first offset of a record of an instant (microseconds UTC) or later; the end if none is."""
        from kafka import TopicPartition

        ends = self.ends(partitions_of(self, [topic])).get(topic, {})
        # Rounded up: a record of the millisecond before may be earlier than the instant.
        wanted = {TopicPartition(topic, partition): max(0, -(-instant // 1000)) for partition in ends}
        with answering(self._kafka):
            found = self._admin.list_partition_offsets(wanted) if wanted else {}
        at = {partition.partition: value.offset for partition, value in found.items() if value.offset >= 0}
        return {partition: at.get(partition, end) for partition, end in ends.items()}

    def timestamps(self, topic: str, offsets: Mapping[int, int]) -> Offsets:
        """By partition, when the record at an offset became available (microseconds UTC).

        Where the topic has forgotten that, when the first one did that it still holds; partitions without any are left
        out.
        """
        if not offsets:
            return {}
        with answering(self._kafka):
            return first_times(self._reading(), topic, offsets)

    def _reading(self) -> Any:
        from kafka import KafkaConsumer

        if self._consumer is None:
            options = {**client_options(self._kafka), "enable_auto_commit": False, "auto_offset_reset": "earliest"}
            self._consumer = KafkaConsumer(**options)
        return self._consumer

    def committed(self, group: str, topic: str) -> Offsets:
        """The offsets of a topic that a consumer group has committed; partitions without one are left out."""
        with answering(self._kafka):
            found = self._admin.list_group_offsets([group])[group]
        return {tp.partition: meta.offset for tp, meta in found.items() if tp.topic == topic and meta.offset >= 0}


def first_times(consumer: Any, topic: str, offsets: Mapping[int, int]) -> Offsets:
    """By partition, when the first record from an offset on became available (microseconds UTC), of those that have
    one. The consumer's assignment is changed."""
    from kafka import TopicPartition

    wanted = {TopicPartition(topic, partition): offset for partition, offset in offsets.items()}
    first = consumer.beginning_offsets(list(wanted), timeout_ms=_REQUEST_MILLISECONDS)
    ends = consumer.end_offsets(list(wanted), timeout_ms=_REQUEST_MILLISECONDS)
    # What holds nothing from there on would be waited for in vain.
    begin = {part: max(offset, first[part]) for part, offset in wanted.items() if max(offset, first[part]) < ends[part]}
    found: Offsets = {}
    consumer.assign(sorted(begin))
    consumer.resume(*begin)
    for part, offset in begin.items():
        consumer.seek(part, offset)
    until = time.monotonic() + _REQUEST_MILLISECONDS / 1000
    while len(found) < len(begin) and time.monotonic() < until:
        for part, records in consumer.poll(timeout_ms=_POLL_MILLISECONDS, max_records=_AT_ONCE).items():
            found.setdefault(part.partition, records[0].timestamp * 1000)
            consumer.pause(part)
    return found


def ensure_topics(settings: Settings, manifest: Manifest) -> tuple[str, ...]:
    """Create the source and changelog topics of a manifest that are missing; gives the names of the created ones.

    Raises:
        BrokerError: the broker does not answer, a source topic forgets records that a rewind may need, a changelog
            forgets any, or has another number of partitions than its view.
    """
    created: list[str] = []
    with Broker(settings.kafka) as broker:
        present = broker.topics()
        for source in stream_sources(manifest):
            if source.topic in present:
                check_retention(settings.kafka, manifest, source, broker.configs(source.topic, CONFIGS))
        for name, partitions, configs in _wanted(settings, manifest):
            if name not in present:
                broker.create(name, partitions, configs)
                created.append(name)
            elif name.startswith(f"{manifest.tenant}.changelog."):
                _check_partitions(name, present[name], partitions)
                check_changelog(settings.kafka, name, broker.configs(name, CONFIGS))
    return tuple(created)


def _check_partitions(topic: str, there: int, wanted: int) -> None:
    if there != wanted:
        raise BrokerError(
            f"The topic {topic} has {there} partitions; the view has {wanted} buckets.",
            "A changelog's partitions are its view's buckets: delete the topic, or declare the view anew.",
        )


def _wanted(settings: Settings, manifest: Manifest) -> Iterator[tuple[str, int, dict[str, str]]]:
    for source in manifest.event_sources:
        # The record's timestamp is when it was available: a replay sets it.
        yield source.topic, settings.kafka.partitions, {**KEEP, "message.timestamp.type": "CreateTime"}
    for source in stream_sources(manifest):
        for view in stream_views(manifest, source.name):
            yield changelog_topic(manifest, view), view.partitions, dict(KEEP)
        # Totals: only the newest of each counts.
        yield accounting_topic(manifest, source.name), 1, _TOTALS


def partitions_of(broker: Broker, topics: Collection[str]) -> dict[str, int]:
    """The number of partitions of those of the topics that exist."""
    return broker.topics(topics)
