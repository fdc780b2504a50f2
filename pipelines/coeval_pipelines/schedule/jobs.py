"""What is scheduled: jobs by name, when each is due. It knows APScheduler's triggers, and starts nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from coeval.errors import UsageError
from coeval.settings import ScheduledJob
from coeval.spec.time import parse_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""From when intervals are counted, so that a scheduler that begins again does not move them."""
DEFAULTS: Mapping[str, ScheduledJob] = {
    "ingest": ScheduledJob(command="log ingest", every="15m"),
    "materialize": ScheduledJob(command="materialize", every="1h"),
    "parity": ScheduledJob(command="parity run", every="1h", timeout="1h"),
    "freshness": ScheduledJob(command="freshness", every="5m", timeout="5m"),
    "quality": ScheduledJob(command="quality run", every="1h"),
    "rebuild": ScheduledJob(command="parity rebuild", cron="30 4 * * *"),
    "correct": ScheduledJob(command="backfill run --correct", cron="30 2 * * *"),
    "forget": ScheduledJob(command="parity forget", cron="30 3 * * *", timeout="1h", runbook="docs/serving.md"),
}
"""What is scheduled where the settings say nothing else of a job of that name."""
_RUNBOOKS = {
    "parity": "docs/runbooks/parity.md",
    "freshness": "docs/runbooks/freshness.md",
    "backfill": "docs/runbooks/backfill.md",
    "materialize": "docs/runbooks/backfill.md",
    "log": "docs/event-log.md",
    "quality": "docs/quality.md",
    "drift": "docs/drift.md",
}
"""What to do about a command that fails, by its first word."""
_MOST_MISSED = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """A command and when it is due. `when` is what the settings say, for a person; `timeout` is in seconds."""

    name: str
    command: tuple[str, ...]
    when: str
    trigger: BaseTrigger
    timeout: float
    runbook: str

    def after(self, instant: datetime) -> datetime | None:
        """When it is due next after an instant; None: never again."""
        found: datetime | None = self.trigger.get_next_fire_time(None, instant + timedelta(microseconds=1))
        return found

    def due(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """When it was due after `since`, not after `until`; the first thousand times."""
        for _ in range(_MOST_MISSED):
            at = self.after(since)
            if at is None or at > until:
                return
            yield at
            since = at


def jobs(configured: Mapping[str, ScheduledJob]) -> dict[str, Job]:
    """The jobs by name: the settings' over the defaults; one without a command is off.

    Raises:
        UsageError: a job has no time, two, or one that cannot be read.
    """
    merged = {**DEFAULTS, **configured}
    return {name: _job(name, item) for name, item in sorted(merged.items()) if item.command}


def named(configured: Mapping[str, ScheduledJob], name: str) -> Job:
    """The job of that name.

    Raises:
        UsageError: there is none, or it is off.
    """
    found = jobs(configured)
    if name not in found:
        raise UsageError(
            f"There is no job {name!r}.", f"Known: {', '.join(found)}. Add [schedule.{name}] to coeval.toml."
        )
    return found[name]


def _job(name: str, item: ScheduledJob) -> Job:
    if bool(item.every) == bool(item.cron):
        raise UsageError(f"The job {name} needs either `every` or `cron`.", 'Give every = "1h" or cron = "30 2 * * *".')
    try:
        trigger = _every(item.every) if item.every else CronTrigger.from_crontab(item.cron, timezone=UTC)
        timeout = parse_duration(item.timeout) / 1e6
    except ValueError as error:
        raise UsageError(
            f"The times of the job {name} cannot be read: {error}.", "Write 15m, 1h or 1d; or a cron line."
        ) from error
    command = tuple(shlex.split(item.command))
    when = f"every {item.every}" if item.every else f"cron {item.cron}"
    return Job(name, command, when, trigger, timeout, item.runbook or _RUNBOOKS.get(command[0], ""))


def _every(text: str) -> IntervalTrigger:
    length = parse_duration(text)
    if length <= 0:
        raise ValueError("an interval must be longer than nothing")
    return IntervalTrigger(seconds=length / 1e6, start_date=EPOCH, timezone=UTC)
