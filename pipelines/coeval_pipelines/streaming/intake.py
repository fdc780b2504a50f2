"""What the feature server produces: events to the topics of their sources, served values to the serving log.

Both engines are opened by the server through entry points. They know Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from coeval.errors import BrokerError
from coeval.settings import Settings
from coeval_pipelines.kafka import answering, producer_options
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.names import served_topic

_BLOCK_MILLISECONDS = 5_000
_DELIVERY_MILLISECONDS = 30_000
_SERVED = {"retention.ms": str(7 * 24 * 3600 * 1000)}


class Intake:
    """Produces records, and says where they stand. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = _producer(settings)

    def send(self, topic: str, records: Sequence[tuple[bytes, bytes]], seconds: float) -> list[tuple[int, int]]:
        """Produce (key, value) pairs; the partition and offset of each, once all in-sync replicas have them.

        Raises:
            BrokerError: not all are there within the time; those that are stay, and may be sent again.
        """
        until = time.monotonic() + seconds
        with answering(self._settings.kafka):
            futures = [self._producer.send(topic, key=key, value=value) for key, value in records]
            found = [future.get(timeout=max(0.001, until - time.monotonic())) for future in futures]
        return [(item.partition, item.offset) for item in found]

    def close(self) -> None:
        """Close the connection; what was sent is delivered first."""
        self._producer.close()


class ServedLog:
    """Keeps served values in a topic of each tenant, for a week."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = _producer(settings)
        self._topics: set[str] = set()

    def write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Keep rows of (tenant, entity key, JSON).

        Raises:
            BrokerError: the broker does not have them all in time.
        """
        for tenant in {tenant for tenant, _, _ in rows}:
            self._ensure(served_topic(tenant))
        with answering(self._settings.kafka):
            futures = [self._producer.send(served_topic(tenant), key=key, value=row) for tenant, key, row in rows]
            for future in futures:
                future.get(timeout=_DELIVERY_MILLISECONDS / 1e3)

    def close(self) -> None:
        """Close the connection; what was sent is delivered first."""
        self._producer.close()

    def _ensure(self, topic: str) -> None:
        if topic in self._topics:
            return
        with Broker(self._settings.kafka) as broker:
            if topic not in broker.topics([topic]):
                broker.create(topic, self._settings.kafka.partitions, _SERVED)
        self._topics.add(topic)


def _producer(settings: Settings) -> Any:
    from kafka import KafkaProducer

    options = {
        **producer_options(settings.kafka),
        "max_block_ms": _BLOCK_MILLISECONDS,
        "delivery_timeout_ms": _DELIVERY_MILLISECONDS,
    }
    with answering(settings.kafka):
        try:
            return KafkaProducer(**options)
        except ValueError as error:
            raise BrokerError(f"The broker cannot be produced to: {error}.", "See coeval status.") from error
