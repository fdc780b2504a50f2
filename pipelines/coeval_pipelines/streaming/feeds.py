"""What the online writer reads: the changelogs of deployed view versions, and what a poll of one comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coeval.online.layout import Update
from coeval.spec.model import EventSource, View
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.certificates import deployed_manifests
from coeval_pipelines.streaming.changelog import coalesce, encode, parse
from coeval_pipelines.streaming.names import changelog_topic, stream_sources, stream_views


@dataclass(frozen=True, slots=True)
class Feed:
    """The changelog of a deployed view version."""

    topic: str
    tenant: str
    view: View
    source: EventSource


def feeds(control: ControlPlane) -> dict[str, Feed]:
    """The changelogs to read, by topic: those of every deployed view version that a stream fills."""
    deployed = {(item.view, item.version) for item in control.deployments()}
    found: dict[str, Feed] = {}
    for manifest in deployed_manifests(control):
        for source in stream_sources(manifest):
            for view in stream_views(manifest, source.name):
                if (view.name, view.version) in deployed:
                    topic = changelog_topic(manifest, view)
                    found[topic] = Feed(topic, manifest.tenant, view, source)
    return found


def ranges(feed: Feed, records: Sequence[Any]) -> dict[int, tuple[int, int, list[Update]]]:
    """Per bucket: the first offset, the offset after the last, and the updates that the records come to. Pure."""
    updates: dict[int, list[Update]] = {}
    bounds: dict[int, tuple[int, int]] = {}
    for record in records:
        first, _ = bounds.get(record.partition, (record.offset, 0))
        bounds[record.partition] = (first, record.offset + 1)
    # Flink takes an old value back (an empty message) before it writes the new one; the new one is absolute.
    said = [record for record in records if record.value is not None]
    keys, values = [record.key for record in said], [record.value for record in said]
    for changes in parse(feed.view, feed.source, keys, values):
        kept = coalesce(changes)
        for position, update in zip(kept.index.tolist(), encode(feed.view, feed.source, kept), strict=True):
            updates.setdefault(said[position].partition, []).append(update)
    return {bucket: (first, after, updates.get(bucket, [])) for bucket, (first, after) in bounds.items()}
