"""How fresh a view is by what its topic holds: event time against the promise, what is idle, and what it is called."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from coeval.errors import BrokerError, CheckFailedError
from coeval.settings import Settings
from coeval.spec.canary import canary_record
from coeval.spec.expressions import Expression
from coeval.spec.model import Constant, Sla, View
from coeval.spec.records import Event, Record
from coeval.spec.time import HOUR, MINUTE, SECOND
from coeval.spec.types import BOOL, INT64
from coeval_parity.freshness.commands import freshness
from coeval_parity.freshness.judge import Edge, events_of, load_freshness, partition_freshness
from coeval_parity.freshness.result import (
    CanaryLatency,
    FreshnessRow,
    PartitionFreshness,
    State,
    ViewFreshness,
    from_document,
    headline,
    rows,
)
from coeval_parity.freshness.run import keep
from coeval_parity.freshness.text import print_history, print_views
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import FRESHNESS, CheckBook
from tests.support import catalog

NOW = 1_795_000_000_000_000
PROMISE = 10 * SECOND
HAS_POINTS = Expression("not", BOOL, (Expression("is_null", BOOL, (Expression("column", INT64, value="points"),)),))
SOURCE = replace(catalog.PAYMENTS, canary=(Constant("card_id", "-1"), Constant("merchant_id", "canary")))


def _view(promise: int = PROMISE) -> View:
    (view,) = (view for view in catalog.manifest().windowed_views if view.name == "card_spend")
    return replace(view, sla=Sla(freshness=promise))


def _event(happened: int, available: int | None = None) -> Event:
    """An event of so many microseconds ago; available when it happened, or so many microseconds ago."""
    values = dict.fromkeys(field.name for field in catalog.PAYMENTS.fields)
    at = NOW - (happened if available is None else available)
    return Event("e", NOW - happened, at, 0, 0, {**values, "card_id": 1, "merchant_id": "m"}, NOW - happened)


def _of(below: list[Event], above: list[Event] | None = None, behind: int | None = None) -> PartitionFreshness:
    above = above or []
    first = above[0].available_at if above else None
    edge = Edge(3, len(above) if behind is None else behind, below, above, first)
    return partition_freshness(_view(), edge, NOW)


def test_where_all_is_readable_the_age_is_that_of_the_newest_event_and_none_waits() -> None:
    found = _of([_event(4 * SECOND), _event(2 * SECOND), _event(3 * SECOND)])
    assert found == PartitionFreshness(3, State.CURRENT, NOW - 2 * SECOND, NOW - 2 * SECOND, 2.0, 0.0, 0)


def test_where_nothing_new_comes_nothing_is_stale_however_old_it_is() -> None:
    found = _of([_event(HOUR)])
    assert (found.state, found.age, found.waiting) == (State.IDLE, 3600.0, 0.0)
    assert _of([]).state is State.EMPTY


def test_a_stream_that_is_busy_with_old_events_is_stale_by_event_time() -> None:
    found = _of([_event(30 * SECOND)], [_event(25 * SECOND), _event(0)])
    assert (found.state, found.age, found.waiting, found.behind) == (State.STALE, 30.0, 25.0, 2)
    assert (found.readable, found.newest) == (NOW - 30 * SECOND, NOW)


def test_the_first_event_after_a_quiet_hour_has_as_long_as_any_other() -> None:
    assert _of([_event(HOUR)], [_event(SECOND)]).state is State.BEHIND
    assert _of([_event(HOUR)], [_event(11 * SECOND)]).state is State.STALE


def test_what_producers_deliver_late_is_old_and_no_fault_of_the_stream() -> None:
    found = _of([_event(2 * HOUR, SECOND)], [_event(HOUR, SECOND)])
    assert (found.state, found.age, found.waiting) == (State.BEHIND, 7200.0, 1.0)


def test_canaries_and_rejects_are_no_events_that_anybody_waits_for() -> None:
    canary, broken = canary_record(SOURCE, NOW), Record(b"{", NOW, 0, 1)
    assert events_of(SOURCE, [canary, broken]) == []
    assert len(events_of(catalog.PAYMENTS, [canary])) == 1
    assert _of([_event(HOUR)], [], behind=2).state is State.IDLE


def test_an_event_that_the_view_leaves_out_makes_it_neither_fresh_nor_stale() -> None:
    picky = replace(_view(), where=HAS_POINTS)
    edge = Edge(0, 1, [_event(0)], [_event(HOUR)], NOW - HOUR)
    assert partition_freshness(_view(), edge, NOW).state is State.BEHIND
    assert partition_freshness(picky, edge, NOW).state is State.EMPTY


def test_of_more_than_is_looked_at_the_first_record_says_how_long_it_waits() -> None:
    edge = Edge(0, 10_000, [_event(HOUR)], [], NOW - 20 * SECOND, whole=False)
    assert partition_freshness(_view(), edge, NOW).state is State.STALE


def test_a_store_of_which_nothing_is_certified_waits_for_all_there_is() -> None:
    found = _of([], [_event(MINUTE)])
    assert (found.state, found.readable, found.age, found.waiting) == (State.STALE, None, None, 60.0)


@pytest.mark.parametrize(
    ("loaded", "due", "since", "state", "waiting"),
    [
        (None, "", 0, State.STALE, 0.0),
        (HOUR, "", 0, State.IDLE, 0.0),
        (SECOND, "", 0, State.CURRENT, 0.0),
        (HOUR, "the files changed", 5 * SECOND, State.BEHIND, 5.0),
        (HOUR, "the files changed", MINUTE, State.STALE, 60.0),
        (MINUTE, "the files changed", HOUR, State.STALE, 60.0),
    ],
)
def test_a_view_of_files_is_held_to_its_last_load_once_they_changed(
    loaded: int | None, due: str, since: int, state: State, waiting: float
) -> None:
    found = load_freshness(_view(), None if loaded is None else NOW - loaded, due, NOW - since, NOW)
    assert (found.state, found.waiting) == (state, waiting)


def _whole(*parts: PartitionFreshness, **changes: object) -> ViewFreshness:
    view = ViewFreshness("bank", "card_spend", "3f2a", "payments", NOW, 10.0, True, parts)
    return replace(view, **changes)  # type: ignore[arg-type]


FINE, STALE = _of([_event(SECOND)]), _of([_event(HOUR)], [_event(MINUTE)])
IDLE = replace(_of([_event(HOUR)]), partition=4)


def test_a_view_keeps_its_promise_while_no_partition_is_stale_and_canaries_arrive() -> None:
    assert _whole(FINE, IDLE).ok
    assert _whole(FINE, IDLE).age == 1.0
    (problem,) = _whole(FINE, STALE).problems
    assert problem.startswith("partition 3: readable up to 2026-11-18T10:06:40Z of 2026-11-18T11:05:40Z, 1 behind")
    assert problem.endswith("waiting for 60 s")
    slow = _whole(FINE, canary=CanaryLatency(0.1, 0.2, 0.1, 30, 41.0))
    assert slow.problems == ("a canary is under way for 41 s and not readable yet",)
    assert _whole(STALE, stopped=True).ok
    assert not _whole(FINE, ready=False, stopped=True).ok


def test_of_a_view_nothing_may_be_known_and_that_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = replace(_whole(view="latest_payment"), unknown="There is no topic payments.")
    manifest = catalog.manifest()
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        keep(control, manifest, [unknown, _whole(STALE)])
        assert CheckBook(control).newest(FRESHNESS).keys() == {"card_spend"}
    found: list[ViewFreshness] = []
    monkeypatch.setattr("coeval.settings.load_settings", lambda: None)
    monkeypatch.setattr("coeval_parity.freshness.run.run_freshness", lambda settings, names: found)
    found[:] = [_whole(FINE), unknown]
    with pytest.raises(BrokerError, match="latest_payment: nothing can be said: There is no topic payments"):
        freshness([], watch=False, history=0, as_json=False)
    assert "unknown !" in capsys.readouterr().out
    found[:] = [unknown, _whole(STALE)]
    with pytest.raises(CheckFailedError, match="card_spend: partition 3"):
        freshness([], watch=False, history=0, as_json=False)


def test_a_verdict_is_read_again_as_it_was_written() -> None:
    view = _whole(FINE, STALE, canary=CanaryLatency(0.1, 0.2, 0.1, 30, 0.0), notes=("x",))
    document = json.loads(json.dumps(view.to_document()))
    assert (document["ok"], document["behind"]) == (False, 1)
    assert from_document(document) == view


def test_a_page_gets_a_plain_row_of_each_partition_and_of_each_load() -> None:
    batch = _whole(view="card_limit", load=load_freshness(_view(), NOW - HOUR, "", 0, NOW))
    assert rows([_whole(FINE, STALE), batch]) == [
        FreshnessRow("card_limit", None, "idle", 3600.0, 0.0, 0, 10.0, True),
        FreshnessRow("card_spend", 3, "current", 1.0, 0.0, 0, 10.0, True),
        FreshnessRow("card_spend", 3, "stale", 3600.0, 60.0, 1, 10.0, False),
    ]


def test_the_text_marks_what_is_stale_and_names_the_runbook() -> None:
    console = Console(width=180, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        print_views([_whole(FINE, STALE, notes=("its job is away",))], console)
        print_history([_whole(FINE)], console)
    text = captured.get()
    assert "stale !" in text
    assert "docs/runbooks/freshness.md" in text
    assert "its job is away" in text
    assert headline([_whole(FINE), _whole(STALE)]) == "1 of 2 views keep their promise; not card_spend"
