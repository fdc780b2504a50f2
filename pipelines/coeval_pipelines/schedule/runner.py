"""One run of a job: under its lock, in a process of its own, with an entry in the book; who is to be told is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from coeval.errors import CheckFailedError, EngineError
from coeval.settings import Settings
from coeval.spec.time import parse_duration
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.schedule.book import DONE, ERROR, FAILED, KILLED, REFUSED, TIMEOUT, RunEntry, ScheduleBook
from coeval_pipelines.schedule.jobs import Job
from coeval_pipelines.schedule.notices import Notice, judged
from coeval_pipelines.schedule.notify import tell_alertmanager, tell_webhooks

_LAST_LINES = 8
NOT_OVER = "The run before it is not over."
_LOOK_SECONDS = 0.2
"""How often it is looked whether a run is over."""
_KILL_SECONDS = 30.0
"""How long a run that is told to end may take to do so."""
_KEPT_RUNS = 500
"""Of each job, with their logs."""
_REPORT = re.compile(r"report (\S+)")
_ERROR = re.compile(r"coeval: [A-Z_]+: ")
_SAID = re.compile(rf"{_ERROR.pattern}|  -> |(\w+: )?report \S+$|\w+ (passed|failed): ")
"""Lines without a single value: errors, where a page is, verdicts."""
_VALUES = {"--json", "--values", "explain", "get", "rows", "show"}
"""Words of commands that print single values."""


def run_job(settings: Settings, job: Job, stop: threading.Event | None = None) -> RunEntry:
    """Run a job once, unless another process is at it: then the run is refused. Blocks until it is over.

    `stop` ends it, as Ctrl-C would. Being killed leaves an entry that the next run ends.
    """
    now = _now()
    with closing(ScheduleBook.open(settings)) as book:
        with only_one(settings, f"schedule-{job.name}", wait=False) as held:
            if not held:
                return book.note(job.name, " ".join(job.command), now, REFUSED, NOT_OVER, now)
            for lost in book.lose(job.name, now):
                _judge(settings, book, job, lost)
            entry = _run(settings, book, job, stop or threading.Event())
        _judge(settings, book, job, entry)
        return entry


def record(settings: Settings, job: Job, due_at: int, outcome: str, summary: str) -> RunEntry:
    """Record a run that did not begin, and tell who is to be told."""
    with closing(ScheduleBook.open(settings)) as book:
        entry = book.note(job.name, " ".join(job.command), due_at, outcome, summary, _now())
        _judge(settings, book, job, entry)
        return entry


def _run(settings: Settings, book: ScheduleBook, job: Job, stop: threading.Event) -> RunEntry:
    started = _now()
    log = settings.home.resolve() / "local" / "schedule" / f"{job.name}-{started}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    entry = book.begin(job.name, " ".join(job.command), started, str(log))
    with log.open("ab") as output:  # an erasure empties it
        code, outcome = _ended(settings, job, output, stop)
    entry = replace(entry, ended_at=_now(), outcome=outcome, exit_code=code, summary=_last_words(job, log, outcome))
    book.end(entry)
    for old in book.forget(job.name, _KEPT_RUNS):
        Path(old.log).unlink(missing_ok=True)
    return entry


def _ended(settings: Settings, job: Job, output: IO[bytes], stop: threading.Event) -> tuple[int | None, str]:
    """The exit code of the command, and what that means."""
    deadline = time.monotonic() + job.timeout
    process = subprocess.Popen(
        [sys.executable, "-m", "coeval.cli", *job.command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **settings.variables(), **settings.secrets()},
        start_new_session=True,
    )
    try:
        while process.poll() is None and time.monotonic() < deadline and not stop.wait(_LOOK_SECONDS):
            pass
    finally:
        ended = process.poll() is not None
        _end(process)
    code = process.returncode
    if not ended:
        return code, KILLED if stop.is_set() else TIMEOUT
    return code, KILLED if code < 0 else {0: DONE, 1: FAILED}.get(code, ERROR)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started: as Ctrl-C does, then for good."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_KILL_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _last_words(job: Job, log: Path, outcome: str) -> str:
    """The end of an output, without what draws bars; where single values may be in it, only the lines without any."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    said = [line.rstrip() for line in lines if line.strip()]
    return "\n".join(last_words(said, job.command, outcome))


def last_words(lines: Sequence[str], command: Sequence[str], outcome: str) -> list[str]:
    """The last lines of an output that carry no single value: of a run that failed, its error above all.

    They are kept in the control plane and sent to whoever is told, where keys and values of features must not go.
    """
    whole = 0 if outcome == DONE else max((n for n, line in enumerate(lines) if _ERROR.match(line)), default=len(lines))
    if _VALUES & set(command):
        whole = len(lines)
    return [line for n, line in enumerate(lines) if n >= whole or _SAID.match(line)][-_LAST_LINES:]


def _judge(settings: Settings, book: ScheduleBook, job: Job, entry: RunEntry) -> None:
    """Keep what is wrong with the job now, and say so if it is time to."""
    known = book.problems().get(job.name)
    problem, say = judged(known, entry, parse_duration(settings.notify.repeat))
    about = problem or known
    if about is None:
        return
    notice = Notice(entry, about, problem is None, _until(job), job.runbook, _report(settings, entry))
    tell_alertmanager(settings.notify, notice)
    told = say and tell_webhooks(settings.notify, notice)
    if problem is None and say and not told:
        return  # Its end is said by the next run that is well.
    if problem is not None and told:
        problem = replace(problem, said_at=entry.ended_at or entry.started_at)
    book.set_problem(job.name, problem)


def _until(job: Job) -> int:
    """When the next run of a job will be over, at the latest."""
    now = datetime.now(UTC)
    begins = job.after(now) or now + timedelta(days=1)
    return int((begins.timestamp() + job.timeout) * 1e6)


def _report(settings: Settings, entry: RunEntry) -> str:
    """Where the page is that the command says it wrote, as it is called from elsewhere."""
    found = _REPORT.search(entry.summary)
    if found is None or not settings.notify.link:
        return found[1] if found else ""
    return f"{settings.notify.link.rstrip('/')}/{Path(found[1]).name}"


def check(entry: RunEntry) -> None:
    """See to it that a run went well.

    Raises:
        CheckFailedError: it made a check, which failed.
        EngineError: anything else became of it; its last words are in the message.
    """
    kind = CheckFailedError if entry.outcome == FAILED else EngineError
    if entry.outcome != DONE:
        raise kind(f"{entry.job}: {entry.outcome}. {entry.summary}", f"Its whole output: {entry.log or 'none'}")


def _now() -> int:
    return time.time_ns() // 1000
