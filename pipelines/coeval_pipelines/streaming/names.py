"""What a manifest's stream is called outside: views and sources that take part, topics, consumer groups, jobs. Pure."""

from __future__ import annotations

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView
from coeval_pipelines.control.model import Run


def job_name(manifest: Manifest, run: Run) -> str:
    """The name of the Flink job of a run."""
    return f"{job_prefix(manifest, run.source)}{run.label}"


def job_prefix(manifest: Manifest, source: str) -> str:
    """What the names of all jobs of a source begin with."""
    return f"coeval-{manifest.tenant}-{source}-"


def group_id(manifest: Manifest, run: Run) -> str:
    """The consumer group of a run. No two runs share one, so that offsets of one are never taken for another's."""
    return f"coeval-{manifest.tenant}-{run.source}/{run.label}"


def changelog_topic(manifest: Manifest, view: View) -> str:
    """The topic that carries the updates of a view version."""
    return f"{manifest.tenant}.changelog.{view.name}.{view.version}"


def accounting_topic(manifest: Manifest, source: str) -> str:
    """The topic that carries what became of a source's records, by run."""
    return f"{manifest.tenant}.accounting.{source}"


def served_topic(tenant: str) -> str:
    """The topic that carries what was served for a sample of entities."""
    return f"{tenant}.served"


def stream_views(manifest: Manifest, source: str) -> tuple[View, ...]:
    """The views that the stream fills from a source, by name."""
    views = [view for view in manifest.views.values() if view.source == source]
    return tuple(sorted((v for v in views if isinstance(v, WindowedView) or v.stream), key=lambda view: view.name))


def stream_sources(manifest: Manifest) -> tuple[EventSource, ...]:
    """The event sources that a job is needed for."""
    return tuple(source for source in manifest.event_sources if stream_views(manifest, source.name))


def run_views(manifest: Manifest, run: Run) -> tuple[View, ...]:
    """The views that a run fills, by name."""
    return tuple(view for view in stream_views(manifest, run.source) if view.name in run.views)
