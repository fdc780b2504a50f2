"""How long a source topic must keep its records, so that a rewind finds all of every tile that is still open. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from coeval.errors import BrokerError
from coeval.settings import KafkaSettings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.time import duration
from coeval_pipelines.streaming.names import stream_views
from coeval_pipelines.streaming.sql import state_ttl

KEEP = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
"""Deletion, never compaction: compaction keeps the last record of a key, which after a replay is not the greatest."""
CONFIGS = tuple(KEEP)
"""The configuration of a topic that decides what it keeps."""


def retention_needed(manifest: Manifest, source: EventSource) -> int:
    """Microseconds: the largest hop, the lateness and the skew allowed, and the slack that a job may be behind.

    A rewind begins at the start of the earliest tile that is open. No event of it became available before that, and
    retention counts from when a record became available.
    """
    return state_ttl(source, stream_views(manifest, source.name))


def check_retention(kafka: KafkaSettings, manifest: Manifest, source: EventSource, configs: Mapping[str, str]) -> None:
    """Refuse a topic that forgets records which a rewind may need; `configs` is the topic's, with Kafka's names.

    Raises:
        BrokerError: it keeps records for a shorter time, up to a size, or only the last of each key.
    """
    if "compact" in configs["cleanup.policy"]:
        raise BrokerError(
            f"The topic {source.topic} is compacted: of the events of a key it keeps the last.",
            f"Let it keep all: {_alter(kafka, source.topic, 'cleanup.policy=delete')}",
        )
    kept, needed = int(configs["retention.ms"]), retention_needed(manifest, source)
    if 0 <= kept < needed // 1000:
        enough = _alter(kafka, source.topic, f"retention.ms={-(-needed // 1000)}")
        raise BrokerError(
            f"The topic {source.topic} keeps records for {duration(kept * 1000)}; after a failure the stream may need "
            f"those of the last {duration(needed)} (largest hop, lateness, skew, slack).",
            f"Keep them longer: {enough}; or declare shorter hops or less lateness.",
        )
    if int(configs["retention.bytes"]) >= 0:
        raise BrokerError(
            f"The topic {source.topic} keeps {int(configs['retention.bytes']):,} bytes of each partition, however "
            f"short a time that is; after a failure the stream may need the records of the last {duration(needed)}.",
            f"Let time alone decide: {_alter(kafka, source.topic, 'retention.bytes=-1')}",
        )


def check_changelog(kafka: KafkaSettings, topic: str, configs: Mapping[str, str]) -> None:
    """Refuse a changelog that forgets: a store that is filled again needs every record since the last batch cut.

    Raises:
        BrokerError: it is compacted, or deletes records by their age or its size.
    """
    differing = {name: configs[name] for name, wanted in KEEP.items() if configs[name] != wanted}
    if differing:
        said = ", ".join(f"{name}={value}" for name, value in differing.items())
        right = ",".join(f"{name}={KEEP[name]}" for name in differing)
        raise BrokerError(
            f"The changelog {topic} forgets records ({said}): a store that is filled again would lack them.",
            f"Let it keep all: {_alter(kafka, topic, right)}; how to trim it: docs/operations.md.",
        )


def _alter(kafka: KafkaSettings, topic: str, configs: str) -> str:
    where = f"kafka-configs.sh --bootstrap-server {kafka.bootstrap}"
    return f"{where} --alter --entity-type topics --entity-name {topic} --add-config {configs}"
