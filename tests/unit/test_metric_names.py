"""Claims about metrics: what alerts, dashboards and pages name is what the code serves; every alert has a runbook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from coeval.server.meters import Meters as ServerMeters
from coeval_pipelines.coordination.check_metrics import OF_CHECKS
from coeval_pipelines.coordination.exporter import OF_ALL, OF_RUNS, OF_VIEWS, RUN_LABELS, VIEW_LABELS
from coeval_pipelines.coordination.stream_model import FRESHNESS, JOB_DOWN, LAG, REFUSED, STORE_WIPED
from coeval_pipelines.streaming.canary import CanaryMetrics
from coeval_pipelines.streaming.meters import Meters

ROOT = Path(__file__).parents[2]
ALERTS, DASHBOARD = ROOT / "infra/prometheus/alerts.yml", ROOT / "infra/grafana/stream.json"
PAGE = (ROOT / "docs/observability.md").read_text()
_NAME = re.compile(r"\b(?:coeval|flink)_[a-z]\w*")


def _alerts() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in _alerts())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def _used() -> set[str]:
    return {name for text in _expressions() for name in _NAME.findall(re.sub(r'"[^"]*"', "", text))}


def _registered(registry: CollectorRegistry) -> Iterator[tuple[str, tuple[str, ...]]]:
    for collector in registry._collector_to_names:
        for metric in collector.describe():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            yield name, tuple((collector if hasattr(collector, "_labelnames") else metric)._labelnames)


def _served() -> dict[str, tuple[str, ...]]:
    canaries = CollectorRegistry()
    CanaryMetrics(canaries)
    server = ServerMeters(lambda: ()).registry
    found = dict([*_registered(canaries), *_registered(Meters().registry), *_registered(server)])
    for shown, labels in [*((item, RUN_LABELS) for item in OF_RUNS), *((item, VIEW_LABELS) for item in OF_VIEWS)]:
        found[f"{shown.name}_total" if shown.counter else shown.name] = (*labels, *shown.labels)
    found |= {shown.name: ("tenant", *shown.labels) for shown in OF_CHECKS}
    return found | {name: ("component",) if name.endswith("_up") else () for name in OF_ALL}


def test_every_metric_of_ours_that_is_used_is_served() -> None:
    served = {name for base in _served() for name in (base, f"{base}_bucket", f"{base}_count", f"{base}_sum")}
    assert {name for name in _used() if name.startswith("coeval_")} - served == set()


def test_every_metric_that_is_served_is_on_the_page_with_its_labels() -> None:
    rows = dict(re.findall(r"^\| `(coeval_\w+)` \| ([^|]*) \|", PAGE, re.MULTILINE))
    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows.items()} == _served()


def test_flinks_metrics_that_are_used_are_on_the_page() -> None:
    assert {name for name in _used() if name.startswith("flink_")} == set(re.findall(r"^\| `(flink_\w+)`", PAGE, re.M))


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    assert (ROOT / alert["annotations"]["runbook"]).is_file()
    expression = str(alert["expr"])
    assert expression.count("(") == expression.count(")")


def test_runbooks_that_the_status_names_exist_and_type_only_commands_that_exist() -> None:
    from typer.main import get_command

    from coeval.cli.app import APP, _register

    _register()
    known = _commands(get_command(APP), ())
    for path in (FRESHNESS, JOB_DOWN, LAG, REFUSED, STORE_WIPED, "docs/runbooks/serving.md", "docs/runbooks/parity.md"):
        text = (ROOT / path).read_text()
        typed = {tuple(line.split()) for line in re.findall(r"\bcoeval ((?:[a-z]+ ?){1,2})", text)}
        assert typed
        for words in typed:
            assert words in known or words[:1] in known, (path, words)


def _commands(command: object, path: tuple[str, ...]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for name, item in getattr(command, "commands", {}).items():
        below = _commands(item, (*path, name))
        found |= below or {(*path, name)}
    return found


def test_a_run_that_was_stopped_on_purpose_wakes_nobody() -> None:
    of_runs = ("coeval_stream_lag_", "coeval_stream_job_state", "coeval_stream_checkpoint_age", "coeval_canary_missed")
    paging = [alert for alert in _alerts() if any(name in alert["expr"] for name in of_runs)]
    assert len(paging) == 4
    assert all("coeval_stream_intended == 1" in alert["expr"] for alert in paging)


@pytest.mark.parametrize("check", ["parity", "rebuild", "freshness"])
def test_a_check_that_nobody_makes_any_more_is_said(check: str) -> None:
    old = f'time() - coeval_check_timestamp_seconds{{check="{check}"}} > '
    assert any(old in alert["expr"] for alert in _alerts())


def test_a_replay_of_the_past_wakes_nobody_and_is_over_after_a_day() -> None:
    found = {alert["alert"]: alert for alert in _alerts() if "replay" in alert["expr"]}
    assert [*found] == ["CoevalReplayFails"]
    assert found["CoevalReplayFails"]["labels"] == {"severity": "ticket"}
    assert 'time() - coeval_check_timestamp_seconds{check="replay"} < 86400' in found["CoevalReplayFails"]["expr"]


def test_prometheus_scrapes_every_port_that_it_is_told_of() -> None:
    text = (ROOT / "infra/prometheus/prometheus.yml").read_text()
    (first, last) = re.findall(r"COEVAL_METRICS__FLINK_PORTS=(\d+)-(\d+)", text)[0]
    (flink,) = [job for job in yaml.safe_load(text)["scrape_configs"] if job["job_name"] == "flink"]
    (targets,) = (item["targets"] for item in flink["static_configs"])
    assert targets == [f"127.0.0.1:{port}" for port in range(int(first), int(last) + 1)]
