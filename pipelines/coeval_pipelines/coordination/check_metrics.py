"""What checks found last, for Prometheus: parity, replay, rebuild, freshness, drift, quality; and how far loads are.

Checks and loads are commands that end, so whoever serves metrics reads what they left in the control plane. Labels are
names of views, tables and training sets, states and causes; no key and no value is ever one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coeval.errors import CoevalError
from coeval.manifests import read_manifest
from coeval.settings import Settings
from coeval_pipelines.control import ControlPlane, ParityCheck
from coeval_pipelines.control.checks import (
    DRIFT,
    FRESHNESS,
    KINDS,
    PARITY,
    QUALITY,
    REBUILD,
    REPLAY,
    Newest,
    broken_rules,
    newest_runs,
)
from coeval_pipelines.control.loads import LoadBook, LoadRun
from coeval_pipelines.control.parity import ParityBook

_SECONDS = 15.0
"""How long what was read of the control plane is told again."""
_LOG: Any = structlog.get_logger("coeval.checks")
Sample = tuple[tuple[str, ...], float]
"""Labels after the tenant, and the value."""


@dataclass(frozen=True, slots=True)
class Found:
    """The newest parity check of each view version that readers have, with how long their runs took by number
    (seconds), and the views that parity never looked at; by kind and subject, the newest run of every other check; the
    newest batch load of each view."""

    tenant: str
    parity: tuple[ParityCheck, ...] = ()
    unchecked: tuple[str, ...] = ()
    seconds: Mapping[int, float] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Newest]] = field(default_factory=dict)
    loads: tuple[LoadRun, ...] = ()

    def of(self, kind: str) -> Iterator[tuple[str, Newest]]:
        """The newest runs of a kind, by subject."""
        yield from self.runs.get(kind, {}).items()


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric: its name, what it says, its labels after the tenant, and its samples."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Found], Iterable[Sample]]


def _passed(found: Found) -> Iterator[Sample]:
    yield from (((PARITY, check.view), float(check.passed)) for check in found.parity)
    yield from (((kind, subject), float(run.passed)) for kind in KINDS for subject, run in found.of(kind))


def _instants(found: Found) -> Iterator[Sample]:
    yield from (((PARITY, check.view), check.at / 1e6) for check in found.parity)
    yield from (((PARITY, view), 0.0) for view in found.unchecked)
    yield from (((kind, subject), run.at / 1e6) for kind in KINDS for subject, run in found.of(kind))


def _seconds(found: Found) -> Iterator[Sample]:
    known = ((check.view, found.seconds.get(check.run)) for check in found.parity)
    yield from (((PARITY, view), seconds) for view, seconds in known if seconds is not None)
    for kind in KINDS:
        for subject, run in found.of(kind):
            if "seconds" in run.result:
                yield (kind, subject), float(run.result["seconds"])


def _parity(name: str) -> Callable[[Found], Iterable[Sample]]:
    """A count of values, of state parity and of replays."""

    def samples(found: Found) -> Iterator[Sample]:
        yield from (((PARITY, check.view), float(getattr(check, name))) for check in found.parity)
        yield from (((REPLAY, view), float(run.result[name])) for view, run in found.of(REPLAY))

    return samples


def _causes(found: Found) -> Iterator[Sample]:
    checks = [(PARITY, check.view, check.causes) for check in found.parity]
    checks += [(REPLAY, view, run.result["causes"]) for view, run in found.of(REPLAY)]
    for kind, view, causes in checks:
        yield from (((kind, view, cause), float(count)) for cause, count in causes.items())


def _partitions(name: str) -> Callable[[Found], Iterable[Sample]]:
    """A number of every partition of a view's topic; of a view that only batch loads, of its last load."""

    def samples(found: Found) -> Iterator[Sample]:
        for view, run in found.of(FRESHNESS):
            parts = [(str(part["partition"]), part) for part in run.result["partitions"]]
            parts += [("", run.result["load"])] if run.result["load"] else []
            for partition, part in parts:
                if part.get(name) is not None:
                    yield (view, partition), float(part[name])

    return samples


def _drifted(found: Found) -> Iterator[Sample]:
    yield from (((table,), float(len(run.result["drifted"]))) for table, run in found.of(DRIFT))


def _distances(found: Found) -> Iterator[Sample]:
    for table, run in found.of(DRIFT):
        shares = [share for item in run.result["features"] for share in map(_of_limit, item["measures"])]
        if shares:
            yield (table,), max(shares)


def _of_limit(measure: Mapping[str, Any]) -> float:
    limit = max(measure["threshold"], measure["noise"], measure["usual"] or 0.0)
    return measure["value"] / limit if limit else 0.0


def _broken(found: Found) -> Iterator[Sample]:
    for check in _quality(found):
        yield (_table(check),), float(broken_rules(check))


def _failing(found: Found) -> Iterator[Sample]:
    yield from (((_table(check),), float(check["failing"])) for check in _quality(found))


def _quality(found: Found) -> list[Mapping[str, Any]]:
    """The newest check of every table, and of every log the newest batch's."""
    return [run.result for _, run in found.of(QUALITY)]


