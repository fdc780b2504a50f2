"""How far the online store is behind the source topics, and waiting until it is not. It knows Kafka and Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

import redis

from coeval.client import open_redis
from coeval.errors import BrokerError, EngineError, StoreError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.streaming.broker import Broker, Offsets, partitions_of
from coeval_pipelines.streaming.names import changelog_topic, stream_sources, stream_views

_POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One event source: where its topic ends, what the store covers for certain, and the changelog messages not yet
    written. Offsets are the next to read, by partition."""

    source: str
    ends: Mapping[int, int]
    covered: Mapping[int, int]
    changelog_lag: int

    def covers(self, offsets: Mapping[int, int]) -> bool:
        """Whether everything below these offsets is in the store."""
        return all(self.covered.get(partition, 0) >= offset for partition, offset in offsets.items())

    @property
    def lag(self) -> int:
        """Events of the topic that the store is not known to cover."""
        return sum(max(0, end - self.covered.get(partition, 0)) for partition, end in self.ends.items())


@dataclass(frozen=True, slots=True)
class Progress:
    """All sources that a stream reads, by name."""

    sources: Mapping[str, SourceProgress]

    @property
    def produced(self) -> int:
        """Records that the source topics have taken."""
        return sum(sum(source.ends.values()) for source in self.sources.values())

    @property
    def covered(self) -> int:
        """Records of the source topics that the store covers."""
        return sum(sum(source.covered.values()) for source in self.sources.values())

    @property
    def lag(self) -> int:
        """Events that the store is not known to cover."""
        return sum(source.lag for source in self.sources.values())


def progress(settings: Settings, manifest: Manifest, control: ControlPlane) -> Progress:
    """How far the store is, per source.

    Raises:
        BrokerError, StoreError, redis.RedisError: a component does not answer.
    """
    with Broker(settings.kafka) as broker, closing(open_redis(settings)) as client:
        return _progress(broker, OnlineWriter(client, manifest.tenant), manifest, control)


def await_caught_up(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    deadline: float,
    on_progress: Callable[[Progress], None] = lambda _: None,
    sources: Collection[str] | None = None,
) -> Progress:
    """Wait, at most `deadline` seconds, until all that is on the source topics now is in the online store.

    `sources` are the event sources that are waited for; by default all.

    Raises:
        EngineError: it is not there in time; the reason says how far it is.
    """
    until = time.monotonic() + deadline
    target: dict[str, Mapping[int, int]] | None = None
    while True:
        state = _attempt(settings, manifest, control)
        if isinstance(state, Progress):
            on_progress(state)
            target = target or {name: source.ends for name, source in state.sources.items()}
            waited = {name: item for name, item in state.sources.items() if sources is None or name in sources}
            if all(item.covers(target[name]) for name, item in waited.items()):
                return state
        if time.monotonic() > until:
            raise EngineError(
                f"The online store has not caught up after {deadline:.0f} s: {_describe(state)}.",
                "See coeval status, and the logs of the Flink job and of the writer in the stack's log directory.",
            )
        time.sleep(_POLL_SECONDS)


def _attempt(settings: Settings, manifest: Manifest, control: ControlPlane) -> Progress | Exception:
    """The progress, or what stands in the way of asking: a component that is away now may be back in time."""
    try:
        return progress(settings, manifest, control)
    except (BrokerError, StoreError, redis.RedisError) as error:
        return error


def covered_offsets(
    certificates: Iterable[Certificate], topics: Collection[str], written: Mapping[str, Mapping[int, int]]
) -> Offsets:
    """The source offsets that the store covers for all of the changelog topics. Pure.

    Of each topic, those of the newest certificate (given newest first) that speaks of it and whose ends the store has
    reached; together, the least of each partition. The topics of a source may be filled by several runs.
    """
    left = set(topics)
    found: list[Mapping[int, int]] = []
    for certificate in certificates:
        reached = {topic for topic in left if certificate.is_reached(topic, written.get(topic, {}))}
        if reached:
            found.append(certificate.offsets)
            left -= reached
        if not left:
            break
    partitions = set.intersection(*map(set, found)) if found and not left else set()
    return {partition: min(offsets[partition] for offsets in found) for partition in partitions}


def _progress(broker: Broker, writer: OnlineWriter, manifest: Manifest, control: ControlPlane) -> Progress:
    return Progress({item.name: _source(broker, writer, manifest, control, item) for item in stream_sources(manifest)})


def _source(
    broker: Broker, writer: OnlineWriter, manifest: Manifest, control: ControlPlane, source: EventSource
) -> SourceProgress:
    written: dict[str, Offsets] = {}
    for view in stream_views(manifest, source.name):
        stored = writer.offsets(view)
        written[changelog_topic(manifest, view)] = {bucket: offset or 0 for bucket, offset in stored.items()}
    found = partitions_of(broker, [source.topic, *written])
    ends = broker.ends(found)
    return source_progress(control.every_certificate(source.name), source, ends, written)


def source_progress(
    certificates: Iterable[Certificate],
    source: EventSource,
    ends: Mapping[str, Mapping[int, int]],
    written: Mapping[str, Mapping[int, int]],
) -> SourceProgress:
    """How far the store is: `ends` of the source's topic and of its changelogs, and what is `written` of those. Pure.

    Certificates are given newest first.
    """
    lag = sum(
        max(0, end - offsets.get(partition, 0))
        for topic, offsets in written.items()
        for partition, end in ends.get(topic, {}).items()
    )
    covered = covered_offsets(certificates, set(written), written)
    return SourceProgress(source.name, ends.get(source.topic, {}), covered, lag)


def _describe(state: Progress | Exception) -> str:
    if isinstance(state, Exception):
        return str(state)
    return "; ".join(
        f"{name} at {dict(source.covered)} of {dict(source.ends)}, {source.changelog_lag} changelog messages to write"
        for name, source in state.sources.items()
    )
