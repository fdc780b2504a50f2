"""Causes of the past: what loads, certificates and erasures of that time allow, and no more."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from coeval.spec.erasure import Erasure
from coeval.spec.records import Event
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval_parity.evidence import Case, Stored
from coeval_parity.explain import narrowed
from coeval_parity.past import History
from coeval_parity.past_causes import Answer, Moment
from coeval_parity.past_causes import explain_past as explain_at
from coeval_parity.result import Cause
from coeval_parity.verdicts import Verdict
from coeval_pipelines.catalog.expressions import parse_condition
from coeval_pipelines.control import BatchLoad, Deployment
from coeval_pipelines.control.coverage import Coverage
from tests.unit.test_parity_explain import FRESH, NOON, ON_TIME, ROWS, SOURCE, VIEW, Q, event, hourly

STREAMED = History(VIEW, Deployment(VIEW.name, VIEW.version, "h", 0, 0), (), ())


def explain_past(case: Case, past: History) -> Verdict:
    return explain_at(case, Moment(past, case.q))


def _past(log: list[Event], held: list[Event], feature: str = "count_1h") -> Case:
    return replace(hourly(log, held, feature=feature), view=narrowed(VIEW, feature), stored=Stored({}))


def _load(run: int, cut: int, finished_at: int) -> BatchLoad:
    return BatchLoad(run, VIEW.name, VIEW.version, cut, 1, finished_at)


def test_a_writer_that_stood_still_is_found_however_much_it_has_missed() -> None:
    waiting = [event(100 + n, NOON + 30 * MINUTE + n * SECOND, 10 + n, partition=n % 4) for n in range(32)]
    covered = Coverage("changelog", dict.fromkeys(range(4), 50), NOON + 29 * MINUTE)
    found = _past([ON_TIME, *waiting], [ON_TIME])
    verdict = explain_past(found, replace(STREAMED, covered=(covered,)))
    assert verdict.cause is Cause.IN_FLIGHT
    assert len(verdict.omitted) == 32


def test_what_the_store_was_seen_to_cover_long_ago_and_again_just_now_bounds_what_it_lacked() -> None:
    waiting = event(100, NOON + 30 * MINUTE, 10)
    found = _past([ON_TIME, waiting], [ON_TIME])
    behind, ahead = (Coverage("changelog", {0: to}, NOON + at * MINUTE) for to, at in ((50, 1), (101, 49)))
    assert explain_past(found, replace(STREAMED, covered=(behind,))).cause is Cause.IN_FLIGHT
    assert explain_past(found, replace(STREAMED, covered=(replace(ahead, at=behind.at),))).cause is Cause.UNEXPLAINED
    # That it had covered more only just before is no excuse.
    assert explain_past(found, replace(STREAMED, covered=(behind, replace(ahead, at=Q)))).cause is Cause.UNEXPLAINED
    assert explain_past(found, replace(STREAMED, covered=(behind, ahead))).cause is Cause.UNEXPLAINED


def test_a_store_that_was_seen_to_come_back_without_its_last_writes_was_without_them_for_a_while() -> None:
    waiting = event(100, NOON + 30 * MINUTE, 10)
    found = _past([ON_TIME, waiting], [ON_TIME])
    ahead = Coverage("changelog", {0: 101}, NOON + 30 * MINUTE)
    fell = Coverage("changelog", {0: 50}, Q + SECOND, back=True)
    # Served before the writer had looked; or when it had read some of it again.
    assert explain_past(found, replace(STREAMED, covered=(ahead, fell))).cause is Cause.IN_FLIGHT
    again = (replace(fell, at=Q - 2 * SECOND), replace(ahead, at=Q - SECOND))
    known = replace(ahead, offsets={0: 80}, at=NOON)
    assert explain_past(found, replace(STREAMED, covered=(known, *again))).cause is Cause.IN_FLIGHT
    for long in (Q - 2 * MINUTE, Q + 2 * MINUTE):
        past = replace(STREAMED, covered=(ahead, replace(fell, at=long), replace(ahead, at=long + SECOND)))
        assert explain_past(found, past).cause is Cause.UNEXPLAINED


def _answers(**values: tuple[int, int]) -> tuple[Answer, ...]:
    return tuple(Answer(narrowed(VIEW, name), name, *both) for name, both in values.items())


def _moment(answers: Sequence[Answer]) -> Moment:
    return Moment(STREAMED, Q, lambda: answers)


def test_a_reader_whose_clock_is_behind_misses_tiles_whose_place_newer_ones_have_taken() -> None:
    at = ON_TIME.event_ts + 14 * 5 * MINUTE  # an hour is twelve tiles, and two are kept beside them
    newer = event(9, at, 500)
    found = _past([ON_TIME, FRESH, newer], [FRESH])
    # Today's tile has the newer event, this hour's has not.
    answers = _answers(count_1h=(1, 2), count_24h=(2, 2), count_30d=(3, 2))
    verdict = explain_at(found, _moment(answers))
    assert verdict.cause is Cause.CLOCK
    assert verdict.proof == "Leaving out 1 event whose place newer tiles have taken gives the served value."
    # In another place, or too late to be in the store at all, it has displaced nothing.
    for other in (replace(newer, event_ts=at - 5 * MINUTE), replace(newer, available_at=at + DAY)):
        moved = replace(found, events=[ON_TIME, FRESH, other])
        assert explain_at(moved, _moment(answers)).cause is Cause.UNEXPLAINED
    # What else was served says that the store had nothing newer: a tile was lost.
    lost = _answers(count_1h=(1, 2), count_24h=(2, 2), count_30d=(2, 2))
    for said in (lost, _answers(count_1h=(1, 2), count_24h=(2, 2)), ()):
        assert explain_at(found, _moment(said)).cause is Cause.UNEXPLAINED


@pytest.mark.parametrize("seed", range(30))
def test_a_lost_tile_is_unexplained_whatever_the_key_does_later(seed: int) -> None:
    rng = random.Random(seed)
    at, later = Q, []
    for number in range(60):
        at += int(rng.expovariate(1 / (20 * MINUTE)))
        later.append(event(10 + number, at, rng.randrange(1, 900)))
    found = _past([ON_TIME, *later], [])
    assert (found.served, found.expected) == (0, 1)
    answers = _answers(count_1h=(0, 1), count_24h=(1, 1), count_30d=(1, 1))
    assert explain_at(found, _moment(answers)).cause is Cause.UNEXPLAINED


def test_a_tile_that_begins_when_it_is_read_is_not_read() -> None:
    assert Q % (5 * MINUTE) == 0
    for at, cause in ((Q, Cause.UNEXPLAINED), (Q - 1, Cause.CLOCK)):
        new = replace(event(9, at, 500), available_at=Q + SECOND)
        found = replace(_past([ON_TIME, new], [ON_TIME]), served=2)
        assert explain_past(found, STREAMED).cause is cause


def test_what_was_served_before_an_erasure_is_erased_until_a_load_had_taken_it_away() -> None:
    gone = event(9, NOON + 4 * MINUTE, 500)
    mine = Erasure("merchant_id", "m", NOON + HOUR, 4)
    found = replace(_past([ON_TIME, FRESH], [ON_TIME, gone, FRESH]), erased=[gone], erasures=[mine])
    assert explain_past(found, STREAMED).cause is Cause.ERASED
    assert explain_past(replace(found, erased=[]), STREAMED).cause is Cause.UNEXPLAINED
    mended = replace(STREAMED, loads=(_load(5, NOON + 30 * MINUTE, Q),))
    assert explain_past(found, mended).cause is Cause.UNEXPLAINED
    later = replace(STREAMED, loads=(_load(5, NOON + 30 * MINUTE, Q + 1),))
    assert explain_past(found, later).cause is Cause.ERASED


def test_an_erased_event_that_was_late_had_never_been_served() -> None:
    gone = event(9, NOON + 4 * MINUTE, 500, delay=40 * MINUTE)
    found = replace(_past([ON_TIME, FRESH], [ON_TIME, gone, FRESH]), erased=[gone])
    assert explain_past(found, STREAMED).cause is Cause.UNEXPLAINED


def test_what_nobody_delivered_beside_another_cause_is_not_called_late() -> None:
    dear = replace(VIEW, version="0ld", where=parse_condition("test", "amount > 1.00", SOURCE.fields))
    cheap = event(4, NOON + 32 * MINUTE, 50)
    log = [ON_TIME, FRESH, replace(cheap, offset=5, event_id="e5"), event(6, NOON + 33 * MINUTE, 300)]
    found = replace(_past(log, [log[3]]), definitions=[dear], every=log)
    # Nobody owned the tiles before half past twelve, so that the first event was never delivered.
    half = replace(STREAMED, deployment=Deployment(VIEW.name, VIEW.version, "h", NOON + 30 * MINUTE, 0))
    verdict = explain_past(found, half)
    assert (verdict.cause, verdict.also) == (Cause.DEFINITION, (Cause.STALE,))


def test_a_row_of_a_batch_source_is_missing_only_if_the_load_did_not_see_it_yet() -> None:
    during = event(2, NOON + 20 * MINUTE, 77)
    batch = replace(ROWS, stream=False)
    log = [ON_TIME, during]
    view, stored = narrowed(batch, "amount"), Stored({}, ON_TIME.order)
    found = Case(view, SOURCE, "amount", (1,), Q, 250, 77, stored, log)
    # It became visible while the load ran, which is over a minute later.
    load = replace(_load(5, NOON, during.available_at + MINUTE), as_of=during.available_at - 1)
    history = History(batch, None, (load,), ())
    assert explain_past(found, history).cause is Cause.IN_FLIGHT
    seen = replace(load, as_of=during.available_at)
    assert explain_past(found, replace(history, loads=(seen,))).cause is Cause.UNEXPLAINED
