"""What a manifest's stream is called outside: views and sources that take part, topics, consumer groups, jobs. Pure."""

from __future__ import annotations

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView


def job_name(manifest: Manifest, source: str) -> str:
    """The name of the Flink job of a source."""
    return f"coeval-{manifest.tenant}-{source}"


def changelog_topic(manifest: Manifest, view: View) -> str:
    """The topic that carries the updates of a view version."""
    return f"{manifest.tenant}.changelog.{view.name}.{view.version}"


def stream_views(manifest: Manifest, source: str) -> tuple[View, ...]:
    """The views that the stream fills from a source, by name."""
    views = [view for view in manifest.views.values() if view.source == source]
    return tuple(sorted((v for v in views if isinstance(v, WindowedView) or v.stream), key=lambda view: view.name))


def stream_sources(manifest: Manifest) -> tuple[EventSource, ...]:
    """The event sources that a job is needed for."""
    return tuple(source for source in manifest.event_sources if stream_views(manifest, source.name))


def group_prefix(manifest: Manifest, source: str) -> str:
    """What the consumer groups of all jobs of a source begin with."""
    return f"coeval-{manifest.tenant}-{source}/"


def group_id(manifest: Manifest, source: str) -> str:
    """The consumer group of a source's job: it names the view versions that are filled.

    So offsets that were committed for another set of views can never be taken for progress of these.
    """
    views = "+".join(f"{view.name}.{view.version}" for view in stream_views(manifest, source))
    return group_prefix(manifest, source) + views


def group_topics(manifest: Manifest, source: str, group: str) -> list[str]:
    """The changelog topics that the job of a consumer group fills."""
    views = group.removeprefix(group_prefix(manifest, source)).split("+")
    return [f"{manifest.tenant}.changelog.{view}" for view in views]
