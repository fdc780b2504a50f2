"""A topic that forgets what a rewind may need is refused before anything runs on it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coeval.errors import BrokerError, EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.records import Record
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.fill import Asked, fill
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.streaming.broker import Broker, ensure_topics
from coeval_pipelines.streaming.names import changelog_topic
from coeval_pipelines.streaming.retention import KEEP, retention_needed
from tests.support import catalog
from tests.support.offline import produce


def made(broker: Settings, topic: str, configs: dict[str, str]) -> Manifest:
    """A manifest whose source topic is there already."""
    with Broker(broker.kafka) as admin:
        admin.create(topic, 1, configs)
    return replace(catalog.manifest(), tenant=topic, event_sources=(replace(catalog.PAYMENTS, topic=topic),))


def test_a_rewind_needs_the_largest_tile_the_lateness_the_skew_and_some_slack() -> None:
    assert retention_needed(catalog.manifest(), catalog.PAYMENTS) == DAY + 10 * MINUTE + 5 * MINUTE + HOUR


def test_a_topic_that_forgets_too_soon_is_refused_with_what_to_set(broker: Settings) -> None:
    manifest = made(broker, "forgetful", {"retention.ms": str(25 * HOUR // 1000)})
    with pytest.raises(BrokerError, match="keeps records for 25h") as caught:
        ensure_topics(broker, manifest)
    assert f"retention.ms={(DAY + HOUR + 15 * MINUTE) // 1000}" in caught.value.instruction
    with Broker(broker.kafka) as admin:
        assert not [topic for topic in admin.topics() if topic.startswith("forgetful.")]


def test_a_compacted_topic_is_refused(broker: Settings) -> None:
    manifest = made(broker, "compacted", {"retention.ms": "-1", "cleanup.policy": "compact,delete"})
    with pytest.raises(BrokerError, match="it keeps the last"):
        ensure_topics(broker, manifest)


def test_a_topic_that_keeps_what_is_needed_is_taken_as_it_is(broker: Settings) -> None:
    days = made(broker, "days", {"retention.ms": str(2 * DAY // 1000)})
    assert "days" not in ensure_topics(broker, days)


def test_a_changelog_that_forgets_is_refused(broker: Settings) -> None:
    manifest = made(broker, "lossy", {"retention.ms": "-1"})
    topic = changelog_topic(manifest, manifest.views["card_spend"])
    with Broker(broker.kafka) as admin:
        admin.create(topic, manifest.views["card_spend"].partitions, {"retention.ms": "60000"})
    with pytest.raises(BrokerError, match=r"forgets records \(retention.ms=60000\)"):
        ensure_topics(broker, manifest)


def test_of_a_topic_that_was_cut_the_first_record_left_says_how_old_it_is(broker: Settings) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    at = [1_700_000_000_000_000 + place * HOUR for place in range(4)]
    with Broker(broker.kafka) as admin:
        admin.create("cut", 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
        produce(broker.kafka.bootstrap, "cut", [Record(b"x", when, 0, place) for place, when in enumerate(at)])
        client = KafkaAdminClient(bootstrap_servers=broker.kafka.bootstrap)
        client.delete_records({TopicPartition("cut", 0): 2})
        client.close()
        assert admin.timestamps("cut", {0: 0, 1: 0}) == {0: at[2]}
        assert admin.timestamps("cut", {0: 3}) == {0: at[3]}
        assert admin.forgotten_until("cut") == at[2]


def test_a_view_whose_changelog_lost_what_batch_does_not_write_is_not_filled(broker: Settings, tmp_path: Path) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    settings = broker.model_copy(update={"home": tmp_path})
    manifest = replace(catalog.manifest(), tenant="shortened")
    view = manifest.views["latest_payment"]
    topic, written = changelog_topic(manifest, view), now() - HOUR
    loaded: list[object] = []
    with closing(ControlPlane.open(settings)) as control, Broker(settings.kafka) as admin:
        control.deploy(view.name, view.version, manifest.hash, 0, now())
        admin.create(topic, view.partitions, {"message.timestamp.type": "CreateTime", **KEEP})
        produce(settings.kafka.bootstrap, topic, [Record(b"x", written, 0, place) for place in range(3)])
        client = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap)
        client.delete_records({TopicPartition(topic, 0): 2})
        client.close()
        with pytest.raises(EngineError, match="changelogs of latest_payment have lost records") as caught:
            fill(settings, manifest, control, [view], loaded.append, Asked(cut=now() - DAY))
    assert "coeval backfill run latest_payment --correct" in caught.value.instruction
    assert not loaded
