"""Runs are made so here: begun, resumed, replaced, stopped, rescaled, and brought back when their jobs are gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import ALIVE, ENDED, RUNNING, STOPPED, Certificate, ControlPlane, Run
from coeval_pipelines.coordination.changes import (
    BESIDE,
    KEEP,
    REPLACE,
    RESCALE,
    RESUME,
    START,
    Change,
    again,
    manifest_of,
)
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.jobs import FlinkCluster, Job
from coeval_pipelines.streaming.names import job_name, stream_sources
from coeval_pipelines.streaming.options import StaleStateError, checkpoint_root, checkpoints_of, start_of, states
from coeval_pipelines.streaming.sql import STATE_SLACK
from coeval_pipelines.streaming.submit import Submission, job_of, submit

SETTLED_SECONDS = 5
"""A run has passed another once it covers what that one had confirmed this long ago."""
_LOG = structlog.get_logger(service="coordinator")
Say = Callable[[str], None]


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def carry_out(settings: Settings, control: ControlPlane, changes: Sequence[Change], say: Say) -> dict[int, str]:
    """Do what was planned; returns the Flink job ids of all running runs, by number. Call it under the deploy lock.

    Raises:
        EngineError: Flink does not answer, or has not the slots; then nothing has been begun.
    """
    _check_slots(settings, changes)
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


def _check_slots(settings: Settings, changes: Sequence[Change]) -> None:
    """A run that finds no slots never passes the one that it replaces: both would stay for ever."""
    wanted = sum(change.run.parallelism for change in changes if change.action in (START, BESIDE, REPLACE, RESUME))
    if not wanted:
        return
    free = FlinkCluster.open(settings).free_slots()
    if free < wanted:
        raise EngineError(
            f"What is to begin needs {wanted} task slots, and Flink has {free} free.",
            "Give it more (COEVAL_FLINK__WORKERS; then coeval down, coeval up), end what is not needed (coeval stream "
            "retire), or wait for a rewind that is under way (coeval stream status).",
        )


def ensure_jobs(settings: Settings, control: ControlPlane) -> dict[int, str]:
    """Submit the jobs of running runs that Flink does not have, cancel those of others; job ids by run number.

    A job that has completed no checkpoint for longer than its state is kept whole is begun again without state.

    Raises:
        EngineError: Flink does not answer, or does not take a job.
    """
    cluster = FlinkCluster.open(settings)
    live = [job for job in cluster.jobs() if job.live]
    names = {job_name(manifest_of(control, run), run): run for run in control.runs()}
    found = {job.name: job for job in reversed(live) if job.name in names}
    for name, job in list(found.items()):
        if _stale(cluster, job):
            _begin_again(settings, control, names.pop(name))
            del found[name]
    _cancel_others(cluster, control, live, {job.id for job in found.values()})
    ids = {names[name].number: job.id for name, job in found.items()}
    missing = [run for run in control.runs() if run.number not in ids]
    return ids | submit(settings, [_submission(settings, control, run) for run in missing])


def _stale(cluster: FlinkCluster, job: Job) -> bool:
    """Whether what the job would be restored from is too old to be whole: its processing time went on without it."""
    oldest = now() - STATE_SLACK
    return job.started_at * 1000 < oldest and cluster.checkpointing(job.id).at < oldest


def _cancel_others(cluster: FlinkCluster, control: ControlPlane, live: Sequence[Job], kept: Collection[str]) -> None:
    """Cancel the jobs of runs that are over, and all but the newest job of a run."""
    others = [job for job in live if job.id not in kept]
    if others:
        known = control.runs(statuses=(RUNNING, ENDED, STOPPED))
        ours = {job_name(manifest_of(control, run), run) for run in known}
        for job in others:
            if job.name in ours:
                cluster.cancel(job.id)


def _submission(settings: Settings, control: ControlPlane, run: Run) -> Submission:
    manifest = manifest_of(control, run)
    try:
        return Submission(manifest, run, start_of(settings, run, job_of(settings, manifest, run), time.time()))
    except StaleStateError:
        return Submission(manifest, _begin_again(settings, control, run))


def _begin_again(settings: Settings, control: ControlPlane, run: Run) -> Run:
    _LOG.warning("its state is too old to be whole: rewinding", run=run.number, source=run.source)
    with Broker(settings.kafka) as broker:
        change = again(broker, control, run, "its state was too old to be whole")
    return control.begin_run(replace(change.run, replaces=run.replaces), now(), ends=[run.number])


def _rescale(settings: Settings, control: ControlPlane, run: Run, say: Say) -> None:
    """Stop a run with a savepoint and begin the same anew from it, at the parallelism that `run` says."""
    location = _savepoint(settings, control, run)
    if location is None:
        say(f"{run.source}: its job does not run: it goes on from its newest checkpoint")
        try:
            location = start_of(settings, run, job_of(settings, manifest_of(control, run), run), time.time())
        except StaleStateError:
            say(f"{run.source}: that is too old to be whole: it begins without state")
            _begin_again(settings, control, run)
            return
    reason = f"rescaled to parallelism {run.parallelism}"
    control.begin_run(replace(run, restore=location, reason=reason), now(), ends=[run.number])


def _savepoint(settings: Settings, control: ControlPlane, run: Run) -> str | None:
    manifest = manifest_of(control, run)
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


def end_replaced(control: ControlPlane) -> list[int]:
    """End the runs that their successors have passed; returns their numbers."""
    ended: list[int] = []
    running = {run.number: run for run in control.runs(statuses=ALIVE)}
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


def sweep(settings: Settings, control: ControlPlane) -> list[int]:
    """Delete the checkpoints and savepoints of runs that are over, once nothing starts from them; their numbers."""
    alive = control.runs(statuses=ALIVE)
    kept = {job_name(manifest_of(control, run), run) for run in alive}
    home = checkpoints_of(settings, "")
    left = {path.name for path in home.iterdir()} - kept if home.exists() else set()
    if not left:
        return []
    origins = [run.restore for run in alive if run.restore and not _stands_alone(settings, control, run)]
    needed = [Path(unquote(urlsplit(origin).path)) for origin in origins]
    swept: list[int] = []
    for run in control.runs(statuses=(ENDED,)):
        name = job_name(manifest_of(control, run), run)
        if name in left and not any(path.is_relative_to(home / name) for path in needed):
            shutil.rmtree(home / name, ignore_errors=True)
            swept.append(run.number)
    return swept


def _stands_alone(settings: Settings, control: ControlPlane, run: Run) -> bool:
    """Whether a run has state of its own, which does not refer to what it was restored from."""
    return any(states(checkpoints_of(settings, job_name(manifest_of(control, run), run))))


def end_orphans(control: ControlPlane, manifest: Manifest) -> None:
    """End the runs of sources that a manifest does not stream any more."""
    sources = {source.name for source in stream_sources(manifest)}
    for run in control.runs(statuses=ALIVE):
        if run.source not in sources and manifest_of(control, run).tenant == manifest.tenant:
            control.set_run(run.number, ENDED, now())


def await_running(settings: Settings, ids: Collection[str]) -> None:
    """Wait until every task of the jobs runs.

    Raises:
        EngineError: one failed, or does not run in time.
    """
    cluster = FlinkCluster.open(settings)
    for job in ids:
        cluster.await_healthy(job)
