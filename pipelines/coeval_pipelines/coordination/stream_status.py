"""Ask every component how the streams are. One that does not answer leaves its part unknown, and is named."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeVar

import redis

from coeval.client import open_redis
from coeval.errors import CoevalError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View
from coeval.spec.time import duration
from coeval_pipelines.control import ALIVE, ControlPlane, Run
from coeval_pipelines.coordination.changes import Version, filled
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.coordination.stream_model import (
    MISSING,
    RunStatus,
    StreamStatus,
    ViewStatus,
    events_per_second,
)
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.streaming.accounting import Accounting, read_accounting
from coeval_pipelines.streaming.broker import Broker, Offsets, partitions_of
from coeval_pipelines.streaming.freshness import FreshnessBook, known
from coeval_pipelines.streaming.jobs import FlinkCluster, Job
from coeval_pipelines.streaming.names import changelog_topic, job_name, run_views
from coeval_pipelines.streaming.progress import SourceProgress, source_progress

STALE_FRESHNESS = 60 * 1_000_000
"""What canaries said longer ago than this says nothing of now."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Store:
    """What the online store holds: by changelog topic the offsets written, by view version whether it is ready."""

    written: Mapping[str, Offsets] = field(default_factory=dict)
    ready: Mapping[tuple[str, str], bool] = field(default_factory=dict)


def account_of(settings: Settings, manifest: Manifest, run: Run) -> Accounting:
    """What a run has counted, read from its topic: the longer that is, the slower.

    Raises:
        BrokerError: the broker does not answer.
    """
    return read_accounting(settings.kafka, manifest, run)


def stream_status(
    settings: Settings,
    control: ControlPlane,
    account: Callable[[Settings, Manifest, Run], Accounting] = account_of,
) -> StreamStatus:
    """How the streams are now; `account` says what a run has counted.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the control plane does not answer; without it nothing is known.
    """
    now = time.time_ns() // 1000
    away: dict[str, str] = {}
    released = control.released()
    runs = [(run, manifest) for run in control.runs(statuses=ALIVE) if (manifest := _of(control, run))]
    manifests = list({item.hash: item for item in (*([released] if released else []), *(m for _, m in runs))}.values())
    store = _ask(away, "redis", lambda: _read_store(settings, manifests))
    drafts = [_draft(run, manifest, released) for run, manifest in runs]
    jobs = _ask(away, "flink", lambda: _with_jobs(settings, runs, drafts, now)) or drafts
    whole = _ask(away, "kafka", lambda: _with_progress(settings, control, runs, jobs, store, now)) or jobs
    if "kafka" not in away:
        accounts = _ask(away, "accounting", lambda: [account(settings, manifest, run) for run, manifest in runs])
        whole = [_accounted(draft, found) for draft, found in zip(whole, accounts or (), strict=False)] or whole
    views = tuple(_views(settings, control, released, manifests, store, now))
    return StreamStatus(now, released.hash if released else "", tuple(whole), views, away)


def _of(control: ControlPlane, run: Run) -> Manifest | None:
    return control.manifest(run.manifest_hash)


def _ask(away: dict[str, str], component: str, question: Callable[[], _T]) -> _T | None:
    try:
        return question()
    except (CoevalError, redis.RedisError) as error:
        away[component] = str(getattr(error, "reason", error)).splitlines()[0]
        return None


def _draft(run: Run, manifest: Manifest, released: Manifest | None) -> RunStatus:
    views = run_views(manifest, run)
    promise = min((view.sla.freshness for view in views), default=0) / 1e6
    named = _versions(released)
    serving = any((view.name, view.version) in named for view in views)
    expected = _source(manifest, run).expected_rate
    return RunStatus(
        run.source, run.number, run.views, run.status, run.reason, promise, serving=serving, expected_rate=expected
    )


def _versions(released: Manifest | None) -> set[tuple[str, str]]:
    return {(view.name, view.version) for view in released.views.values()} if released else set()


def _read_store(settings: Settings, manifests: Sequence[Manifest]) -> _Store:
    written: dict[str, Offsets] = {}
    ready: dict[tuple[str, str], bool] = {}
    with closing(open_redis(settings)) as client:
        for manifest in manifests:
            writer = OnlineWriter(client, manifest.tenant)
            for view in manifest.views.values():
                ready[view.name, view.version] = writer.is_ready(view)
                if is_streamed(view):
                    stored = writer.offsets(view)
                    written[changelog_topic(manifest, view)] = {at: offset or 0 for at, offset in stored.items()}
    return _Store(written, ready)


def _with_jobs(
    settings: Settings, runs: Sequence[tuple[Run, Manifest]], drafts: Sequence[RunStatus], now: int
) -> list[RunStatus]:
    cluster = FlinkCluster.open(settings)
    newest: dict[str, Job] = {}
    for job in cluster.jobs():
        newest.setdefault(job.name, job)
    named = [newest.get(job_name(manifest, run)) for run, manifest in runs]
    return [_with_job(cluster, draft, job, now) for draft, job in zip(drafts, named, strict=True)]


