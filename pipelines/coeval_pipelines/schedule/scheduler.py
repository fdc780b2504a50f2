"""The process that begins every job when it is due: APScheduler, in UTC, embedded. What it missed it reports."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import structlog
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from coeval.settings import Settings
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.schedule.book import DONE, MISSED, REFUSED, ScheduleBook
from coeval_pipelines.schedule.jobs import Job
from coeval_pipelines.schedule.runner import NOT_OVER, record, run_job

_STANDBY_SECONDS = 1.0
"""How often a second scheduler looks whether the first is gone."""
_LOG = structlog.get_logger(service="schedule")


def serve(settings: Settings, jobs: Mapping[str, Job], stop: threading.Event) -> None:
    """Begin jobs when they are due until told to stop; a run that goes on then is ended, as Ctrl-C does it.

    One scheduler per home: a second one waits until the first is gone. What was due while there was none is reported
    as missed, and made up for by one run.
    """
    while not stop.is_set():
        with only_one(settings, "schedule", wait=False) as held:
            if held:
                _serve(settings, jobs, stop)
        stop.wait(_STANDBY_SECONDS)


def _serve(settings: Settings, jobs: Mapping[str, Job], stop: threading.Event) -> None:
    pool = ThreadPoolExecutor(len(jobs) or 1)
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": pool})
    scheduler.add_listener(lambda event: _refused(settings, jobs, event), EVENT_JOB_MAX_INSTANCES)
    missed = _missed(settings, jobs)
    for name, job in jobs.items():
        at_once = {"next_run_time": datetime.now(UTC)} if name in missed else {}
        options = {"id": name, "max_instances": 1, "coalesce": True, "misfire_grace_time": None, **at_once}
        scheduler.add_job(_begin, job.trigger, [settings, job, stop], **options)
    scheduler.start()
    _LOG.info("scheduling", jobs=sorted(jobs))
    with _metrics(settings):
        stop.wait()
    scheduler.shutdown(wait=True)


@contextmanager
def _metrics(settings: Settings) -> Iterator[None]:
    """Serve what checks found, if there is a port for it."""
    if not (port := settings.metrics.scheduler_port):
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    from coeval_pipelines.control import ControlPlane
    from coeval_pipelines.coordination.check_metrics import CheckMetrics

    with closing(ControlPlane.open(settings)) as control:
        registry = CollectorRegistry()
        registry.register(CheckMetrics(settings, control))
        server, thread = start_http_server(port, registry=registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def until_told(stop: threading.Event) -> None:
    """Set the event on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _begin(settings: Settings, job: Job, stop: threading.Event) -> None:
    entry = run_job(settings, job, stop=stop)
    level = _LOG.info if entry.outcome == DONE else _LOG.warning
    seconds = round(((entry.ended_at or entry.started_at) - entry.started_at) / 1e6, 1)
    level("run", job=job.name, number=entry.number, outcome=entry.outcome, seconds=seconds, log=entry.log)


def _refused(settings: Settings, jobs: Mapping[str, Job], event: JobSubmissionEvent) -> None:
    """A job came due while its last run was not over."""
    job = jobs.get(event.job_id)
    if job is not None:
        due = int(event.scheduled_run_times[-1].timestamp() * 1e6)
        with closing(ScheduleBook.open(settings)) as book:
            book.note(job.name, " ".join(job.command), due, REFUSED, NOT_OVER, int(time.time() * 1e6))
        _LOG.warning("refused: the run before is not over", job=job.name)


def _missed(settings: Settings, jobs: Mapping[str, Job]) -> set[str]:
    """The jobs that were due since their last recorded run, each recorded as missed."""
    now = datetime.now(UTC)
    with closing(ScheduleBook.open(settings)) as book:
        last = {name: book.last_due(name) for name in jobs}
    found: set[str] = set()
    for name, job in jobs.items():
        since = last[name]
        due = [] if since is None else list(job.due(datetime.fromtimestamp(since / 1e6, tz=UTC), now))
        if due:
            summary = f"Nothing was there to begin {len(due)} runs, due from {due[0]:%Y-%m-%d %H:%M} UTC on."
            record(settings, job, int(due[-1].timestamp() * 1e6), MISSED, summary)
            found.add(name)
    return found
