"""The gate: a view version is let through by parity runs of its own, and by none that looked at less than failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from coeval.errors import CheckFailedError
from coeval.settings import Settings
from coeval.spec.model import Sla, Tolerance, budgets_text
from coeval.spec.time import DAY, HOUR
from coeval_parity import commands
from coeval_parity.history import sparkline
from coeval_pipelines.control import ControlPlane, ParityCheck
from coeval_pipelines.control.gate import decide, gate, gates
from coeval_pipelines.control.parity import ParityBook
from tests.support.payments import catalog

GOOD = ParityCheck("card_spend", "3f2a91bc", 10 * DAY, 2469, 83_946, 83_712, {"late": 234}, run=12)
BAD = replace(GOOD, breaches=("card_spend: 2 unexplained of 83946 values (budget 0)",), causes={"unexplained": 2})


def _sample(check: ParityCheck, share: float, seed: int = 0) -> ParityCheck:
    return replace(check, share=share, seed=seed)


@pytest.mark.parametrize(
    ("checks", "passed"),
    [
        ([], False),
        ([GOOD], True),
        ([BAD], False),
        ([GOOD, BAD], True),
        ([BAD, GOOD], False),
        ([_sample(GOOD, 0.1), BAD], False),
        ([_sample(GOOD, 0.1), GOOD, BAD], True),
        ([*[_sample(GOOD, 0.01)] * 300, BAD], False),
        ([GOOD, _sample(BAD, 0.1)], True),
        ([_sample(GOOD, 0.1, 7), _sample(BAD, 0.1, 7)], True),
        ([_sample(GOOD, 0.2, 7), _sample(BAD, 0.1, 7)], True),
        ([_sample(GOOD, 0.1, 8), _sample(BAD, 0.1, 7)], False),
        ([_sample(GOOD, 0.1, 7), _sample(BAD, 0.2, 7)], False),
    ],
)  # fmt: skip
def test_a_failure_stands_until_its_keys_were_looked_at_again(checks: list[ParityCheck], passed: bool) -> None:
    assert decide("card_spend", "3f2a91bc", checks, 10 * DAY).passed is passed


def test_it_says_which_run_on_how_many_keys() -> None:
    found = decide("card_spend", "3f2a91bc", [_sample(GOOD, 0.25)], 10 * DAY)
    assert found.why == "run 12 passed at 1970-01-11T00:00:00Z on 2,469 keys, a sample of 0.25"
    assert "run 12 of 1970-01-11" in decide("card_spend", "3f2a91bc", [BAD], 10 * DAY).why


def test_a_run_may_be_too_old() -> None:
    assert decide("card_spend", "3f2a91bc", [GOOD], 10 * DAY + HOUR, HOUR).passed
    assert "is older than 1h" in decide("card_spend", "3f2a91bc", [GOOD], 10 * DAY + HOUR + 1, HOUR).why


def test_a_run_of_one_view_says_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = catalog.manifest()
    settings = Settings(home=tmp_path)
    monkeypatch.setattr("coeval.settings.load_settings", lambda: settings)
    settings.manifest_path.write_text(manifest.to_json())
    first, second, *_ = manifest.views.values()
    control = ControlPlane.open(settings)
    good = replace(GOOD, view=first.name, version=first.version, budgets=budgets_text(first))
    ParityBook(control).record(10 * DAY, manifest.hash, True, {}, [good])
    ParityBook(control).record(11 * DAY, manifest.hash, False, {}, [replace(BAD, view=second.name, version="elsewise")])
    found = {item.view: item for item in gates(control, manifest.views.values(), 12 * DAY)}
    assert found[first.name].passed
    assert found[first.name].check == replace(good, run=1)
    assert found[second.name].why == "no parity run has looked at it"
    app = typer.Typer()
    commands.register(app)
    done = CliRunner().invoke(app, ["parity", "gate", first.name, "--json"])
    assert (done.exit_code, json.loads(done.stdout)[0]["keys"]) == (0, 2469)
    closed = CliRunner().invoke(app, ["parity", "gate"])
    assert isinstance(closed.exception, CheckFailedError)
    assert f"CLOSED  {second.name} {second.version}: no parity run has looked at it" in closed.stdout
    listed = CliRunner().invoke(app, ["parity", "history", "--json"])
    assert [(item["run"], item["passed"]) for item in json.loads(listed.stdout)] == [(1, True), (2, False)]
    assert "2 unexplained" in CliRunner().invoke(app, ["parity", "history", second.name]).stdout


def test_a_run_under_other_budgets_opens_nothing(tmp_path: Path) -> None:
    loose, *_ = catalog.manifest().views.values()
    strict = replace(loose, sla=Sla(tolerated=(Tolerance("late", 0.001),)))
    control = ControlPlane.open(Settings(home=tmp_path))
    held = replace(GOOD, view=loose.name, version=loose.version, budgets=budgets_text(loose))
    ParityBook(control).record(10 * DAY, "hash", True, {}, [held])
    assert gate(control, loose, 11 * DAY).passed
    assert gate(control, strict, 11 * DAY).why == "no parity run has held it to the budgets that it has now"


def test_a_sparkline_tells_nothing_from_little() -> None:
    assert sparkline([0.0, 0.0001, 0.5, 1.0]) == "▁▂▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""
