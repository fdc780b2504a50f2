"""How long a source topic must keep its records, so that a rewind finds all of every tile that is still open. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from coeval.errors import BrokerError
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.time import duration
from coeval_pipelines.streaming.names import stream_views
from coeval_pipelines.streaming.sql import state_ttl

CONFIGS = ("retention.ms", "cleanup.policy")
"""The configuration of a topic that decides what it keeps."""


def retention_needed(manifest: Manifest, source: EventSource) -> int:
    """Microseconds: the largest hop, the lateness and the skew allowed, and the slack that a job may be behind.

    A rewind begins at the start of the earliest tile that is open. No event of it became available before that, and
    retention counts from when a record became available.
    """
    return state_ttl(source, stream_views(manifest, source.name))


def check_retention(manifest: Manifest, source: EventSource, configs: Mapping[str, str]) -> None:
    """Refuse a topic that forgets records which a rewind may need; `configs` is the topic's, with Kafka's names.

    Raises:
        BrokerError: it keeps records for a shorter time, or only the last of each key.
    """
    alter = f"kafka-configs.sh --alter --entity-type topics --entity-name {source.topic} --add-config"
    if "compact" in configs["cleanup.policy"]:
        raise BrokerError(
            f"The topic {source.topic} is compacted: of the events of a key it keeps the last.",
            f"Let it keep all: {alter} cleanup.policy=delete",
        )
    kept, needed = int(configs["retention.ms"]), retention_needed(manifest, source)
    if 0 <= kept < needed // 1000:
        raise BrokerError(
            f"The topic {source.topic} keeps records for {duration(kept * 1000)}; after a failure the stream may need "
            f"those of the last {duration(needed)} (largest hop, lateness, skew, slack).",
            f"Keep them longer: {alter} retention.ms={-(-needed // 1000)}; or declare shorter hops or less lateness.",
        )
