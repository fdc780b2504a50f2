"""Claims about the status of streams: what is called wrong, where it sends the reader, and what Prometheus is told."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from coeval.online.rows import RowColumns, encode_rows
from coeval.spec.canary import canary_record
from coeval.spec.model import Constant, RowView, Sla
from coeval.spec.time import SECOND
from coeval_pipelines.control import Certificate
from coeval_pipelines.coordination.exporter import families
from coeval_pipelines.coordination.stream_model import (
    FRESHNESS,
    JOB_DOWN,
    LAG,
    REFUSED,
    STORE_WIPED,
    Problem,
    RunStatus,
    StreamStatus,
    ViewStatus,
    events_per_second,
    seconds,
)
from coeval_pipelines.coordination.stream_text import as_document, render
from coeval_pipelines.streaming.canary import CanaryMetrics
from coeval_pipelines.streaming.jobs import Checkpoints
from coeval_pipelines.streaming.probes import Sent, Watch, probes, quantile
from tests.support import catalog

NOW = 1_795_000_000_000_000
RUN = RunStatus(
    "payments", 3, ("card_spend",), "running", "", 10.0, "RUNNING", 6, 6, 0, "",
    Checkpoints(NOW - SECOND, 1000, 0.2, 9, 0), 1.0, 0, 0.0, 0, 0.0, 1204.0, 1000, {}, 3, {"5m": 1},
)  # fmt: skip
VIEW = ViewStatus("card_spend", "3f2a", "payments", True, True, NOW, NOW, True, 10.0, 0.05, 0.09, 0.18)


def _problems(run: RunStatus = RUN, view: ViewStatus = VIEW, **away: str) -> list[Problem]:
    return list(StreamStatus(NOW, "", (run,), (view,), away).problems)


def test_a_stream_that_keeps_its_promises_has_no_problem() -> None:
    assert _problems() == []
    assert _problems(replace(RUN, intent="stopped", state="MISSING", lag_seconds=900.0)) == []


def test_what_readers_have_and_nothing_fills_is_said() -> None:
    orphan = replace(VIEW, filled=False)
    assert [problem.then for problem in _problems(RUN, orphan)] == ["coeval stream deploy"]
    assert _problems(replace(RUN, intent="stopped"), orphan) == []


def test_canaries_of_a_source_that_was_stopped_are_not_missed() -> None:
    stopped, slow = replace(RUN, intent="stopped"), replace(VIEW, waiting=600.0)
    assert _problems(stopped, slow) == []
    assert [problem.then for problem in _problems(RUN, slow)] == [FRESHNESS]


def test_nobody_waits_for_a_run_that_fills_beside() -> None:
    beside = replace(RUN, lag_seconds=900.0, serving=False)
    assert _problems(beside) == []
    assert [problem.then for problem in _problems(replace(beside, state="FAILED"))] == [JOB_DOWN]


@pytest.mark.parametrize(
    ("run", "view", "problem"),
    [
        ({"lag_seconds": 41.0}, {}, Problem("payments", "lag 41 s, promised 10 s", LAG)),
        (
            {"state": "RESTARTING", "running_tasks": 0, "failure": "java.lang.Error: disk"},
            {},
            Problem("payments", "run 3 is RESTARTING, 0 of 6 tasks run: java.lang.Error: disk", JOB_DOWN),
        ),
        ({"lag_events": 5, "checkpoint_age": 300.0}, {}, Problem("payments", "no checkpoint for 5 min", LAG)),
        (
            {"rejected": {"bad_literal": 11}},
            {},
            Problem("payments", "11 of 1,000 records rejected since run 3 began", REFUSED),
        ),
        (
            {"late": {"5m": 200}, "duplicates": 0},
            {},
            Problem("payments", "20.0% of events late for 5m tiles since run 3 began, promised 5.0%", REFUSED),
        ),
        (
            {},
            {"ready": False},
            Problem("card_spend", "not ready: it was filled, and the store has lost that", STORE_WIPED),
        ),
        (
            {},
            {"ready": False, "batch_cut": None},
            Problem("card_spend", "never filled", "coeval backfill run card_spend"),
        ),
        ({"log_lost": 7}, {}, Problem("payments", "the topic forgot 7 records that the log had not read", REFUSED)),
        ({}, {"slowest": 12.0}, Problem("card_spend", "canaries take 12 s, promised 10 s", FRESHNESS)),
        ({}, {"waiting": 60.0}, Problem("card_spend", "canaries take 60 s, promised 10 s", FRESHNESS)),
    ],
)
def test_each_fault_is_named_once_and_sends_the_reader_on(
    run: dict[str, object], view: dict[str, object], problem: Problem
) -> None:
    assert _problems(replace(RUN, **run), replace(VIEW, **view)) == [problem]  # type: ignore[arg-type]


def test_what_is_not_known_is_no_problem_but_who_does_not_answer_is() -> None:
    unknown = replace(RUN, state="UNKNOWN", tasks=0, running_tasks=0, lag_seconds=None, lag_events=None, read=None)
    assert _problems(unknown, replace(VIEW, ready=None, slowest=None), flink="Flink does not answer") == [
        Problem("flink", "Flink does not answer", JOB_DOWN)
    ]


def test_events_a_second_are_those_of_the_last_minute() -> None:
    def certificate(age: float, offset: int) -> Certificate:
        return Certificate("payments", 3, {0: offset, 1: 0}, {}, NOW - round(age * SECOND))

    assert events_per_second([], NOW) == 0
    assert events_per_second([certificate(300, 900)], NOW) == 0
    steady = [certificate(age, 10_000 - 100 * age) for age in range(0, 90, 3)]
    assert events_per_second(steady, NOW) == pytest.approx(100)
    after_idling = [certificate(1, 700), certificate(3600, 100)]
    assert events_per_second(after_idling, NOW) == pytest.approx(10)


def test_durations_read_as_a_person_would_say_them() -> None:
    said = [seconds(value) for value in (None, 0.18, 1.26, 41, 119, 300, 9000, 1e6)]
    assert said == ["-", "180 ms", "1.3 s", "41 s", "119 s", "5 min", "2 h", "12 d"]


def test_the_text_marks_what_breaks_a_promise_and_the_json_says_all(capsys: pytest.CaptureFixture[str]) -> None:
    status = StreamStatus(NOW, "ab", (replace(RUN, lag_seconds=41.0),), (VIEW,))
    render(status)
    text = capsys.readouterr().out
    assert "41 s !" in text
    assert "! payments: lag 41 s, promised 10 s  -> docs/runbooks/lag.md" in text
    render(StreamStatus(NOW, "ab", (replace(RUN, expected_rate=2000.0),), (VIEW,)))
    assert "1,204 of 2,000" in capsys.readouterr().out
    render(status, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(as_document(status)))
    assert document["problems"] == [{"subject": "payments", "what": "lag 41 s, promised 10 s", "then": LAG}]
    assert document["views"][0]["stream_from"] == "2026-11-18T11:06:40Z"


class _Fixed(CollectorRegistry):
    def __init__(self, status: StreamStatus) -> None:
        super().__init__()
        self.collect = lambda: families(status)  # type: ignore[method-assign]


def test_prometheus_is_told_what_is_known_and_nothing_else() -> None:
    away = StreamStatus(NOW, "", (replace(RUN, lag_seconds=None),), (VIEW,), {"redis": "away"})
    text = generate_latest(_Fixed(away)).decode()
    assert 'coeval_stream_job_state{run="3",source="payments",state="RUNNING"} 1.0' in text
    assert 'coeval_stream_job_state{run="3",source="payments",state="FAILED"} 0.0' in text
    assert 'coeval_stream_records_total{outcome="good",run="3",source="payments"} 997.0' in text
    assert 'coeval_stream_records_total{outcome="future_dated",run="3",source="payments"} 0.0' in text
    assert 'coeval_stream_late_total{granularity="5m",run="3",source="payments"} 1.0' in text
    assert 'coeval_stream_intended{run="3",source="payments"} 1.0' in text
    assert 'coeval_view_ready{source="payments",version="3f2a",view="card_spend"} 1.0' in text
    assert 'coeval_component_up{component="redis"} 0.0' in text
    assert "coeval_stream_lag_seconds{" not in text


def _watch(freshness: int = 2 * SECOND) -> Watch:
    source = replace(catalog.PAYMENTS, canary=(Constant("card_id", "-1"), Constant("merchant_id", "canary")))
    manifest = replace(catalog.manifest(), event_sources=(source,))
    probe = next(item for item in probes(manifest, source, NOW) if item.view.name == "card_spend")
    return Watch(replace(probe, view=replace(probe.view, sla=Sla(freshness=freshness))))


def test_a_canary_is_seen_once_the_state_of_its_key_is_as_new() -> None:
    source = replace(catalog.PAYMENTS, canary=(Constant("card_id", "-1"), Constant("merchant_id", "canary")))
    manifest = replace(catalog.manifest(), event_sources=(source,))
    found = probes(manifest, source, NOW)
    assert [probe.view.name for probe in found] == ["card_merchant", "card_spend", "latest_payment"]
    assert {probe.key.rpartition(":")[2] for probe in found} == {"i-1", "i-1|scanary"}
    for probe in found:
        assert probe.reached(None) == 0
    assert canary_record(source, NOW).available_at == NOW
    rows = next(probe for probe in found if isinstance(probe.view, RowView))
    assert isinstance(rows.view, RowView)
    one = np.array([1], dtype=np.int64)
    values = {field.name: [None] for field in rows.view.features}
    (update,) = encode_rows(rows.view, RowColumns(["i-1"], one, one * 7, one, one, values))
    assert rows.reached(update.payload) == 7


def test_canaries_that_arrive_are_timed_and_those_that_do_not_are_counted_once() -> None:
    watch = _watch()
    watch.waiting.extend([Sent(100, 1.0), Sent(200, 2.0), Sent(300, 3.0)])
    assert watch.look(199, 3.5) == [2.5]
    assert (watch.late(3.5), watch.late(4.1), watch.late(4.2), watch.late(9.0)) == (0, 1, 0, 1)
    assert watch.age(9.0) == 7.0
    assert watch.look(300, 9.0) == [7.0, 6.0]
    fresh = watch.freshness(9.0, NOW)
    assert (fresh.samples, fresh.p50, fresh.slowest, fresh.waiting, fresh.missed) == (3, 6.0, 7.0, 0.0, 2)


def test_quantiles_of_few_samples_are_samples() -> None:
    assert quantile(deque(), 0.5) is None
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 2.0, 3.0, 3.0]


def test_freshness_is_a_histogram_by_tenant_source_and_view() -> None:
    registry = CollectorRegistry()
    metrics, watch = CanaryMetrics(registry), _watch()
    metrics.observe(watch, watch.samples or [0.12], 1, 0.0)
    text = generate_latest(registry).decode()
    labels = 'source="payments",tenant="bank",view="card_spend"'
    assert f'coeval_freshness_seconds_bucket{{le="0.15",{labels}}} 1.0' in text
    assert f"coeval_canary_missed_total{{{labels}}} 1.0" in text
