"""Scheduled jobs as processes of their own: run, refused, ended, lost, missed; and who is told over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from coeval.settings import MetricsSettings, NotifySettings, ScheduledJob, Settings
from coeval.spec.time import HOUR, MINUTE
from coeval_pipelines.coordination.locks import is_held
from coeval_pipelines.local.prepare import free_port
from coeval_pipelines.schedule.book import (
    DONE,
    ERROR,
    KILLED,
    MISSED,
    REFUSED,
    RUNNING,
    TIMEOUT,
    RunEntry,
    ScheduleBook,
)
from coeval_pipelines.schedule.jobs import DEFAULTS, jobs, named
from coeval_pipelines.schedule.runner import run_job
from coeval_pipelines.schedule.scheduler import serve
from tests.support import catalog

DEADLINE = 60
LASTING = "stream logs --follow"
OFF = {name: ScheduledJob(command="") for name in DEFAULTS}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        schedule={
            **OFF,
            "well": ScheduledJob(command="schedule history", every="1h"),
            "ill": ScheduledJob(command="parity show 99", every="1h"),
            "lasting": ScheduledJob(command=LASTING, every="1h"),
            "short": ScheduledJob(command=LASTING, every="1h", timeout="1s"),
        },
    )


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.taken.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    server.taken, server.status = [], 200  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _runs(settings: Settings, job: str | None = None) -> list[RunEntry]:
    with closing(ScheduleBook.open(settings)) as book:
        return book.runs(job)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _process(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "coeval.cli", "schedule", "run", *arguments],
        env=os.environ | settings.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _begun(settings: Settings, job: str) -> bool:
    return any(entry.outcome == RUNNING for entry in _runs(settings, job))


def test_a_run_is_recorded_with_its_last_words(settings: Settings) -> None:
    entry = run_job(settings, named(settings.schedule, "well"))
    assert (entry.outcome, entry.exit_code) == (DONE, 0)
    ill = run_job(settings, named(settings.schedule, "ill"))
    assert (ill.outcome, ill.exit_code) == (ERROR, 2)
    assert "no parity run 99" in ill.summary
    assert Path(ill.log).read_text().endswith(ill.summary + "\n")
    assert _runs(settings) == [ill, entry]


def test_a_run_that_takes_too_long_is_ended(settings: Settings) -> None:
    assert run_job(settings, named(settings.schedule, "short")).outcome == TIMEOUT


def test_an_overlapping_run_is_refused_and_one_that_was_killed_is_ended_by_the_next(settings: Settings) -> None:
    process = _process(settings, "lasting")
    try:
        _await(lambda: _begun(settings, "lasting"))
        stop = threading.Event()
        assert run_job(settings, named(settings.schedule, "lasting"), stop).outcome == REFUSED
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What it had begun goes on without it, in a session of its own, and is nobody's: the lock is free.
        stop.set()
        assert run_job(settings, named(settings.schedule, "lasting"), stop).outcome == KILLED
    finally:
        process.kill()
        process.wait()
        _end_orphans(settings)
    outcomes = [entry.outcome for entry in reversed(_runs(settings, "lasting"))]
    assert outcomes == [KILLED, REFUSED, KILLED]
    assert "cut off" in _runs(settings, "lasting")[-1].summary


def _end_orphans(settings: Settings) -> None:
    import psutil

    home = str(settings.home.resolve())
    for process in psutil.process_iter(["environ", "cmdline"]):
        if (process.info["environ"] or {}).get("COEVAL_HOME") == home:
            process.kill()
            process.wait()


def test_a_problem_is_told_once_and_its_end_once(settings: Settings, receiver: ThreadingHTTPServer) -> None:
    base = f"http://127.0.0.1:{receiver.server_address[1]}"
    dead = SecretStr("http://127.0.0.1:9/hook")  # hinders no other
    notify = NotifySettings(webhooks=[dead, SecretStr(f"{base}/hook")], alertmanager=base)
    told = settings.model_copy(update={"notify": notify})
    ill = named(settings.schedule, "ill")
    receiver.status = 503  # type: ignore[attr-defined]
    run_job(told, ill)
    receiver.status = 200  # type: ignore[attr-defined]
    run_job(told, ill)
    run_job(told, ill)
    well = named({**settings.schedule, "ill": settings.schedule["well"]}, "ill")
    run_job(told, well)
    run_job(told, well)
    taken: list[tuple[str, object]] = receiver.taken  # type: ignore[attr-defined]
    hooks = [str(body) for path, body in taken if path == "/hook"]
    assert len(hooks) == 3, hooks
    assert "no parity run 99" in hooks[0]
    assert "2 runs since" in hooks[1]
    assert "well again" in hooks[2]
    alerts = [body for path, body in taken if path == "/api/v2/alerts"]
    now = datetime.now(UTC)
    assert [datetime.fromisoformat(body[0]["endsAt"]) < now for body in alerts] == [False, False, False, True]  # type: ignore[index]


def test_what_was_missed_is_reported_and_made_up_for_once(settings: Settings) -> None:
    job = named(settings.schedule, "well")
    with closing(ScheduleBook.open(settings)) as book:
        before = time.time_ns() // 1000 - 3 * HOUR - MINUTE
        book.end(
            RunEntry(
                book.begin("well", "schedule history", before, "").number, "well", "", before, before, before, DONE
            )
        )
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(settings, {"well": job}, stop))
    thread.start()
    try:
        _await(lambda: any(e.outcome == DONE and e.due_at > before for e in _runs(settings, "well")))
    finally:
        stop.set()
        thread.join()
    again, missed, _ = _runs(settings, "well")
    assert missed.outcome == MISSED
    assert "3 runs" in missed.summary
    assert again.outcome == DONE


def test_a_run_and_a_second_scheduler_end_when_they_are_told_to(settings: Settings) -> None:
    first, run, second = _process(settings), _process(settings, "lasting"), None
    try:
        _await(lambda: _begun(settings, "lasting"))
        _await(lambda: is_held(settings, "schedule"))
        second = _process(settings)
        for process in (run, second):
            process.send_signal(signal.SIGTERM)
        assert run.wait(DEADLINE) != 0
        assert second.wait(DEADLINE) in (0, -signal.SIGTERM)  # perhaps before it listened
        assert _runs(settings, "lasting")[0].outcome == KILLED
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait(DEADLINE) == 0
        for process in (run, second):
            if process is not None:
                process.kill()
                process.wait()


def _scraped(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_the_scheduler_begins_what_is_due_and_ends_what_goes_on_when_it_is_told_to_stop(settings: Settings) -> None:
    every = {
        "well": ScheduledJob(command="schedule history", every="1s"),
        "long": ScheduledJob(command=LASTING, every="1s"),
    }
    metrics = MetricsSettings(scheduler_port=free_port())
    busy = settings.model_copy(update={"schedule": {**OFF, **every}, "metrics": metrics})
    busy.manifest_path.parent.mkdir(parents=True, exist_ok=True)
    busy.manifest_path.write_text(catalog.manifest().to_json())
    process = _process(busy)
    try:
        _await(lambda: 'subject="card_spend"' in _scraped(metrics.scheduler_port))
        _await(lambda: any(entry.outcome == DONE for entry in _runs(busy, "well")))
        _await(lambda: {RUNNING, REFUSED} <= {entry.outcome for entry in _runs(busy, "long")})
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    assert KILLED in {entry.outcome for entry in _runs(busy, "long")}
    assert RUNNING not in {entry.outcome for entry in _runs(busy)}
    assert sorted(jobs(busy.schedule)) == ["long", "well"]
