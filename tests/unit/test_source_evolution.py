"""Claims about what may become of a source whose topic and log are there, and what is refused with the difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from coeval.spec.manifest import Manifest, view_version
from coeval.spec.model import EventSource, Field
from coeval.spec.time import HOUR, MINUTE
from coeval.spec.types import FLOAT64, INT64, STRING, DataType
from coeval_pipelines.catalog.deployed import Deployed
from coeval_pipelines.catalog.evolution import breaks, refused_changes
from coeval_pipelines.catalog.plan import Kind, make_plan
from coeval_pipelines.catalog.plan_text import lines
from coeval_pipelines.catalog.report import Report
from coeval_pipelines.catalog.summary import objects
from tests.support.catalog import CARD_SPEND, PAYMENTS, manifest

Edit = Callable[[EventSource], EventSource]
BEFORE = manifest()


def column(name: str, /, **change: object) -> Edit:
    def edit(source: EventSource) -> EventSource:
        fields = (replace(item, **change) if item.name == name else item for item in source.fields)  # type: ignore[arg-type]
        return replace(source, fields=tuple(fields))

    return edit


def added(field: Field) -> Edit:
    return lambda source: replace(source, fields=(*source.fields, field))


def removed(name: str) -> Edit:
    return lambda source: replace(source, fields=tuple(item for item in source.fields if item.name != name))


def having(**change: object) -> Edit:
    return lambda source: replace(source, **change)  # type: ignore[arg-type]


ALLOWED: dict[str, Edit] = {
    "a new optional column": added(Field("channel", STRING)),
    "more digits before the point": column("amount", type=DataType.parse("decimal(15,2)")),
    "a column that need not be there any more": column("merchant_id", nullable=True),
    "another order": lambda source: replace(source, fields=source.fields[::-1]),
    "words": column("amount", description="Euros.", pii="personal"),
    "lateness, and clocks further ahead": having(allowed_lateness=HOUR, max_future_skew=HOUR),
    "who drops duplicates": having(dedup=False, expected_rate=9.0),
}
BREAKS: dict[str, tuple[Edit, str]] = {
    "a column that is gone": (removed("note"), "column note: string -> gone"),
    "fewer digits": (
        column("amount", type=DataType.parse("decimal(7,2)")),
        "column amount: decimal(9,2) -> decimal(7,2)",
    ),
    "more digits after the point": (
        column("amount", type=DataType.parse("decimal(12,4)")),
        "column amount: decimal(9,2) -> decimal(12,4)",
    ),
    "whole numbers as decimals": (
        column("points", type=DataType.parse("decimal(19,0)")),
        "column points: int64 -> decimal(19,0)",
    ),
    "another type": (column("points", type=FLOAT64), "column points: int64 -> float64"),
    "a column that must be there now": (column("points", nullable=False), "column points: int64 -> int64 required"),
    "a new required column": (added(Field("channel", STRING, False)), "column channel: not there -> string required"),
    "another place in the record": (column("note", origin="key"), "column note: string -> string of key"),
    "another identity": (having(event_id="note"), "event id: event_id -> note"),
    "another time": (having(event_ts="seen_at"), "event time: paid_at -> seen_at"),
    "clocks less far ahead": (having(max_future_skew=MINUTE), "future skew: 5m -> 1m"),
    "no clock ahead": (having(max_future_skew=0), "future skew: 5m -> none"),
    "another topic": (having(topic="payments.v2"), "topic: payments -> payments.v2"),
}


def after(edit: Edit) -> Manifest:
    return replace(BEFORE, event_sources=(edit(PAYMENTS),))


@pytest.mark.parametrize("edit", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_reads_every_good_record_as_before_is_allowed(edit: Edit) -> None:
    assert breaks(PAYMENTS, edit(PAYMENTS)) == ()
    assert list(refused_changes(BEFORE, after(edit), ())) == []


@pytest.mark.parametrize(("edit", "said"), BREAKS.values(), ids=BREAKS.keys())
def test_what_reads_records_otherwise_is_refused_with_old_and_new(edit: Edit, said: str) -> None:
    assert breaks(PAYMENTS, edit(PAYMENTS)) == (said,)
    (problem,) = refused_changes(BEFORE, after(edit), ())
    assert (problem.where, said in problem.what) == ("source payments", True)
    assert "coeval apply --break payments" in problem.fix
    assert "COEVAL_BREAK=payments feast apply" in problem.fix


def test_a_renamed_column_is_one_gone_and_one_new() -> None:
    assert breaks(PAYMENTS, column("note", name="remark")(PAYMENTS)) == ("column note: string -> gone",)


def test_a_source_that_is_named_may_break_and_no_other_name_is_taken() -> None:
    broken = after(removed("note"))
    assert list(refused_changes(BEFORE, broken, ["payments"])) == []
    (stray,) = refused_changes(BEFORE, BEFORE, ["payments"])
    assert stray.where == "break of payments"


def test_a_new_source_and_another_tenant_have_nothing_to_break_with() -> None:
    renamed = replace(PAYMENTS, name="payments_v2", fields=PAYMENTS.fields[:4])
    assert list(refused_changes(BEFORE, replace(BEFORE, event_sources=(PAYMENTS, renamed)), ())) == []
    assert list(refused_changes(BEFORE, replace(after(removed("note")), tenant="other"), ())) == []
    assert list(refused_changes(None, BEFORE, ())) == []


def test_only_views_that_read_a_widened_column_get_a_new_version() -> None:
    def version(edit: Edit) -> str:
        return view_version(CARD_SPEND, edit(PAYMENTS))

    same, wide = CARD_SPEND.version, DataType.parse("decimal(20,3)")
    assert version(column("fee", type=wide)) != same
    assert version(added(Field("channel", STRING))) == same
    assert version(column("merchant_id", nullable=True)) != same
    assert version(having(allowed_lateness=HOUR)) != same
    assert version(column("note", type=INT64)) == same


def test_a_plan_marks_the_source_as_refused_and_says_what_to_do() -> None:
    broken = after(removed("note"))
    problems = tuple(refused_changes(BEFORE, broken, ()))
    there = Deployed(registered=BEFORE)
    refused = make_plan(Report(broken, frozenset(objects(broken)), problems), there)
    step = next(item for item in refused.steps if item.name == "payments")
    assert (step.kind, step.problems, refused.problems, refused.refused) == (Kind.REFUSED, problems, (), True)
    assert any("source payments" in text and "column note: string -> gone" in text for text, _ in lines(refused))
    named = make_plan(Report(broken, frozenset(objects(broken))), there, breaking=["payments"])
    assert named.next[0] == "coeval apply --break payments"


def test_a_plan_shows_what_grew() -> None:
    grown = after(lambda source: added(Field("channel", STRING))(ALLOWED["more digits before the point"](source)))
    plan = make_plan(Report(grown, frozenset(objects(grown))), Deployed(registered=BEFORE))
    step = next(item for item in plan.steps if item.name == "payments")
    assert step.kind is Kind.IN_PLACE
    assert set(step.why) == {"column amount: decimal(15,2), was decimal(9,2)", "new column channel: string"}


def test_a_plan_says_who_drops_duplicates_and_how_many_events_to_expect() -> None:
    new = after(having(dedup=False, expected_rate=250.0))
    plan = make_plan(Report(new, frozenset(objects(new))), Deployed(registered=BEFORE))
    step = next(item for item in plan.steps if item.name == "payments")
    assert set(step.why) == {"dedup off, was on", "expected_rate 250.0, was none"}
    first = make_plan(Report(new, frozenset(objects(new))), Deployed())
    assert any("a log of unknown length, then 250 a second" in text for text, _ in lines(first))


def test_a_plan_says_where_a_column_has_moved_to() -> None:
    new = after(column("note", origin="header:note"))
    plan = make_plan(Report(new, frozenset(objects(new))), Deployed(registered=BEFORE))
    step = next(item for item in plan.steps if item.name == "payments")
    assert step.why == ("column note: string of header:note, was string",)
