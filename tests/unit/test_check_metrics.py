"""What Prometheus is told of checks: the newest of each, out of what their own runs have kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.utils import floatToGoString
from typer.testing import CliRunner

from coeval.settings import Settings
from coeval_parity.drift.result import DriftResult, FeatureDrift, Measure
from coeval_parity.drift.rules import Kind
from coeval_parity.freshness.result import LoadFreshness, PartitionFreshness, State, ViewFreshness
from coeval_parity.quality.result import Checked, QualityResult, TableCheck
from coeval_parity.rebuild.result import Outcome, SetRebuild
from coeval_pipelines.control import ControlPlane, ParityCheck
from coeval_pipelines.control.checks import DRIFT, FRESHNESS, QUALITY, REBUILD, REPLAY, CheckBook
from coeval_pipelines.control.loads import CANCELLED, FIRST_FILL, LoadBook
from coeval_pipelines.control.parity import KEPT_RUNS, ParityBook
from coeval_pipelines.coordination.check_metrics import CheckMetrics, newest
from tests.support import catalog

AT = 1_795_000_000_000_000
MANIFEST = catalog.manifest()
SPEND = MANIFEST.views["card_spend"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path)
    found.manifest_path.write_text(MANIFEST.to_json())
    return found


@pytest.fixture
def control(settings: Settings) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(settings)) as found:
        yield found


def _parity(control: ControlPlane, differing: int, version: str = SPEND.version) -> None:
    breaches = ("over",) if differing else ()
    causes = {"late": 2, "unexplained": differing}
    check = ParityCheck(SPEND.name, version, AT, 10, 100, 98 - differing, causes, breaches)
    ParityBook(control).record(AT, MANIFEST.hash, not differing, {"seconds": 1.5}, [check])


def _lines(settings: Settings, control: ControlPlane) -> set[str]:
    registry = CollectorRegistry()
    registry.register(CheckMetrics(settings, control))
    return {line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"}


def test_parity_is_told_by_view_and_cause_as_the_newest_run_of_what_readers_have_found_it(
    settings: Settings, control: ControlPlane
) -> None:
    assert _lines(settings, control) == {
        f'coeval_check_timestamp_seconds{{check="parity",subject="{view}",tenant="bank"}} 0.0'
        for view in MANIFEST.views
    }
    _parity(control, 3)
    _parity(control, 1)
    _parity(control, 7, version="older")
    lines = _lines(settings, control)
    at = 'check="parity",subject="card_spend",tenant="bank"'
    assert f"coeval_check_passed{{{at}}} 0.0" in lines
    assert f"coeval_check_timestamp_seconds{{{at}}} {floatToGoString(AT / 1e6)}" in lines
    assert f"coeval_check_seconds{{{at}}} 1.5" in lines
    assert 'coeval_parity_values{check="parity",tenant="bank",view="card_spend"} 100.0' in lines
    assert 'coeval_parity_values_matched{check="parity",tenant="bank",view="card_spend"} 97.0' in lines
    of = 'check="parity",tenant="bank",view="card_spend"'
    assert f'coeval_parity_values_differing{{cause="unexplained",{of}}} 1.0' in lines
    assert len([line for line in lines if line.startswith("coeval_parity_values_differing")]) == 2


def _others(control: ControlPlane) -> None:
    book = CheckBook(control)
    counts = {"keys": 5, "compared": 50, "matched": 49, "causes": {"late": 1}, "seconds": 2.5}
    book.record(REPLAY, "card_spend", AT, "", passed=True, result=counts)
    book.record(REPLAY, "of an older catalog", AT, "", passed=False, result=counts)
    one = SetRebuild("march", "risk", AT, "", 9, Outcome.UNEXPLAINED, apart=4, seconds=0.5)
    book.record(REBUILD, "training:march", AT, "", passed=one.passed, result=one.to_document(values=False))
    parts = (
        PartitionFreshness(0, State.CURRENT, AT, AT, 1.0, 0.0, 0),
        PartitionFreshness(1, State.STALE, None, AT, None, 60.0, 7),
    )
    view = ViewFreshness("bank", "card_spend", SPEND.version, "payments", AT, 10.0, True, parts)
    book.record(FRESHNESS, view.view, AT, "", passed=view.ok, result=view.to_document())
    load = LoadFreshness(State.CURRENT, AT, 3600.0, "", 0.0)
    files = ViewFreshness("bank", "latest_payment", "", "payments", AT, 10.0, True, load=load)
    book.record(FRESHNESS, files.view, AT, "", passed=files.ok, result=files.to_document())
    measures = (Measure("psi", 0.5, 0.25, 0.1), Measure("ks", 0.1, 0.15, 0.1, 0.2))
    drift = DriftResult(
        AT, "", "log:payments", "weeks", None, None, 8, (FeatureDrift("amount", Kind.NUMBER, 1, 1, measures),)
    )
    book.record(DRIFT, drift.window, AT, "", passed=drift.passed, result=drift.to_document())
    rules = (
        Checked("expect_a", "amount", "critical", False, 3),
        Checked("expect_b", "amount", "warning", False, 3),
        Checked("expect_c", "", "critical", True),
    )
    quality = QualityResult(AT, "", (TableCheck("log:payments", 1, "pandas", 9, rules, 3),))
    book.record(QUALITY, "log:payments", AT, "", passed=quality.passed, result=quality.to_document())


def test_every_other_check_is_told_out_of_what_it_keeps(settings: Settings, control: ControlPlane) -> None:
    _others(control)
    lines = _lines(settings, control)
    for line in (
        'coeval_check_passed{check="replay",subject="card_spend",tenant="bank"} 1.0',
        'coeval_check_seconds{check="replay",subject="card_spend",tenant="bank"} 2.5',
        'coeval_parity_values_differing{cause="late",check="replay",tenant="bank",view="card_spend"} 1.0',
        'coeval_check_passed{check="rebuild",subject="training:march",tenant="bank"} 0.0',
        'coeval_rebuild_rows_differing{subject="training:march",tenant="bank"} 4.0',
        'coeval_check_passed{check="freshness",subject="card_spend",tenant="bank"} 0.0',
        'coeval_view_age_seconds{partition="0",tenant="bank",view="card_spend"} 1.0',
        'coeval_view_waiting_seconds{partition="1",tenant="bank",view="card_spend"} 60.0',
        'coeval_view_behind_events{partition="1",tenant="bank",view="card_spend"} 7.0',
        'coeval_view_age_seconds{partition="",tenant="bank",view="latest_payment"} 3600.0',
        'coeval_check_passed{check="drift",subject="log:payments",tenant="bank"} 0.0',
        'coeval_drift_features{subject="log:payments",tenant="bank"} 1.0',
        'coeval_drift_distance{subject="log:payments",tenant="bank"} 2.0',
        'coeval_quality_failing_expectations{subject="log:payments",tenant="bank"} 1.0',
        'coeval_quality_failing_rows{subject="log:payments",tenant="bank"} 3.0',
    ):
        assert line in lines
    assert not any("older catalog" in line for line in lines)
    assert not any(line.startswith('coeval_view_age_seconds{partition="1"') for line in lines)


def test_how_far_the_newest_load_of_each_view_is_is_told(settings: Settings, control: ControlPlane) -> None:
    book = LoadBook(control)
    for _ in range(2):
        run = book.begin(SPEND.name, SPEND.version, MANIFEST.hash, AT, FIRST_FILL, "test", AT)
        book.move(run.run, CANCELLED, "another", AT)
    run = book.begin(SPEND.name, SPEND.version, MANIFEST.hash, AT, FIRST_FILL, "test", AT)
    book.stage(run.run, 3, 900, "life")
    book.beat(run.run, 600, 150.0, AT)
    lines = {line for line in _lines(settings, control) if line.startswith("coeval_load")}
    assert lines == {
        f'coeval_load_state{{state="{book.get(run.run).state}",tenant="bank",view="card_spend"}} 1.0',
        'coeval_load_rows{tenant="bank",view="card_spend"} 900.0',
        'coeval_load_rows_written{tenant="bank",view="card_spend"} 600.0',
        'coeval_load_rows_per_second{tenant="bank",view="card_spend"} 150.0',
        f'coeval_load_timestamp_seconds{{tenant="bank",view="card_spend"}} {floatToGoString(AT / 1e6)}',
    }


def _plain(metric: object) -> tuple[str, list[tuple[dict[str, str], float]]]:
    samples = getattr(metric, "samples", [])
    return getattr(metric, "name", ""), [(sample.labels, sample.value) for sample in samples]


def test_what_was_known_is_told_while_the_control_plane_is_away(settings: Settings, control: ControlPlane) -> None:
    _parity(control, 0)
    metrics = CheckMetrics(settings, control)
    first = [_plain(item) for item in metrics.collect()]
    metrics._at = float("-inf")
    (settings.home / "control.db").unlink()
    control.close()
    assert [_plain(item) for item in metrics.collect()] == first
    assert first


def test_how_long_a_run_took_is_asked_for_once(settings: Settings, control: ControlPlane) -> None:
    _parity(control, 0)
    assert newest(settings, control).seconds == {1: 1.5}
    for _ in range(KEPT_RUNS):
        ParityBook(control).record(AT, MANIFEST.hash, True, {})
    # Its document is let go.
    assert newest(settings, control).seconds == {}
    assert newest(settings, control, {1: 9.0}).seconds == {1: 9.0}


def test_the_command_prints_it_for_a_file(
    settings: Settings, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    from coeval_pipelines.schedule.commands import register

    app = typer.Typer()
    register(app)
    _parity(control, 0)
    monkeypatch.setattr("coeval.settings.load_settings", lambda: settings)
    done = CliRunner().invoke(app, ["schedule", "metrics"])
    assert done.exit_code == 0
    assert 'coeval_check_passed{check="parity",subject="card_spend",tenant="bank"} 1.0' in done.stdout
