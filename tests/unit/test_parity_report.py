"""Results and their renderers: budgets decide, JSON loses nothing, text and page name what is wrong."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coeval.settings import Settings
from coeval.spec.model import Tolerance
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_parity import pages
from coeval_parity.advice import advice
from coeval_parity.describe import mismatch, symptom_of
from coeval_parity.document import from_document, to_document
from coeval_parity.drift.result import DriftResult, FeatureDrift, Measure
from coeval_parity.drift.rules import Kind
from coeval_parity.evidence import Case, Delivery
from coeval_parity.explain import explain
from coeval_parity.freshness.result import CanaryLatency, PartitionFreshness, State, ViewFreshness
from coeval_parity.quality.result import QualityResult
from coeval_parity.report import beside, render_html, telling, title
from coeval_parity.result import Cause, FeatureParity, Mismatch, ParityResult, Symptom, ViewParity
from coeval_parity.run import Sample
from coeval_parity.text import print_result
from coeval_parity.trends import PastRun
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import DRIFT, FRESHNESS, QUALITY, CheckBook
from coeval_pipelines.control.parity import KEPT_RUNS
from tests.support import parity_pages
from tests.support.parity import tampered
from tests.unit import test_parity_explain as world


def _entry(case: Case, delivery: Delivery) -> Mismatch:
    return mismatch(case, explain(case, delivery), symptom_of(case.served, case.expected))


def late() -> Mismatch:
    """A late event in one five-minute tile."""
    log = [world.ON_TIME, world.LATE, world.FRESH]
    return _entry(world.hourly(log, [world.ON_TIME, world.FRESH]), world.STREAM)


def edited() -> Mismatch:
    """A tile that somebody added to."""
    case = tampered(world.hourly([world.ON_TIME, world.FRESH], [world.ON_TIME, world.FRESH]), 2500)
    return _entry(case, world.STREAM)


def in_flight() -> Mismatch:
    """An event that the store need not have yet."""
    case = world.hourly([world.ON_TIME, world.FRESH], [world.ON_TIME])
    return _entry(case, replace(world.STREAM, certified={0: 3}))


def view(name: str, entries: list[Mismatch], keys: int = 1000, late_limit: float = 0.05, window: int = 0) -> ViewParity:
    """A view in which nothing differs but these entries."""
    causes: Counter[Cause] = Counter(item.cause for item in entries)
    budgets = (Tolerance("late", late_limit, window), Tolerance("in_flight", 1.0))
    equal = FeatureParity(
        name, "count_1h", "count(*) over 1h by 5m", keys, keys, 0, {}, {}, 0, 0, 0.0, 0.0, budgets=budgets
    )
    money = replace(
        equal,
        feature="sum_amount_1h",
        label="sum(amount) over 1h by 5m",
        matched=keys - len(entries),
        causes=dict(causes),
        largest_difference=25.0 if entries else 0.0,
    )
    return ViewParity(
        name,
        "3f2a91bc",
        True,
        keys,
        keys,
        (money, equal),
        DAY,
        world.NOON - DAY,
        world.NOON - DAY,
        {0: 4711, 1: 12},
    )


def result(*parts: tuple[ViewParity, list[Mismatch]], **changes: Any) -> ParityResult:
    """A run over some views."""
    entries = tuple(entry for _, mine in parts for entry in mine)
    return ParityResult(world.Q, "ab" * 32, tuple(item for item, _ in parts), entries, 0, 12.34, run=7, **changes)


def run_of(*entries: Mismatch, **settings: Any) -> ParityResult:
    """A run over one view with these entries."""
    return result((view("card_spend", list(entries), **settings), list(entries)))


def test_late_and_in_flight_pass_within_their_bounds() -> None:
    assert run_of(late(), in_flight()).passed


def test_one_unexplained_value_fails_the_run() -> None:
    found = run_of(late(), edited())
    assert not found.passed
    assert found.breaches == ("card_spend: 1 unexplained of 2,000 values (budget 0)",)
    assert [item.key for item in found.failing()] == ["i1"]


def test_too_large_a_late_share_fails_the_run() -> None:
    assert "card_spend: 0.50% late, at most 0.10%" in run_of(late(), keys=100, late_limit=0.001).breaches


def test_a_window_is_held_to_its_own_budget() -> None:
    found = view("card_spend", [late()], keys=100, late_limit=0.02)
    money, count = found.features
    strict = replace(money, budgets=(Tolerance("late", 0.005, HOUR), *money.budgets[1:]))
    over = replace(found, features=(strict, count))
    assert result((found, [])).passed
    assert over.breaches() == ("card_spend: 1.00% late (1h), at most 0.50%",)
    assert [item.over for item in over.budgets] == [True, False, False]


@pytest.mark.parametrize("cause", [Cause.STALE, Cause.TTL, Cause.DEFINITION, Cause.CLOCK, Cause.UNEXPLAINED])
def test_every_cause_that_is_not_benign_has_a_budget_of_zero(cause: Cause) -> None:
    assert not run_of(replace(late(), cause=cause)).passed


def test_a_view_that_is_not_ready_fails_the_run() -> None:
    unready = replace(view("card_spend", []), ready=False)
    assert "not ready" in result((unready, [])).breaches[0]


def test_a_run_that_compared_nothing_does_not_pass() -> None:
    empty = result((view("card_spend", [], keys=0), []))
    assert not empty.passed
    sampled = replace(empty, notes=Sample(0.01).notes)
    assert "of a sample of 0.01 of the keys, seed 0; take a greater --sample" in sampled.breaches[0]


def test_the_document_loses_nothing_that_a_reader_needs() -> None:
    found = run_of(late(), edited(), in_flight())
    document = json.loads(json.dumps(to_document(found)))
    assert {cause: n for cause, n in document["causes"].items() if n} == {"in_flight": 1, "late": 1, "unexplained": 1}
    assert document["passed"] is False
    assert to_document(from_document(document)) == document
    assert from_document(document).breaches == found.breaches


def test_the_headline_counts_everything() -> None:
    assert run_of(late()).headline == "1,000 keys, 2,000 values: 1,999 match, 1 late, 0 unexplained"


def test_the_terminal_names_key_values_and_proof() -> None:
    out = StringIO()
    print_result(run_of(edited()), Console(file=out, width=160))
    text = out.getvalue()
    assert "unexplained (corrupted_state?): card_spend card_id=1 sum_amount_1h: served 28.27, expected 3.27" in text
    assert "parity failed" in text


def test_without_values_the_terminal_names_no_key() -> None:
    out = StringIO()
    print_result(run_of(edited()), Console(file=out, width=160), values=False)
    text = out.getvalue()
    assert "over budget: " in text
    assert not any(part in text for part in ("card_id=1", "28.27", "3.27"))


def test_both_computations_stand_side_by_side() -> None:
    steps = {step.part: step for step in edited().steps}
    wrong = steps["5m tile of 2026-05-04T12:30:00Z"]
    assert (wrong.served, wrong.expected, wrong.differs) == ("1 event, sum 25.77", "1 event, sum 0.77", True)
    assert not steps["5m tile of 2026-05-04T12:00:00Z"].differs


def test_the_late_event_is_marked_among_its_peers() -> None:
    assert [(line.event_id, line.note) for line in late().events] == [("e1", ""), ("e2", "late"), ("e3", "")]


def past(number: int, *, passed: bool) -> PastRun:
    """A run before the one of these tests, which is the seventh."""
    causes = {Cause.LATE: number} | ({} if passed else {Cause.UNEXPLAINED: 1})
    return PastRun(number, world.Q - (8 - number) * 10 * MINUTE, passed, 2000, causes)


def test_the_page_says_what_differs_since_when_and_what_to_do() -> None:
    history = [past(number, passed=number < 6) for number in range(1, 8)]
    page = render_html(run_of(late(), edited()), history)
    assert "Do not trust card_spend" in page
    assert "Parity failed since run 6" in page
    assert "card_id=1" in page
    assert "28.27" in page
    assert "sum 25.77" in page
    assert "<code>coeval backfill run card_spend --correct --force</code>" in page
    assert "http" not in page.replace("https://", "http://").split("<body>")[1]


def test_a_view_that_was_served_in_two_versions_is_named_once_with_both_counts() -> None:
    entries = [edited(), edited()]
    found = result((view("card_spend", entries), entries), (view("card_spend", entries[:1]), entries[:1]))
    assert title(found) == "Do not trust card_spend"
    assert [(item.count, item.where) for item in advice(found)] == [(3, "card_spend")]


def test_a_sound_run_makes_a_calm_page() -> None:
    page = render_html(result((view("card_spend", []), [])))
    assert "What is served is what training would use" in page
    assert "Nothing to do" in page
    assert title(run_of(edited())) == "Do not trust card_spend"


def test_what_came_from_an_event_cannot_inject_markup() -> None:
    hostile = replace(edited(), entity={"note": "<script>alert(1)</script>"})
    assert "<script>alert" not in render_html(run_of(hostile))


def test_symptoms_are_told_apart() -> None:
    assert symptom_of(None, 5) is Symptom.MISSING_ONLINE
    assert symptom_of(0, 5) is Symptom.MISSING_ONLINE
    assert symptom_of(0, None) is Symptom.MISSING_OFFLINE
    assert symptom_of(5, 0) is Symptom.MISSING_OFFLINE
    assert symptom_of(5, 6) is Symptom.NONE


def test_the_page_of_every_run_is_kept_and_the_oldest_are_let_go(tmp_path: Path) -> None:
    for run in range(1, KEPT_RUNS + 3):
        written = pages.publish(tmp_path, run, f"page {run}")
    assert written == tmp_path / f"parity-{KEPT_RUNS + 2}.html"
    assert [*pages.kept(tmp_path)] == [*range(3, KEPT_RUNS + 3)]
    assert (tmp_path / "parity.html").read_text() == written.read_text() == f"page {KEPT_RUNS + 2}"


def test_the_page_of_a_control_plane_that_began_anew_is_kept(tmp_path: Path) -> None:
    for run in range(100, 100 + KEPT_RUNS):
        written = pages.publish(tmp_path, run, "before")
        os.utime(written, (run, run))
    anew = pages.publish(tmp_path, 1, "anew")
    assert anew.read_text() == "anew"
    assert [*pages.kept(tmp_path)] == [1, *range(101, 100 + KEPT_RUNS)]
    (tmp_path / "parity-old.html").touch()
    assert len([*tmp_path.iterdir()]) == KEPT_RUNS + 2
    assert len(pages.kept(tmp_path)) == KEPT_RUNS


def test_the_page_links_to_the_runs_before_it_whose_pages_are_there() -> None:
    history = [past(number, passed=number < 6) for number in range(1, 8)]
    page = render_html(run_of(edited()), history, {5: "parity-5.html", 6: "parity-6.html", 9: "parity-9.html"})
    assert {*re.findall(r'href="([^#"]+)"', page)} == {"parity-5.html", "parity-6.html"}
    assert 'href="parity-6.html">run 6</a> failed, <a href="parity-5.html">run 5</a> passed' in page


def test_a_result_of_an_earlier_release_without_hours_has_a_page() -> None:
    document = json.loads(json.dumps(to_document(parity_pages.failing())))
    for view in document["views"]:
        del view["source"]
        for feature in view["features"]:
            del feature["hours"]
    for item in document["mismatches"]:
        del item["at"]
    page = render_html(from_document(document))
    assert "Do not trust card_spend and merchant_volume" in page
    assert "by hour" not in page
    assert "before the read" in page


def test_hours_survive_the_document() -> None:
    document = json.loads(json.dumps(to_document(parity_pages.failing())))
    again = from_document(document)
    assert again.views == parity_pages.failing().views
    assert render_html(again) == render_html(parity_pages.failing())


def test_the_newest_runs_of_drift_and_quality_stand_on_the_page(tmp_path: Path) -> None:
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        assert beside(control) == []
        measure = Measure("psi", 0.4, 0.2, 0.05)
        drifted = DriftResult(
            world.Q,
            "ab",
            "log:payments",
            "weeks before",
            None,
            None,
            4,
            (FeatureDrift("amount", Kind.NUMBER, 900, 900, (measure,)),),
        )
        book = CheckBook(control)
        for kind, document in (
            (DRIFT, drifted.to_document()),
            (QUALITY, QualityResult(world.Q, "ab", ()).to_document()),
        ):
            book.record(kind, "log:payments", world.Q, "ab", passed=document["passed"], result=document)
        page = render_html(run_of(late()), others=beside(control))
    assert "coeval drift show 1" in page
    assert "coeval quality show 2" in page
    assert "1 of 1 features drifted" in page
    assert 'class="feature-drift failing"' in page
    assert "population stability index" in page


def test_the_newest_look_at_freshness_stands_on_the_page(tmp_path: Path) -> None:
    parts = (
        PartitionFreshness(0, State.CURRENT, world.Q, world.Q, 2.5, 0.0, 0),
        PartitionFreshness(1, State.STALE, world.Q, world.Q, 940.0, 930.0, 1234),
    )
    canary = CanaryLatency(0.12, 0.5, 0.1, 30, 0.0)
    seen = ViewFreshness("bank", "card_spend", "3f2a", "payments", world.Q, 10.0, True, parts, canary=canary)
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        document = seen.to_document()
        CheckBook(control).record(FRESHNESS, "card_spend", world.Q, "ab", passed=False, result=document)
        page = render_html(run_of(late()), others=beside(control))
    assert "0 of 1 views keep their promise; not card_spend" in page
    assert ">stale<" in page and ">940.0<" in page and ">1,234<" in page
    assert "p50 0.12 s, p99 0.50 s, of 30 canaries" in page


def test_of_many_parts_those_on_which_both_sides_agree_are_left_out() -> None:
    item = edited()
    agreed = [step for step in item.steps if not step.differs]
    wrong = [step for step in item.steps if step.differs]
    assert telling(item) == item.steps
    many = replace(item, steps=(*agreed * 20, *wrong))
    assert telling(many) == tuple(wrong)
    assert f"{20 * len(agreed)} on which both sides agree are left out" in render_html(run_of(many))
    assert telling(replace(item, steps=tuple(agreed * 20))) == tuple(agreed * 20)
