"""Runs are made so here: begun, resumed, replaced, stopped, rescaled, and brought back when their jobs are gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import structlog

from coeval.errors import EngineError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ENDED, RUNNING, STOPPED, Certificate, ControlPlane, Run
from coeval_pipelines.coordination.changes import (
    BESIDE,
    KEEP,
    REPLACE,
    RESCALE,
    RESUME,
    START,
    Change,
    filled_by,
    ownership,
    rewound,
)
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.jobs import FlinkCluster, Job
from coeval_pipelines.streaming.names import job_name, stream_sources, stream_views
from coeval_pipelines.streaming.options import StaleStateError, checkpoint_root, start_of
from coeval_pipelines.streaming.submit import Submission, job_of, submit

SETTLED_SECONDS = 5
"""A run has passed another once it covers what that one had confirmed this long ago."""
_LOG = structlog.get_logger(service="coordinator")
Say = Callable[[str], None]


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def carry_out(settings: Settings, control: ControlPlane, changes: Sequence[Change], say: Say) -> dict[int, str]:
    """Do what was planned; returns the Flink job ids of all running runs, by number. Call it under the deploy lock."""
    for change in changes:
        if change.action in (START, BESIDE, REPLACE):
            control.begin_run(change.run, now())
        elif change.action == RESUME:
            control.set_run(change.run.number, RUNNING, now())
        elif change.action == RESCALE:
            _rescale(settings, control, change.run, say)
        if change.action != KEEP:
            say(f"{change.source}: {change.how}")
    return ensure_jobs(settings, control)


def ensure_jobs(settings: Settings, control: ControlPlane) -> dict[int, str]:
    """Submit the jobs of running runs that Flink does not have, cancel those of others; job ids by run number.

    Raises:
        EngineError: Flink does not answer, or does not take a job.
    """
    cluster = FlinkCluster.open(settings)
    live = [job for job in cluster.jobs() if job.live]
    _cancel_others(cluster, control, live)
    ids: dict[int, str] = {}
    wanted: list[Submission] = []
    for run in control.runs():
        manifest = _manifest(control, run)
        found = next((job for job in live if job.name == job_name(manifest, run)), None)
        if found is not None:
            ids[run.number] = found.id
        else:
            wanted.append(_submission(settings, control, manifest, run))
    return ids | submit(settings, wanted)


def _cancel_others(cluster: FlinkCluster, control: ControlPlane, live: Sequence[Job]) -> None:
    """Cancel the jobs of runs that are over, and all but the newest job of a run."""
    over = {job_name(_manifest(control, run), run) for run in control.runs(statuses=(ENDED, STOPPED))}
    seen: set[str] = set()
    for job in live:
        if job.name in over or (job.name in seen and job.name.startswith("coeval-")):
            cluster.cancel(job.id)
        seen.add(job.name)


def _submission(settings: Settings, control: ControlPlane, manifest: Manifest, run: Run) -> Submission:
    try:
        checkpoint = start_of(settings, run, job_of(settings, manifest, run), time.time())
    except StaleStateError:
        _LOG.warning("its state is too old to be whole: rewinding", run=run.number, source=run.source)
        run = _begin_again(settings, control, manifest, run)
        checkpoint = ""
    return Submission(manifest, run, checkpoint)


def _begin_again(settings: Settings, control: ControlPlane, manifest: Manifest, run: Run) -> Run:
    draft = replace(run, restore="", replaces=run.replaces, reason="its state was too old to be whole")
    with Broker(settings.kafka) as broker:
        change = rewound(broker, control, manifest, draft, ownership(manifest, control), START)
    return control.begin_run(change.run, now(), ends=[run.number])


def _rescale(settings: Settings, control: ControlPlane, run: Run, say: Say) -> None:
    """Stop a run with a savepoint and begin the same anew from it, at the parallelism that `run` says."""
    location = _savepoint(settings, control, run)
    if location is None:
        say(f"{run.source}: its job does not run: it goes on from its newest checkpoint")
        job = job_of(settings, _manifest(control, run), run)
        location = start_of(settings, run, job, time.time())
    reason = f"rescaled to parallelism {run.parallelism}"
    control.begin_run(replace(run, restore=location, reason=reason), now(), ends=[run.number])


def _savepoint(settings: Settings, control: ControlPlane, run: Run) -> str | None:
    manifest = _manifest(control, run)
    job = job_of(settings, manifest, run)
    cluster = FlinkCluster.open(settings)
    live = next((item for item in cluster.jobs() if item.live and item.name == job.name), None)
    return cluster.stop(live.id, checkpoint_root(settings, job).as_uri()) if live else None


def stop(settings: Settings, control: ControlPlane, sources: Collection[str], say: Say) -> tuple[Run, ...]:
    """Stop the runs of sources, each with a savepoint to go on from; returns them.

    Raises:
        EngineError: a savepoint failed; that run, and those after it, run on.
    """
    runs = tuple(run for run in control.runs() if run.source in sources)
    for run in runs:
        location = _savepoint(settings, control, run)
        control.set_run(run.number, STOPPED, now(), restore=location)
        say(f"{run.source}: run {run.number} stopped, {f'savepoint {location}' if location else 'its job was gone'}")
    return runs


def rescale_change(settings: Settings, control: ControlPlane, source: str, parallelism: int) -> Change:
    """A planned change of a run's parallelism.

    Raises:
        UsageError: there is not exactly one running run, or the workers have not the slots.
    """
    run = _the_run(control, source)
    slots = FlinkCluster.open(settings).free_slots() + run.parallelism
    if not 1 <= parallelism <= slots:
        raise UsageError(
            f"{source} cannot run at parallelism {parallelism}: the workers have {slots} slots for it.",
            "Choose less, or give it workers (COEVAL_FLINK__WORKERS; then coeval down, coeval up).",
        )
    why = f"parallelism {run.parallelism} -> {parallelism}; the graph stays, so its state can be taken along"
    return Change(source, RESCALE, why, replace(run, parallelism=parallelism))


def rewind_change(settings: Settings, control: ControlPlane, source: str, to: int | None) -> Change:
    """A planned rewind of all that fills a source's views, beside what runs; `to` (microseconds UTC) goes back further.

    Raises:
        UsageError: nothing runs for that source.
        BrokerError: the broker does not answer.
    """
    runs = control.runs(source, (RUNNING, STOPPED))
    if not runs:
        raise UsageError(f"Nothing runs for {source}.", "Deploy it: coeval stream deploy")
    manifest = _manifest(control, runs[-1])
    why = "asked for" if to is None else f"asked for, back to {to} us"
    names = tuple(view.name for view in stream_views(manifest, source))
    numbers = tuple(run.number for run in runs)
    draft = Run(0, source, manifest.hash, names, {}, {}, runs[-1].parallelism, replaces=numbers, reason=why)
    with Broker(settings.kafka) as broker:
        return rewound(broker, control, manifest, draft, ownership(manifest, control), REPLACE, to)


def merge_changes(settings: Settings, manifest: Manifest, control: ControlPlane) -> tuple[Change, ...]:
    """One run per source for exactly the views of a manifest, where several run or one fills more than that.

    Raises:
        BrokerError: the broker does not answer.
    """
    found: list[Change] = []
    with Broker(settings.kafka) as broker:
        for source in stream_sources(manifest):
            runs = control.runs(source.name, (RUNNING, STOPPED))
            wanted = {(view.name, view.version) for view in stream_views(manifest, source.name)}
            filled = [item for run in runs for item in filled_by(control, run)]
            if not runs or (len(runs) == 1 and set(filled) == wanted):
                continue
            names, numbers = tuple(sorted(name for name, _ in wanted)), tuple(run.number for run in runs)
            why = "one run instead of several" if len(runs) > 1 else "it fills versions that are retired"
            draft = Run(
                0, source.name, manifest.hash, names, {}, {}, runs[-1].parallelism, replaces=numbers, reason=why
            )
            found.append(rewound(broker, control, manifest, draft, ownership(manifest, control), REPLACE))
    return tuple(found)


def end_replaced(control: ControlPlane) -> list[int]:
    """End the runs that their successors have passed; returns their numbers."""
    ended: list[int] = []
    running = {run.number: run for run in control.runs(statuses=(RUNNING, STOPPED))}
    for run in control.runs():
        old = [running[number] for number in run.replaces if number in running]
        if old and all(_passed(control, run, item) for item in old):
            for item in old:
                control.set_run(item.number, ENDED, now())
            ended += [item.number for item in old]
    return ended


def _passed(control: ControlPlane, run: Run, old: Run) -> bool:
    if old.status == STOPPED:
        return True
    mine = next(iter(control.certificates(run.source, run.number, limit=1)), None)
    settled = now() - SETTLED_SECONDS * 1_000_000
    theirs = [item for item in control.certificates(old.source, old.number) if item.recorded_at <= settled]
    return mine is not None and (not theirs or _beyond(mine, theirs[0]))


def _beyond(certificate: Certificate, other: Certificate) -> bool:
    return all(certificate.offsets.get(part, 0) >= offset for part, offset in other.offsets.items())


def end_orphans(control: ControlPlane, manifest: Manifest) -> None:
    """End the runs of sources that a manifest does not stream any more."""
    sources = {source.name for source in stream_sources(manifest)}
    for run in control.runs(statuses=(RUNNING, STOPPED)):
        if run.source not in sources and _manifest(control, run).tenant == manifest.tenant:
            control.set_run(run.number, ENDED, now())


def await_running(settings: Settings, ids: Collection[str]) -> None:
    """Wait until every task of the jobs runs.

    Raises:
        EngineError: one failed, or does not run in time.
    """
    cluster = FlinkCluster.open(settings)
    for job in ids:
        cluster.await_healthy(job)


def _the_run(control: ControlPlane, source: str) -> Run:
    runs = control.runs(source)
    if len(runs) != 1:
        what = "several runs fill" if runs else "no run fills"
        raise UsageError(
            f"For {source}, {what} its views.", "See coeval stream status; coeval stream retire merges runs."
        )
    return runs[0]


def _manifest(control: ControlPlane, run: Run) -> Manifest:
    manifest = control.manifest(run.manifest_hash)
    if manifest is None:
        raise EngineError(f"The manifest of run {run.number} is not in the control plane.", "Deploy it again.")
    return manifest
