"""`coeval status`: what it says of checks, what it does where something is away, and its exit code."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from coeval.settings import KafkaSettings, Settings
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_pipelines.control import ControlPlane, ParityCheck
from coeval_pipelines.control.checks import (
    DRIFT,
    FRESHNESS,
    KINDS,
    REBUILD,
    CheckBook,
    Newest,
    by_table,
    newest_runs,
)
from coeval_pipelines.control.gate import Gate
from coeval_pipelines.control.parity import ParityBook
from coeval_pipelines.coordination.check_status import CheckStatus, check_problems, check_row, check_status, recent
from coeval_pipelines.coordination.status_commands import Glance, register
from coeval_pipelines.coordination.stream_model import Problem, StreamStatus
from coeval_pipelines.local.prepare import free_port
from coeval_pipelines.local.state import ComponentStatus, Process, StackStatus
from tests.support import catalog

NOW = 1_795_000_000_000_000
MANIFEST = catalog.manifest()
UNSEEN = "no parity run has looked at it"


def _check(view: str, ago: int, *breaches: str, run: int = 7) -> ParityCheck:
    return ParityCheck(view, "3f2a91bc", NOW - ago, 10, 100, 100, {}, breaches, run=run)


GOOD = Gate("card_spend", "3f2a91bc", True, "run 7 passed", _check("card_spend", 12 * MINUTE))
BAD = Gate("pairs", "77aa", False, "run 6 failed: 2 unexplained", _check("pairs", 3 * HOUR, "2 unexplained", run=6))


def _newest(run: int, passed: bool, age: int = MINUTE, **result: Any) -> Newest:
    return Newest(run, NOW - age, "hash", passed, result)


def test_a_view_that_parity_never_looked_at_is_said_to_be() -> None:
    unseen = Gate("pairs", "77aa", False, UNSEEN)
    assert check_status([GOOD, unseen], {}, NOW) == (CheckStatus("parity", 2, 1, None),)
    assert check_row(CheckStatus("parity", 2, 1, None)) == ("parity", "1 of 2", "-")
    said = Problem("pairs", f"parity: {UNSEEN}", "coeval parity run pairs")
    assert [*check_problems([GOOD, unseen], {}, NOW)] == [said]


def test_each_kind_says_how_many_passed_and_how_old_the_oldest_is() -> None:
    runs = {DRIFT: {"log:payments": _newest(3, True)}, FRESHNESS: {"a": _newest(1, True), "b": _newest(2, False, HOUR)}}
    assert [check_row(item) for item in check_status([GOOD, BAD], runs, NOW)] == [
        ("parity", "1 of 2", "3 h ago"),
        ("freshness", "1 of 2", "60 min ago"),
        ("drift", "1 of 1", "60 s ago"),
    ]


def test_what_failed_says_what_to_type() -> None:
    subjects = dict(
        zip(KINDS, ("card_spend", "training:march", "card_spend", "log:payments", "log:payments"), strict=True)
    )
    runs = {
        kind: {subject: _newest(number, False), "other": _newest(9, True)}
        for number, (kind, subject) in enumerate(subjects.items())
    }
    problems = [*check_problems([GOOD, BAD], runs, NOW)]
    assert problems[0] == Problem("pairs", "parity: run 6 failed: 2 unexplained", "coeval parity show 6")
    assert [(problem.subject, problem.then) for problem in problems[1:]] == [
        ("card_spend", "coeval parity replay card_spend"),
        ("training:march", "coeval parity rebuild march"),
        ("card_spend", "coeval freshness card_spend"),
        ("log:payments", "coeval drift show 3"),
        ("log:payments", "coeval quality show 4"),
    ]


def test_what_nobody_looks_at_any_more_is_let_go_after_a_week() -> None:
    runs = {DRIFT: {"/gone": _newest(1, False, 8 * DAY), "log:payments": _newest(2, True)}, REBUILD: {}}
    assert [*recent(runs, NOW)[DRIFT]] == ["log:payments"]


def test_quality_is_told_by_table_and_the_newest_run_counts() -> None:
    broken, sound = ({"passed": passed, "severity": "critical"} for passed in (False, True))

    def check(subject: str, rule: dict[str, Any], batch: int) -> dict[str, Any]:
        return {"subject": subject, "batch": batch, "rules": [rule]}

    old = _newest(3, False, checks=[check("log:payments", broken, 1), check("log:refunds", broken, 1)])
    new = _newest(4, False, checks=[check("log:payments", sound, 2), check("training:a", broken, 0)])
    two = _newest(5, False, checks=[check("training:b", broken, 1), check("training:b", sound, 2)])
    found = by_table({"log:payments,log:refunds": old, "log:payments,training:a": new, "training:b": two})
    assert {table: (run.run, run.passed) for table, run in found.items()} == {
        "log:payments": (4, True),
        "log:refunds": (3, False),
        "training:a": (4, False),
        "training:b": (5, False),
    }


def _stack(health: str) -> StackStatus:
    process = Process.of(1)
    return StackStatus(process, (ComponentStatus("redis", "127.0.0.1:1", health, 0, "log"),))


def test_the_exit_code_says_whether_something_does_not_run_or_only_a_check_failed() -> None:
    up, none, sound = _stack("healthy"), StackStatus(None), StreamStatus(NOW, "", (), ())
    away = StreamStatus(NOW, "", (), (), {"redis": "refused"})
    failed = (Problem("a", "b", "c"),)
    assert Glance(up).exit_code == Glance(up, sound).exit_code == Glance(none, sound).exit_code == 0
    assert Glance(up, sound, failed=failed).exit_code == Glance(none, sound, failed=failed).exit_code == 1
    for glance in (Glance(none), Glance(_stack("unhealthy"), sound), Glance(up, away), Glance(up, unknown=failed)):
        assert glance.exit_code == 3


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    found = Settings(home=tmp_path / "home", kafka=KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}"))
    monkeypatch.setattr("coeval.settings.load_settings", lambda: found)
    return found


def _status(*arguments: str) -> Any:
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["status", *arguments])


def test_where_nothing_is_a_look_makes_nothing(settings: Settings) -> None:
    done = _status()
    assert (done.exit_code, done.stdout) == (3, "The local stack is not running. Start it: coeval up\n")
    assert not settings.home.exists()


def test_a_broker_that_is_away_is_said_and_checks_are_told_all_the_same(settings: Settings) -> None:
    settings.home.mkdir()
    with closing(ControlPlane.open(settings)) as control:
        control.save_manifest(MANIFEST, 0)
        control.release(MANIFEST.hash, 0)
        view = MANIFEST.views["card_spend"]
        ParityBook(control).record(NOW, MANIFEST.hash, False, {}, [_check(view.name, 0, "2 unexplained")])
        CheckBook(control).record(DRIFT, "log:payments", NOW - 30 * DAY, "", passed=False, result={})
        assert [*newest_runs(control, MANIFEST)[DRIFT]] == ["log:payments"]
    done = _status("--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["streams"], found["checks"][0]["subjects"]) == (3, None, len(MANIFEST.views))
    assert found["problems"][0]["subject"] == "kafka"
    assert {problem["subject"] for problem in found["problems"][1:]} == {*MANIFEST.views}
    text = _status().stdout
    assert "nothing answers at" in text
    assert "-> coeval parity run latest_payment" in text


@pytest.mark.parametrize("body", ['{"schema": 1}', "{"])
def test_a_catalog_that_cannot_be_read_is_a_problem_and_not_none(settings: Settings, body: str) -> None:
    settings.home.mkdir()
    ControlPlane.open(settings).close()
    settings.manifest_path.write_text(body)
    done = _status("--json")
    assert done.exit_code == 3
    assert [problem["subject"] for problem in json.loads(done.stdout)["problems"]] == ["catalog"]


def test_a_control_plane_that_cannot_be_read_is_a_problem(settings: Settings) -> None:
    settings.home.mkdir()
    settings.control_path.write_bytes(b"no database" * 100)
    done = _status()
    assert done.exit_code == 3
    assert "! control plane: " in done.stdout


def test_a_broker_that_listens_is_asked(settings: Settings) -> None:
    from coeval_pipelines.coordination.status_commands import _answers

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _answers(f"127.0.0.1:1,127.0.0.1:{port}")
    assert not _answers(settings.kafka.bootstrap)
