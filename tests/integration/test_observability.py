"""A stream under watch: metrics of Flink and the coordinator, and canaries that notice a writer that stands still."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from coeval.settings import MetricsSettings, Settings
from coeval.spec.model import Constant, Sla
from coeval.spec.records import Record
from coeval.spec.time import DAY, SECOND, floor_to
from coeval.spec.types import instant
from coeval_parity.freshness.result import State
from coeval_parity.freshness.run import look_now, run_freshness
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.coordination.exporter import Exporter
from coeval_pipelines.coordination.logs_view import Wanted, read_logs
from coeval_pipelines.coordination.runs import await_running
from coeval_pipelines.coordination.stream_model import FRESHNESS, HEALTHY
from coeval_pipelines.coordination.stream_status import stream_status
from coeval_pipelines.coordination.stream_text import as_document, render
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.components import ENGINES
from coeval_pipelines.local.prepare import free_port, free_settings
from tests.support import catalog
from tests.support.offline import produce

ROOT = Path(__file__).parents[2]
DEADLINE = 240.0
PROMISE = 3
VIEWS = ("card_merchant", "card_spend", "latest_payment")
SOURCE = replace(catalog.PAYMENTS, canary=(Constant("card_id", "-1"), Constant("merchant_id", "canary")))
WRITTEN = "coeval_writer_updates_written_total"
_FLINK = re.compile(r"\bflink_\w+")


def _range(count: int) -> str:
    """As many ports in a row as are asked for, free now."""
    while True:
        first = free_port()
        probes = [socket.socket() for _ in range(count)]
        try:
            for offset, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + offset))
            return f"{first}-{first + count - 1}"
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    ports = MetricsSettings(
        writer_port=free_port(), coordinator_port=free_port(), flink_ports=_range(3), canary_seconds=0.5
    )
    settings = free_settings(tmp_path_factory.mktemp("watched")).model_copy(update={"metrics": ports})
    local.up(settings, (*ENGINES, "writer"))
    yield settings
    local.down(settings)


def _scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _await(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def _sample(text: str, name: str, **labels: str) -> float | None:
    for line in text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            return float(line.rpartition(" ")[2])
    return None


def _writer(settings: Settings) -> psutil.Process:
    (status,) = (item for item in local.status(settings).components if item.name == "writer")
    assert status.process is not None
    return psutil.Process(status.process.pid)


def test_canaries_time_every_view_and_miss_a_writer_that_stands_still(watched: Settings) -> None:
    plain = catalog.manifest()
    promised = Sla(freshness=PROMISE * SECOND)
    manifest = replace(
        plain,
        event_sources=(SOURCE,),
        windowed_views=tuple(replace(view, sla=promised) for view in plain.windowed_views),
        row_views=tuple(replace(view, sla=promised) for view in plain.row_views),
    )
    with closing(ControlPlane.open(watched)) as control:
        ids = deploy(watched, manifest, control, floor_to(time.time_ns() // 1000, DAY))
        await_running(watched, ids.values())
        with Exporter(watched, control):

            def metrics() -> str:
                return _scrape(watched.metrics.coordinator_port)

            def count(view: str) -> float:
                return _sample(metrics(), "coeval_freshness_seconds_count", view=view) or 0.0

            _await(lambda: all(count(view) >= 10 for view in VIEWS), metrics)
            _check_coordinator(metrics())
            _check_flink(watched)
            assert (_sample(_scrape(watched.metrics.writer_port), WRITTEN, tenant="bank") or 0) > 0
            _check_status(watched, control)
            at = _pay(watched)
            _await(lambda: _readable(watched) == {at}, lambda: look_now(watched))
            assert State.STALE not in _states(watched)
            assert all(item.canary and item.canary.p99 and item.canary.last for item in look_now(watched))

            def missed(view: str) -> float:
                return _sample(metrics(), "coeval_canary_missed_total", view=view) or 0.0

            before = {view: missed(view) for view in VIEWS}
            writer = _writer(watched)
            writer.send_signal(signal.SIGSTOP)
            try:
                _pay(watched)
                _await(lambda: State.STALE in _states(watched), lambda: look_now(watched))
                _await(lambda: _misses_canaries(watched), lambda: look_now(watched))
                _await(lambda: all(missed(view) > before[view] for view in VIEWS), metrics)
                _await(lambda: _slow(watched, control) == set(VIEWS), lambda: _slow(watched, control))
            finally:
                writer.send_signal(signal.SIGCONT)
            passed = "coeval_check_passed"
            _await(lambda: _sample(metrics(), passed, check="freshness", subject="card_spend") == 0.0, metrics)
            _check_glance(watched)
            waiting = "coeval_canary_waiting_seconds"
            _await(lambda: all((_sample(metrics(), waiting, view=view) or 0) < 1 for view in VIEWS), metrics)
            render(stream_status(watched, control))
    entries = list(read_logs(watched, Wanted()))
    assert {entry.component for entry in entries} >= {"jobmanager", "taskmanager", "writer", "supervisor"}
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)


def _check_glance(settings: Settings) -> None:
    """`coeval status` shows components, streams and checks, and what to type about the one that failed."""
    environ = {**os.environ, **settings.variables()}
    look = [sys.executable, "-c", "from coeval.cli import main; main()", "status"]
    done = subprocess.run([*look, "--json"], env=environ, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert {item["name"] for item in found["components"]} == {*ENGINES, "writer"}
    assert [(run["source"], run["state"]) for run in found["streams"]["runs"]] == [("payments", HEALTHY)]
    checks = {item["check"]: item for item in found["checks"]}
    assert checks["freshness"]["passed"] < checks["freshness"]["subjects"]
    commands = {problem["then"] for problem in found["problems"]}
    assert commands >= {"coeval freshness card_spend", "coeval parity run card_spend"}
    assert done.returncode == (1 if found["healthy"] else 3)
    text = subprocess.run(look, env=environ, capture_output=True, text=True, check=False).stdout
    assert "-> coeval freshness card_spend" in text


def _slow(settings: Settings, control: ControlPlane) -> set[str]:
    """The views that the status sends to the runbook of freshness."""
    return {problem.subject for problem in stream_status(settings, control).problems if problem.then == FRESHNESS}


def _pay(settings: Settings) -> int:
    """One payment, now: when it happened."""
    at = time.time_ns() // 1_000_000 * 1000
    when = instant(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    event = {"event_id": str(at), "paid_at": when, "card_id": "7", "merchant_id": "m"}
    produce(settings.kafka.bootstrap, SOURCE.topic, [Record(json.dumps(event).encode(), at, 0, 0)])
    return at


def _misses_canaries(settings: Settings) -> bool:
    """Whether a run of `coeval freshness` does, which is kept."""
    return any("a canary is under way" in text for item in run_freshness(settings) for text in item.problems)


def _readable(settings: Settings) -> set[int]:
    """The event times up to which the partitions of all views are readable, where there is an event."""
    parts = [part for item in look_now(settings) for part in item.partitions]
    return {part.readable or 0 for part in parts if part.newest is not None}


def _states(settings: Settings) -> set[State]:
    """What `coeval freshness` calls the partitions of all views."""
    return {part.state for item in look_now(settings) for part in item.partitions}


def _check_coordinator(text: str) -> None:
    assert _sample(text, "coeval_stream_job_state", source="payments", state=HEALTHY) == 1.0
    for name in ("lag_events", "lag_seconds", "changelog_lag_messages", "checkpoint_bytes", "restarts"):
        assert _sample(text, f"coeval_stream_{name}", source="payments") is not None, name
    for component in ("flink", "kafka", "redis"):
        assert _sample(text, "coeval_component_up", component=component) == 1.0


def _check_flink(settings: Settings) -> None:
    """Every metric of Flink that an alert or the dashboard uses is served."""
    first, last = (int(port) for port in settings.metrics.flink_ports.split("-"))
    used = {
        name
        for path in (ROOT / "infra/prometheus/alerts.yml", ROOT / "infra/grafana/stream.json")
        for name in _FLINK.findall(path.read_text())
    }
    served = {name for port in range(first, last + 1) for name in _FLINK.findall(_scrape(port))}
    assert used - served == set()


def _check_status(settings: Settings, control: ControlPlane) -> None:
    def timed() -> bool:
        return all(view.p50 is not None for view in stream_status(settings, control).views)

    _await(timed, lambda: stream_status(settings, control))  # it is written less often than the metrics are
    status = stream_status(settings, control)
    (run,) = status.runs
    assert (run.source, run.state, run.running_tasks, run.tasks > 0) == ("payments", HEALTHY, run.tasks, True)
    assert run.lag_events is not None
    assert run.checkpoints is not None
    assert not status.unreachable
    assert {view.view: (view.ready, view.p50 is not None) for view in status.views} == dict.fromkeys(
        VIEWS, (False, True)
    )
    assert json.loads(json.dumps(as_document(status)))["problems"]
