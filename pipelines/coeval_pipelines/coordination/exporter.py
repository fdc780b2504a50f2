"""The coordinator's metrics for Prometheus: the status of the streams as gauges, what canaries and checks found.

The status is asked for in a thread of its own: the coordinator may be busy for minutes just when someone looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.records import Reason
from coeval_pipelines.control import RUNNING, ControlPlane, Run
from coeval_pipelines.coordination.check_metrics import CheckMetrics
from coeval_pipelines.coordination.stream_model import HEALTHY, MISSING, UNKNOWN, RunStatus, StreamStatus, ViewStatus
from coeval_pipelines.coordination.stream_status import account_of, stream_status
from coeval_pipelines.streaming.accounting import Accounting
from coeval_pipelines.streaming.canary import Canaries

UPDATE_SECONDS = 5.0
ACCOUNT_SECONDS = 60.0
STATES = (
    *(HEALTHY, "INITIALIZING", "CREATED", "RESTARTING", "RECONCILING", "FAILING", "FAILED", "CANCELLING", "CANCELED"),
    *("FINISHED", "SUSPENDED", MISSING, UNKNOWN),
)
_LOG: Any = structlog.get_logger("coeval.exporter")
Sample = tuple[tuple[str, ...], float | int | None]
"""Labels beside those that every sample of a metric has, and the value; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric of every run or of every view version."""

    name: str
    help: str
    value: Callable[[Any], Iterable[Sample]]
    labels: tuple[str, ...] = ()
    counter: bool = False


def _one(value: Callable[[Any], float | int | None]) -> Callable[[Any], Iterable[Sample]]:
    return lambda item: [((), value(item))]


def _intended(run: RunStatus) -> int:
    return int(run.intent == RUNNING)


def _states(run: RunStatus) -> Iterable[Sample]:
    return [((state,), int(state == run.state)) for state in dict.fromkeys((*STATES, run.state))]


def _outcomes(run: RunStatus) -> Iterable[Sample]:
    if run.read is None:
        return []
    # Every outcome from the beginning on: the first of a kind is an increase too.
    none = dict.fromkeys((reason.value for reason in Reason), 0)
    found = {"good": run.good or 0, "duplicate": run.duplicates, **none, **run.rejected}
    return [((outcome,), count) for outcome, count in found.items()]


RUN_LABELS, VIEW_LABELS = ("source", "run"), ("source", "view", "version")
OF_RUNS = (
    Shown(
        "coeval_stream_lag_events",
        "Records that the online store is not certain to cover",
        _one(lambda r: r.lag_events),
    ),
    Shown("coeval_stream_lag_seconds", "Since the oldest of those became available", _one(lambda r: r.lag_seconds)),
    Shown("coeval_stream_intended", "1 where it is meant to run, 0 where it was stopped", _one(_intended)),
    Shown(
        "coeval_stream_serving",
        "1 where it fills a view version that readers have, 0 where it fills new ones beside",
        _one(lambda r: int(r.serving)),
    ),
    Shown("coeval_stream_promised_seconds", "The least freshness that its views promise", _one(lambda r: r.promise)),
    Shown(
        "coeval_stream_changelog_lag_messages",
        "Changelog messages that are not written online yet",
        _one(lambda r: r.changelog_lag),
    ),
    Shown(
        "coeval_stream_certificate_age_seconds",
        "Since progress was certified last; 0 while that covers all there is",
        _one(lambda r: r.certificate_age),
    ),
    Shown("coeval_stream_events_per_second", "Events taken up over a minute", _one(lambda r: r.events_per_second)),
    Shown(
        "coeval_stream_expected_events_per_second",
        "What the owner of the source expects, where that is said",
        _one(lambda r: r.expected_rate),
    ),
    Shown("coeval_stream_job_state", "1 for the state that the job is in", _states, ("state",)),
    Shown("coeval_stream_tasks", "Tasks of the job", _one(lambda r: r.tasks)),
    Shown("coeval_stream_running_tasks", "Tasks of the job that run", _one(lambda r: r.running_tasks)),
    Shown("coeval_stream_restarts", "Restarts by Flink since the job was submitted", _one(lambda r: r.restarts)),
    Shown("coeval_stream_checkpoint_age_seconds", "Since the newest checkpoint", _one(lambda r: r.checkpoint_age)),
    Shown("coeval_stream_checkpoint_bytes", "State in it", _one(lambda r: r.checkpoints and r.checkpoints.bytes)),
    Shown(
        "coeval_stream_checkpoint_seconds", "How long it took", _one(lambda r: r.checkpoints and r.checkpoints.seconds)
    ),
    Shown(
        "coeval_stream_checkpoints_failed",
        "Failed checkpoints since the job was submitted",
        _one(lambda r: r.checkpoints and r.checkpoints.failed),
    ),
    Shown("coeval_stream_records", "Records read, by what became of them", _outcomes, ("outcome",), counter=True),
    Shown(
        "coeval_stream_late",
        "Good events that came after their tile of a granularity was final",
        lambda run: [((hop,), count) for hop, count in run.late.items()],
        ("granularity",),
        counter=True,
    ),
    Shown(
        "coeval_stream_log_lost_events",
        "Records that the topic has forgotten before the event log read them",
        _one(lambda r: r.log_lost),
    ),
)
OF_VIEWS = (
    Shown(
        "coeval_view_ready", "1 where readers may believe it", _one(lambda v: None if v.ready is None else int(v.ready))
    ),
    Shown("coeval_view_released", "1 where the released manifest names it", _one(lambda v: int(v.released))),
    Shown("coeval_view_promised_seconds", "The freshness that it promises", _one(lambda v: v.promise)),
    Shown(
        "coeval_view_stream_from_timestamp_seconds",
        "S: the stream owns the tiles that start at or after it",
        _one(lambda v: None if v.stream_from is None else v.stream_from / 1e6),
    ),
    Shown(
        "coeval_view_batch_cut_timestamp_seconds",
        "B: batch wrote the tiles that were final at this cut of the log",
        _one(lambda v: None if v.batch_cut is None else v.batch_cut / 1e6),
    ),
)
OF_ALL = {
    "coeval_status_timestamp_seconds": "When all of this was so",
    "coeval_views_ready_share": "Share of the released views that readers may believe",
    "coeval_component_up": "0 for a component that does not answer: flink, kafka, redis",
}
COMPONENTS = ("flink", "kafka", "redis")


def families(status: StreamStatus) -> Iterator[Metric]:
    """The status as metrics; what is not known has no sample. Pure."""
    for shown in OF_RUNS:
        yield _family(shown, RUN_LABELS, ((_run_labels(run), run) for run in status.runs))
    for shown in OF_VIEWS:
        yield _family(shown, VIEW_LABELS, ((_view_labels(view), view) for view in status.views))
    names = iter(OF_ALL.items())
    yield GaugeMetricFamily(*next(names), value=status.at / 1e6)
    released = [view.ready for view in status.views if view.released]
    share = sum(ready is True for ready in released) / len(released) if released and None not in released else None
    yield GaugeMetricFamily(*next(names), value=share)
    up = GaugeMetricFamily(*next(names), labels=("component",))
    for component in COMPONENTS:
        up.add_metric((component,), int(component not in status.unreachable))
    yield up


def _family(shown: Shown, labels: tuple[str, ...], items: Iterable[tuple[tuple[str, ...], Any]]) -> Metric:
    kind = CounterMetricFamily if shown.counter else GaugeMetricFamily
    family = kind(shown.name, shown.help, labels=(*labels, *shown.labels))
    for common, item in items:
        for more, value in shown.value(item):
            if value is not None:
                family.add_metric((*common, *more), value)
    return family


def _run_labels(run: RunStatus) -> tuple[str, ...]:
    return run.source, str(run.run)


def _view_labels(view: ViewStatus) -> tuple[str, ...]:
    return view.source, view.view, view.version


class Exporter(Collector):
    """Serves the metrics of the coordinator, and sends canaries, while it is open. A context manager.

    Without a port (settings.metrics.coordinator_port) nothing is served and the status is not asked for.
    """

    def __init__(self, settings: Settings, control: ControlPlane) -> None:
        self._settings = settings
        self._control = control
        self._status: StreamStatus | None = None
        self._accounts: dict[int, tuple[float, Accounting]] = {}
        self._stop = threading.Event()
        self._open = ExitStack()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.registry.register(CheckMetrics(settings, control))

    def __enter__(self) -> Exporter:
        self._open.enter_context(Canaries(self._settings, self._control, self.registry))
        if port := self._settings.metrics.coordinator_port:
            server, thread = start_http_server(port, registry=self.registry)
            self._open.callback(thread.join)
            self._open.callback(server.server_close)
            self._open.callback(server.shutdown)
            watcher = threading.Thread(target=self._watch, name="exporter", daemon=True)
            watcher.start()
            self._open.callback(watcher.join, 15)
            self._open.callback(self._stop.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        return iter(()) if self._status is None else families(self._status)

    def update(self) -> StreamStatus:
        """Ask how the streams are, and show that from now on.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the control plane does not answer.
        """
        self._status = stream_status(self._settings, self._control, self._account)
        return self._status

    def _account(self, settings: Settings, manifest: Manifest, run: Run) -> Accounting:
        """Totals of a run, at most a minute old: the topic is read from its beginning each time."""
        at, found = self._accounts.get(run.number, (0.0, Accounting()))
        if not at or time.monotonic() - at > ACCOUNT_SECONDS:
            found = account_of(settings, manifest, run)
            self._accounts[run.number] = (time.monotonic(), found)
        return found

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.update()
            except sa.exc.SQLAlchemyError as error:
                _LOG.warning("the control plane does not answer", error=str(error))
            self._stop.wait(UPDATE_SECONDS)
