"""What the benchmarks compute of what they measure: rates, percentiles, slopes; and that the limit is the same job."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import soak
from benchmarks.bench_freshness import faultless
from benchmarks.limit import forgetful
from benchmarks.lines import Line, draw
from benchmarks.probe import probes, quantiles, shifted
from benchmarks.rig import between_commits, rate_of
from coeval_pipelines.control import Run
from coeval_pipelines.streaming.sql import source_job
from tests.support.payments.catalog import manifest


def test_the_limit_is_the_same_job_with_every_sink_forgetting() -> None:
    made = manifest(10)
    job = source_job(made, Run(1, "payments", made.hash, tuple(made.views), dict.fromkeys(made.views, 0), {}), {})
    limit = forgetful(job)
    pairs = list(zip(job.statements, limit.statements, strict=True))
    changed = [ours for ours, theirs in pairs if ours != theirs]
    assert len(changed) > len(made.views)
    assert all("@changelog`" in item or "@accounting`" in item for item in changed)
    tables = [item for item in limit.statements if item.startswith("CREATE TEMPORARY TABLE")]
    assert sum("'connector' = 'kafka'" in item for item in tables) == 1
    assert all("blackhole" in item for item in tables if "@topic`" not in item)


def test_a_rate_leaves_out_the_first_half() -> None:
    slow_then_fast = [(0.0, 0), (10.0, 200), (11.0, 600), (12.0, 1000), (13.0, 1000)]
    assert rate_of(slow_then_fast, 1000).steady == pytest.approx(400)
    assert rate_of(slow_then_fast, 1000).seconds == 12.0
    assert rate_of([(0.0, 0), (5.0, 1000)], 1000).steady == pytest.approx(200)


def test_a_rate_between_commits_leaves_out_the_first_half_and_the_last_wait() -> None:
    commits = [(0.0, 0), (9.0, 300), (10.0, 500), (11.0, 700), (12.0, 900), (15.0, 1000)]
    assert between_commits(commits) == pytest.approx(200)
    assert between_commits([(0.0, 0), (5.0, 1000)]) == pytest.approx(200)


def test_an_event_that_is_never_seen_counts_as_the_longest_wait() -> None:
    assert quantiles([0.1] * 98 + [None] * 2)["p99_ms"] == 60_000
    assert quantiles([0.1] * 100) == {"p50_ms": 100.0, "p99_ms": 100.0, "max_ms": 100.0}


def test_probes_know_how_many_events_their_card_has_had() -> None:
    counts: Counter[int] = Counter()
    spec = faultless(1, 100, 60, 0)
    found = probes(spec, 10, counts) + probes(spec, 10, counts)
    assert counts.total() == 2 * spec.events
    assert len(found) == 2 * spec.events / 10
    last = {probe.card: probe.count for probe in found}
    assert all(count <= counts[card] for card, count in last.items())
    assert max(last.values()) > spec.events * 0.9


def test_moving_a_spec_moves_its_probes_alike() -> None:
    spec, by = faultless(1, 100, 20, 0), 1_767_225_600_123_000
    moved = probes(replace(spec, start=by), 10, Counter())
    assert shifted(probes(spec, 10, Counter()), by) == moved


@pytest.mark.parametrize("percent", [0.0, 7.0, -3.0])
def test_a_slope_is_percent_of_the_mean_an_hour_over_the_second_half(percent: float) -> None:
    minutes = np.linspace(0, soak.MINUTES, 361)
    late = 100 * (1 + percent / 100 * (minutes - soak.MINUTES * 0.75) / 60)
    values = np.where(minutes < soak.MINUTES / 2, minutes * 1000, late)
    assert soak.slope(minutes.tolist(), values.tolist()) == pytest.approx(percent, abs=0.02)


def test_a_gap_in_the_samples_is_left_out() -> None:
    samples = soak.Samples()
    for minute in range(60):
        samples.add(minute, {"a": 5.0} | ({"b": 7.0} if minute > 40 and minute % 2 else {}))
    assert soak.slope(samples.minutes, samples.values["b"]) == pytest.approx(0.0, abs=0.01)
    assert (
        draw([Line(name, samples.minutes, values) for name, values in samples.values.items()], "min").count("<poly")
        == 2
    )
