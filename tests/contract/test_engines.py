"""What went through the stream is also in the log, every record accounted for; and batch corrects what the stream left.

The same records as in `test_contract.test_flink`, duplicates, rejects and garbage among them, ingested by Spark.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from coeval.client import open_redis
from coeval.reference.oracle import is_late
from coeval.spec.model import WindowedView
from coeval.spec.records import Event, Ingested, ingest
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.fill import Asked, fill
from coeval_pipelines.coordination.stagers import stage_in_session
from coeval_pipelines.offline.event_log import ingest_topic, read_log, totals
from coeval_pipelines.streaming.accounting import read_accounting
from tests.support.contract import catalog
from tests.support.contract.adapters.flink import Streamed, records
from tests.support.contract.adapters.spark_load import loaded
from tests.support.contract.cases import Case, parse_instant
from tests.support.contract.compare import differences, report, truth
from tests.support.contract.store import read_at_instants

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CUT = parse_instant("2026-03-20T11:00:00Z")
"""After what most written cases ask, and not long after: their tiles are still in the rings."""
CORRECTED = ("by_kinds", "by_pair", "latest", "of_whole", "spans")


@pytest.fixture(scope="module")
def truths(streamed: Streamed) -> Ingested:
    return ingest(catalog.EVENTS, records(streamed.cases))


@pytest.fixture(scope="module")
def log(streamed: Streamed, spark: SparkSession) -> SparkSession:
    ingest_topic(spark, streamed.settings, catalog.manifest(), catalog.EVENTS)
    return spark


def test_the_log_accounts_for_every_record(streamed: Streamed, log: SparkSession, truths: Ingested) -> None:
    report = totals(streamed.settings, catalog.manifest(), catalog.EVENTS)
    assert report.read == len(records(streamed.cases))
    assert report.read == report.good + sum(report.rejected.values()) + report.duplicates
    assert (report.good, report.duplicates) == (len(truths.good), len(truths.duplicates))
    assert report.rejected == Counter(reason.value for _, reason in truths.rejected)
    assert len(report.rejected) >= 4
    rows = read_log(log, streamed.settings, catalog.manifest(), catalog.EVENTS).collect()
    found = {(row.event_id, row.partition, row.offset, row.event_ts, row.available_at) for row in rows}
    assert found == {(e.event_id, e.partition, e.offset, e.event_ts, e.available_at) for e in truths.good}


def test_the_stream_accounts_for_every_record_as_the_log_does(streamed: Streamed, truths: Ingested) -> None:
    with closing(ControlPlane.open(streamed.settings)) as control:
        run = control.runs(catalog.EVENTS.name)[0]
    found = read_accounting(streamed.settings.kafka, catalog.manifest(), run)
    assert found.read == len(records(streamed.cases))
    assert (found.good, found.duplicates) == (len(truths.good), len(truths.duplicates))
    assert found.rejected == Counter(reason.value for _, reason in truths.rejected)
    hops = {aggregate.hop for view in catalog.manifest().windowed_views for aggregate in view.aggregates}
    assert set(found.late) >= {hop for view in run.views for hop in _hops(view)}
    for hop, late in found.late.items():
        assert hop in hops
        wanted = sum(is_late(event, hop, catalog.EVENTS.allowed_lateness) for event in truths.good)
        # Of one event in two partitions the stream may have taken the other copy.
        assert abs(late - wanted) <= len(truths.duplicates)
    assert sum(found.late.values()) > 0


def _hops(view: str) -> set[int]:
    found = catalog.VIEWS[view]
    return {aggregate.hop for aggregate in found.aggregates} if isinstance(found, WindowedView) else set()


def test_a_batch_correction_brings_the_late_events_online(streamed: Streamed, log: SparkSession) -> None:
    manifest = catalog.manifest()
    cases = [case for case in streamed.cases if case.view in CORRECTED]
    with closing(ControlPlane.open(streamed.settings)) as control, closing(open_redis(streamed.settings)) as client:
        stage = stage_in_session(log, streamed.settings, manifest, control)
        views = [manifest.views[name] for name in CORRECTED]
        fill(streamed.settings, manifest, control, views, stage, Asked(cut=CUT))
        found = read_at_instants(client, manifest, cases)
    wrong = differences(cases, [{name: (value, None) for name, (value, _) in item.items()} for item in found], _loaded)
    assert not wrong, report("stream and batch", wrong, len(cases))
    changed = [case for case in cases if truth(case, _loaded) != truth(case, streamed.adapter.counts)]
    assert len(changed) > 5


def _loaded(case: Case, event: Event, hop: int) -> bool:
    return loaded(case, event, hop, CUT)
