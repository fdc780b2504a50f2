"""The book of scheduled runs, and of what was said of them, in the control plane's database. It knows SQL.

Instants are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa

from coeval.settings import Settings

RUNNING, DONE, FAILED, ERROR = "running", "done", "check failed", "error"
TIMEOUT, KILLED, REFUSED, MISSED = "timeout", "killed", "refused", "missed"
"""REFUSED: the run before was not over. MISSED: nothing was there to begin it."""

_METADATA = sa.MetaData()
_RUNS = sa.Table(
    "schedule_runs",
    _METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.String, nullable=False, index=True),
    sa.Column("command", sa.String, nullable=False),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("log", sa.String, nullable=False),
)
_PROBLEMS = sa.Table(
    "schedule_problems",
    _METADATA,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("said_at", sa.BigInteger, nullable=False),
    sa.Column("runs", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A run of a job: when it was due, what became of it, the last words of its output, and where the rest is."""

    number: int
    job: str
    command: str
    due_at: int
    started_at: int
    ended_at: int | None = None
    outcome: str = RUNNING
    exit_code: int | None = None
    summary: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a job: since when, in how many runs, and when it was last said (0: never)."""

    job: str
    outcome: str
    since: int
    said_at: int
    runs: int


class ScheduleBook:
    """The runs of all jobs, and the problems that are open."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        _METADATA.create_all(self._engine)

    @staticmethod
    def open(settings: Settings) -> ScheduleBook:
        """The one in the control plane that the settings name."""
        settings.home.mkdir(parents=True, exist_ok=True)
        return ScheduleBook(settings.control_url)

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def begin(self, job: str, command: str, now: int, log: str) -> RunEntry:
        """Record that a run begins; its number is greater than that of any other."""
        return self._add(RunEntry(0, job, command, now, now, log=log))

    def note(self, job: str, command: str, due_at: int, outcome: str, summary: str, now: int) -> RunEntry:
        """Record a run that did not begin."""
        return self._add(RunEntry(0, job, command, due_at, now, now, outcome, summary=summary))

    def end(self, entry: RunEntry) -> None:
        """Record what became of a run."""
        values = {name: value for name, value in asdict(entry).items() if name != "number"}
        with self._engine.begin() as connection:
            connection.execute(sa.update(_RUNS).where(_RUNS.c.number == entry.number).values(**values))

    def lose(self, job: str, now: int) -> list[RunEntry]:
        """End the runs of a job that were never ended; to be called by who holds its lock, so that none goes on."""
        summary = "It was cut off: whoever ran it is gone. What it had not finished is as it was before."
        running = [entry for entry in self.runs(job) if entry.outcome == RUNNING]
        lost = [replace(entry, ended_at=now, outcome=KILLED, summary=summary) for entry in running]
        for entry in lost:
            self.end(entry)
        return lost

    def forget(self, job: str, keep: int) -> list[RunEntry]:
        """Forget all but the newest runs of a job; gives those that are forgotten."""
        query = sa.select(_RUNS).where(_RUNS.c.job == job).order_by(_RUNS.c.number.desc()).offset(keep)
        with self._engine.begin() as connection:
            old = [RunEntry(**row._asdict()) for row in connection.execute(query)]
            connection.execute(sa.delete(_RUNS).where(_RUNS.c.number.in_([entry.number for entry in old])))
        return old

    def runs(self, job: str | None = None, limit: int = 100) -> list[RunEntry]:
        """The newest runs, of one job or of all, the newest first."""
        query = sa.select(_RUNS).order_by(_RUNS.c.number.desc()).limit(limit)
        query = query if job is None else query.where(_RUNS.c.job == job)
        with self._engine.connect() as connection:
            return [RunEntry(**row._asdict()) for row in connection.execute(query)]

    def last_due(self, job: str) -> int | None:
        """When the newest recorded run of a job was due; None: there is none."""
        query = sa.select(sa.func.max(_RUNS.c.due_at)).where(_RUNS.c.job == job)
        with self._engine.connect() as connection:
            found: int | None = connection.execute(query).scalar()
        return found

    def problems(self) -> Mapping[str, Problem]:
        """The open problems by job."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_PROBLEMS).order_by(_PROBLEMS.c.job)).all()
        return {row.job: Problem(**row._asdict()) for row in rows}

    def set_problem(self, job: str, problem: Problem | None) -> None:
        """Replace the open problem of a job; None: it has none."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_PROBLEMS).where(_PROBLEMS.c.job == job))
            if problem is not None:
                connection.execute(sa.insert(_PROBLEMS).values(**asdict(problem)))

    def _add(self, entry: RunEntry) -> RunEntry:
        values: dict[str, Any] = {name: value for name, value in asdict(entry).items() if name != "number"}
        with self._engine.begin() as connection:
            key = connection.execute(sa.insert(_RUNS).values(**values)).inserted_primary_key
        assert key is not None
        return RunEntry(key[0], **values)