def _table(check: Mapping[str, Any]) -> str:
    return str(check["subject"])


def _apart(found: Found) -> Iterator[Sample]:
    yield from (((subject,), float(run.result["apart"])) for subject, run in found.of(REBUILD))


def _load(value: Callable[[LoadRun], float | None]) -> Callable[[Found], Iterable[Sample]]:
    """A number of each view's newest load; None: it is not known yet."""

    def samples(found: Found) -> Iterator[Sample]:
        known = ((load.view, value(load)) for load in found.loads)
        yield from (((view,), float(number)) for view, number in known if number is not None)

    return samples


def _load_states(found: Found) -> Iterator[Sample]:
    yield from (((load.view, load.state), 1.0) for load in found.loads)


_CHECK = ("check", "subject")
OF_CHECKS = (
    Shown("coeval_check_passed", "1 where the newest run of a check on this passed", _CHECK, _passed),
    Shown("coeval_check_timestamp_seconds", "When that was; 0: never", _CHECK, _instants),
    Shown("coeval_check_seconds", "How long it took", _CHECK, _seconds),
    Shown("coeval_parity_values", "Values compared", ("check", "view"), _parity("compared")),
    Shown("coeval_parity_values_matched", "Those that are equal", ("check", "view"), _parity("matched")),
    Shown("coeval_parity_values_differing", "Those that are not, by cause", ("check", "view", "cause"), _causes),
    Shown(
        "coeval_view_age_seconds",
        "Age of the newest event that readers get, in event time; of files, of the last load",
        ("view", "partition"),
        _partitions("age"),
    ),
    Shown(
        "coeval_view_waiting_seconds",
        "For how long the first event has been there that readers do not get",
        ("view", "partition"),
        _partitions("waiting"),
    ),
    Shown(
        "coeval_view_behind_events",
        "Records that are not certain to be readable",
        ("view", "partition"),
        _partitions("behind"),
    ),
    Shown("coeval_drift_features", "Features that drifted", ("subject",), _drifted),
    Shown("coeval_drift_distance", "The greatest distance, in times its limit", ("subject",), _distances),
    Shown("coeval_quality_failing_expectations", "Critical rules that are broken", ("subject",), _broken),
    Shown("coeval_quality_failing_rows", "Rows that break them", ("subject",), _failing),
    Shown("coeval_rebuild_rows_differing", "Rows that are others when built again", ("subject",), _apart),
    Shown("coeval_load_state", "1 for the state of a view's newest batch load", ("view", "state"), _load_states),
    Shown("coeval_load_rows", "Tiles and rows that it has to write", ("view",), _load(lambda load: load.rows)),
    Shown("coeval_load_rows_written", "Those that are written", ("view",), _load(lambda load: load.done)),
    Shown("coeval_load_rows_per_second", "How fast that went last", ("view",), _load(lambda load: load.per_second)),
    Shown("coeval_load_timestamp_seconds", "When it last moved", ("view",), _load(lambda load: load.beat_at / 1e6)),
)


def families(found: Found) -> Iterator[Metric]:
    """What was found as metrics. Pure."""
    for shown in OF_CHECKS:
        family = GaugeMetricFamily(shown.name, shown.help, labels=("tenant", *shown.labels))
        for labels, value in shown.samples(found):
            family.add_metric((found.tenant, *labels), value)
        yield family


def newest(settings: Settings, control: ControlPlane, known: Mapping[int, float] = MappingProxyType({})) -> Found:
    """What the newest checks found; `known` are the seconds of parity runs that were asked for before.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the control plane does not answer.
        ManifestError: no catalog is applied.
    """
    manifest = control.released() or read_manifest(settings.manifest_path)
    parity, took = ParityBook(control), dict(known)
    checks = [check for view in manifest.views.values() for check in parity.checks(view.name, view.version, 1)]
    for run in {check.run for check in checks} - took.keys():
        result = parity.run(run)
        if result is not None:
            took[run] = result[1]["seconds"]
    runs = newest_runs(control, manifest)
    unchecked = tuple(sorted(manifest.views.keys() - {check.view for check in checks}))
    kept = LoadBook(control)
    loads = tuple(load for view in manifest.views for load in kept.newest(1, view=view))
    return Found(manifest.tenant, tuple(checks), unchecked, took, runs, loads)


class CheckMetrics(Collector):
    """The metrics of checks, read again when they are asked for and some seconds old. May be shared by threads."""

    def __init__(self, settings: Settings, control: ControlPlane) -> None:
        self._settings = settings
        self._control = control
        self._lock = threading.Lock()
        self._found: Found | None = None
        self._at = 0.0

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told; while the control plane is away, what was known before."""
        with self._lock:
            if self._found is None or time.monotonic() - self._at > _SECONDS:
                self._at = time.monotonic()
                try:
                    known = self._found.seconds if self._found else {}
                    self._found = newest(self._settings, self._control, known)
                except (CoevalError, sa.exc.SQLAlchemyError) as error:
                    _LOG.warning("cannot read what checks found", error=str(error))
            found = self._found
        yield from families(found) if found else ()