def _with_job(cluster: FlinkCluster, draft: RunStatus, job: Job | None, now: int) -> RunStatus:
    if job is None:
        return replace(draft, state=MISSING)
    checkpoints = cluster.checkpointing(job.id)
    return replace(
        draft,
        state=job.state,
        tasks=job.tasks,
        running_tasks=job.running_tasks,
        restarts=cluster.restarts(job.id) if job.live else None,
        failure=cluster.failure(job.id),
        checkpoints=checkpoints,
        # It may have been complete a moment after all of this was asked for.
        checkpoint_age=max(0, now - (checkpoints.at or job.started_at * 1000)) / 1e6,
    )


def _with_progress(
    settings: Settings,
    control: ControlPlane,
    runs: Sequence[tuple[Run, Manifest]],
    drafts: Sequence[RunStatus],
    store: _Store | None,
    now: int,
) -> list[RunStatus]:
    with Broker(settings.kafka) as broker:
        found = [_positions(broker, control, run, manifest, store) for run, manifest in runs]
        return [
            _behind(
                broker, control, run, manifest, replace(draft, log_lost=_lost(settings, broker, run, manifest)), at, now
            )
            for (run, manifest), draft, at in zip(runs, drafts, found, strict=True)
        ]


def _lost(settings: Settings, broker: Broker, run: Run, manifest: Manifest) -> int:
    """How many records the topic has forgotten that the event log was still to read; 0 before it read any."""
    source = _source(manifest, run)
    plan = ingest_journal(settings, manifest.tenant, source.name).last_plan()
    if plan is None:
        return 0
    begins = broker.begins(partitions_of(broker, [source.topic])).get(source.topic, {})
    return sum(max(0, begins.get(partition, 0) - item.end) for partition, item in plan.ranges.items())


def _positions(
    broker: Broker, control: ControlPlane, run: Run, manifest: Manifest, store: _Store | None
) -> SourceProgress | None:
    """How far the store is with what a run fills; None where the store does not say."""
    if store is None:
        return None
    topics = [changelog_topic(manifest, view) for view in run_views(manifest, run)]
    written = {topic: store.written.get(topic, {}) for topic in topics}
    source = _source(manifest, run)
    ends = broker.ends(partitions_of(broker, [source.topic, *topics]))
    return source_progress(control.every_certificate(run.source), source, ends, written)


def _behind(
    broker: Broker,
    control: ControlPlane,
    run: Run,
    manifest: Manifest,
    draft: RunStatus,
    at: SourceProgress | None,
    now: int,
) -> RunStatus:
    certificates = control.certificates(run.source, run.number)
    rated = replace(draft, events_per_second=events_per_second(certificates, now))
    if at is None:
        return rated
    age = max(0, now - certificates[0].recorded_at) / 1e6 if certificates and at.lag else 0.0
    # Where the topic holds nothing of that any more, it is at least as old as what was certified last.
    known = certificates[0].recorded_at if certificates and at.lag else now
    oldest = min(_uncovered(broker, _source(manifest, run).topic, at).values(), default=known)
    return replace(
        rated,
        lag_events=at.lag,
        lag_seconds=max(0.0, (now - oldest) / 1e6),
        changelog_lag=at.changelog_lag,
        certificate_age=age,
    )


def _uncovered(broker: Broker, topic: str, at: SourceProgress) -> Offsets:
    """When the first record of each partition became available that the store is not certain to cover."""
    starts = {partition: at.covered.get(partition, 0) for partition in at.ends}
    return broker.timestamps(topic, {part: offset for part, offset in starts.items() if offset < at.ends[part]})


def _accounted(draft: RunStatus, found: Accounting) -> RunStatus:
    late = {duration(hop): count for hop, count in sorted(found.late.items())}
    return replace(draft, read=found.read, rejected=found.rejected, duplicates=found.duplicates, late=late)


def _source(manifest: Manifest, run: Run) -> EventSource:
    source = manifest.sources[run.source]
    assert isinstance(source, EventSource)
    return source


def _views(
    settings: Settings,
    control: ControlPlane,
    released: Manifest | None,
    manifests: Sequence[Manifest],
    store: _Store | None,
    now: int,
) -> Iterator[ViewStatus]:
    named = _versions(released)
    filling = filled(control)
    with closing(FreshnessBook.open(settings)) as book:
        fresh = book.read()
    views = {(view.name, view.version): view for manifest in manifests for view in manifest.views.values()}
    for key, view in sorted(views.items()):
        draft = _view(control, view, key in named, store.ready.get(key, False) if store else None, filling)
        found = known(fresh, view, now, STALE_FRESHNESS)
        if found is not None:
            draft = replace(draft, p50=found.p50, slowest=found.slowest, waiting=found.waiting, missed=found.missed)
        yield draft


def _view(
    control: ControlPlane, view: View, released: bool, ready: bool | None, filling: Collection[Version]
) -> ViewStatus:
    deployment = control.deployment(view.name, view.version)
    load = control.last_load(view.name, view.version)
    streamed = is_streamed(view)
    return ViewStatus(
        view=view.name,
        version=view.version,
        source=view.source,
        released=released,
        streamed=streamed,
        stream_from=deployment.since if deployment and streamed else None,
        batch_cut=load.cut if load else None,
        ready=ready,
        promise=view.sla.freshness / 1e6,
        late_share=view.sla.late_share,
        filled=not streamed or (view.name, view.version) in filling,
    )
