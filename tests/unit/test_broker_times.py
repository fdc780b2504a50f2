"""Claims about when records became available: one consumer for all partitions, also where the topic has forgotten."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from kafka import TopicPartition

from coeval.errors import BrokerError
from coeval.settings import KafkaSettings
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_pipelines.streaming.broker import first_times
from coeval_pipelines.streaming.retention import KEEP, check_changelog, check_retention
from tests.support import catalog
from tests.support.memory_log import MemoryConsumer, MemoryLog

KAFKA = KafkaSettings(bootstrap="kafka:9092")


def _log(records: int, first: Mapping[int, int]) -> MemoryLog:
    log = MemoryLog({"payments": 3})
    for partition in range(3):
        for place in range(records):
            log.add("payments", partition, b"k", b"v", timestamp=100 * partition + place)
    log.first.update({TopicPartition("payments", partition): offset for partition, offset in first.items()})
    return log


def test_a_record_that_was_forgotten_is_as_old_as_the_first_one_left() -> None:
    consumer = MemoryConsumer(_log(5, {1: 3, 2: 5}))
    assert first_times(consumer, "payments", {0: 2, 1: 0, 2: 0}) == {0: 2_000, 1: 103_000}
    assert first_times(consumer, "payments", {0: 4, 1: 4}) == {0: 4_000, 1: 104_000}
    assert first_times(consumer, "payments", {0: 5}) == {}


def test_a_topic_that_forgets_by_size_is_refused_with_the_whole_command() -> None:
    sized = {**KEEP, "retention.ms": str(30 * DAY // 1000), "retention.bytes": "1000000"}
    with pytest.raises(BrokerError, match="keeps 1,000,000 bytes") as caught:
        check_retention(KAFKA, catalog.manifest(), catalog.PAYMENTS, sized)
    assert "kafka-configs.sh --bootstrap-server kafka:9092 --alter" in caught.value.instruction
    enough = str((DAY + HOUR + 15 * MINUTE) // 1000)
    check_retention(KAFKA, catalog.manifest(), catalog.PAYMENTS, {**KEEP, "retention.ms": enough})


@pytest.mark.parametrize("change", [{"retention.ms": "604800000"}, {"cleanup.policy": "compact"}])
def test_a_changelog_that_forgets_is_refused(change: Mapping[str, str]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(BrokerError, match=rf"forgets records \({name}={value}\)") as caught:
        check_changelog(KAFKA, "bank.changelog.v", {**KEEP, **change})
    assert f"--entity-name bank.changelog.v --add-config {name}={KEEP[name]}" in caught.value.instruction
    check_changelog(KAFKA, "bank.changelog.v", KEEP)
