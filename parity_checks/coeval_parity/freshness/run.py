"""How fresh the views are that readers have: asked of the broker, the store and the control plane, and kept there.

It knows Kafka and Redis. How far the store is certain to be is read first and the topics after it, so what comes in
between counts as not readable yet, for a moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import redis

from coeval.client import open_redis, read_manifest
from coeval.errors import BrokerError, CoevalError, StoreError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View
from coeval_parity.freshness.edges import read_edges
from coeval_parity.freshness.judge import Edge, partition_freshness
from coeval_parity.freshness.loads import look_at_load
from coeval_parity.freshness.result import CanaryLatency, ViewFreshness, from_document
from coeval_pipelines.control import ALIVE, RUNNING, ControlPlane
from coeval_pipelines.control.checks import FRESHNESS, CheckBook
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.coordination.stream_model import HEALTHY, JOB_DOWN
from coeval_pipelines.coordination.stream_status import STALE_FRESHNESS
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.freshness import Freshness, FreshnessBook, known
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import changelog_topic, job_name
from coeval_pipelines.streaming.probes import probes
from coeval_pipelines.streaming.progress import covered_offsets

_KEPT = 2_000
"""Runs of each view that are kept: at one in five minutes, those of a week."""


def run_freshness(settings: Settings, names: Sequence[str] = ()) -> list[ViewFreshness]:
    """How fresh views (default: all) are now, kept in the control plane; not of views of which nothing can be said.

    Raises:
        UnknownFeatureError: there is no such view.
        StoreError: Redis does not answer, so nothing can be said of any.
    """
    with closing(ControlPlane.open(settings)) as control:
        manifest = _manifest(settings, control)
        found = look(settings, control, manifest, names)
        keep(control, manifest, found)
    return found


def keep(control: ControlPlane, manifest: Manifest, found: Sequence[ViewFreshness]) -> None:
    """Keep what a run found of views, but of those of which nothing can be said: when they were judged last tells."""
    book = CheckBook(control)
    for item in found:
        if not item.unknown:
            book.record(FRESHNESS, item.view, item.at, manifest.hash, passed=item.ok, result=item.to_document())
            book.forget(FRESHNESS, item.view, _KEPT)
    for gone in book.newest(FRESHNESS).keys() - manifest.views.keys():
        book.forget(FRESHNESS, gone)


def look_now(settings: Settings, names: Sequence[str] = ()) -> list[ViewFreshness]:
    """The same, and nothing is kept."""
    with closing(ControlPlane.open(settings)) as control:
        return look(settings, control, _manifest(settings, control), names)


def past(settings: Settings, names: Sequence[str], limit: int) -> list[ViewFreshness]:
    """The newest runs that were kept of views (default: all), by view, oldest first.

    Raises:
        UnknownFeatureError: there is no such view.
    """
    with closing(ControlPlane.open(settings)) as control:
        book, views = CheckBook(control), _manifest(settings, control).chosen_views(names)
        runs = (run for view in views for _, run in book.history(FRESHNESS, view.name, limit))
        return [from_document(run) for run in runs]


def latest(control: ControlPlane) -> list[ViewFreshness]:
    """The newest run that was kept of every view; `result.rows` makes the lines of a page of them."""
    return [from_document(run.result) for run in CheckBook(control).newest(FRESHNESS).values()]


def look(
    settings: Settings, control: ControlPlane, manifest: Manifest, names: Sequence[str] = ()
) -> list[ViewFreshness]:
    """The same, of the views of a manifest; nothing is kept."""
    views = manifest.chosen_views(names)
    with ExitStack() as stack:
        client = stack.enter_context(closing(open_redis(settings)))
        latencies = stack.enter_context(closing(FreshnessBook.open(settings))).read()
        writer, before = OnlineWriter(client, manifest.tenant), {item.view: item for item in latest(control)}
        world = _World(settings, control, manifest, writer, latencies, before, stack)
        try:
            found = [world.view(view) for view in views]
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error
        broken = {item.source for item in found if not item.ok}
        jobs = dict(_job_notes(settings, control, manifest, broken)) if broken else {}
    return [replace(item, notes=(*item.notes, *jobs.get(item.source, ()))) for item in found]


def _manifest(settings: Settings, control: ControlPlane) -> Manifest:
    """What readers have; before anything is released, what was applied."""
    return control.released() or read_manifest(settings.manifest_path)


@dataclass(slots=True)
class _World:
    """What is asked; each topic is read once for all views that are as far. `before` is what the newest runs kept."""

    settings: Settings
    control: ControlPlane
    manifest: Manifest
    writer: OnlineWriter
    latencies: Mapping[tuple[str, str], Freshness]
    before: Mapping[str, ViewFreshness]
    open: ExitStack
    broker: Broker | None = None
    away: BrokerError | None = None
    read: dict[tuple[str, tuple[tuple[int, int], ...]], list[Edge]] = field(default_factory=dict)

    def view(self, view: View) -> ViewFreshness:
        """How fresh a view is now."""
        ready = self.writer.is_ready(view)
        draft = ViewFreshness(
            tenant=self.manifest.tenant,
            view=view.name,
            version=view.version,
            source=view.source,
            at=_now(),
            promise=view.sla.freshness / 1e6,
            ready=ready,
        )
        if not is_streamed(view):
            before = self.before.get(view.name)
            load, notes = look_at_load(self.settings, self.control, self.manifest, view, before, draft.at)
            return replace(draft, load=load, notes=notes)
        try:
            edges = self._edges(view)
        except BrokerError as error:
            return replace(draft, unknown=error.reason)
        now = _now()
        canary, notes = self._canary(view, now)
        runs = self.control.runs(view.source, ALIVE)
        return replace(
            draft,
            at=now,
            partitions=tuple(partition_freshness(view, edge, now) for edge in edges),
            canary=canary,
            stopped=bool(runs) and all(run.status != RUNNING for run in runs),
            notes=notes,
        )

    def _edges(self, view: View) -> list[Edge]:
        topic = changelog_topic(self.manifest, view)
        written = {bucket: offset or 0 for bucket, offset in self.writer.offsets(view).items()}
        covered = covered_offsets(self.control.every_certificate(view.source), [topic], {topic: written})
        place = (view.source, tuple(sorted(covered.items())))
        if place not in self.read:
            self.read[place] = read_edges(self.settings, self._broker(), self._source(view), covered)
        return self.read[place]

    def _broker(self) -> Broker:
        if self.away is not None:  # it was waited for once
            raise self.away
        if self.broker is None:
            try:
                self.broker = self.open.enter_context(Broker(self.settings.kafka))
            except BrokerError as error:
                self.away = error
                raise
        return self.broker

    def _canary(self, view: View, now: int) -> tuple[CanaryLatency | None, tuple[str, ...]]:
        source = self._source(view)
        if not source.canary:
            return None, ("its source declares no canary: nothing is measured from end to end",)
        if view.name not in {probe.view.name for probe in probes(self.manifest, source, now)}:
            return None, ("its condition leaves canaries out: nothing is measured from end to end",)
        found = known(self.latencies, view, now, STALE_FRESHNESS)
        if found is None:
            return None, ("no canary in the last minute: is the coordinator running?",)
        return CanaryLatency(found.p50, found.p99, found.last, found.samples, found.waiting), ()

    def _source(self, view: View) -> EventSource:
        source = self.manifest.sources[view.source]
        assert isinstance(source, EventSource)
        return source


def _job_notes(
    settings: Settings, control: ControlPlane, manifest: Manifest, sources: set[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """By source, what its jobs have to do with it."""
    try:
        states = {job.name: job.state for job in reversed(FlinkCluster.open(settings).jobs())}
    except CoevalError as error:
        yield from ((name, (f"{error.reason} -> {JOB_DOWN}",)) for name in sources if control.runs(name))
        return
    for name in sources:
        ill = [
            f"the job of run {run.number} is {state} -> {JOB_DOWN}"
            for run in control.runs(name)
            if (state := states.get(job_name(control.manifest(run.manifest_hash) or manifest, run), "MISSING"))
            != HEALTHY
        ]
        yield name, tuple(ill)


def _now() -> int:
    return time.time_ns() // 1000
