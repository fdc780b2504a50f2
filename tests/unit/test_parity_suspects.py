"""Suspects and rarer causes: each is named only where it gives exactly what is stored, and excuses nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from coeval.aggregations.tiles import aggregate_column
from coeval.reference.oracle import value_at
from coeval.spec.records import Event
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval_parity.evidence import Case, Stored, components_of
from coeval_parity.explain import explain
from coeval_parity.result import Cause, Suspect
from tests.faults.study import grown
from tests.support.parity import case, stored_tiles, tampered
from tests.unit.test_parity_explain import (
    FRESH,
    LATE,
    NOON,
    ON_TIME,
    ROWS,
    SOURCE,
    STREAM,
    VIEW,
    Q,
    event,
    hourly,
    latest,
)

DAYS = [event(number, NOON - number * 7 * HOUR, 100 + number) for number in range(1, 30)]
"""Enough events that nothing gives their state by chance."""


def daily(held: Sequence[Event], log: Sequence[Event] = DAYS, feature: str = "sum_amount_7d") -> Case:
    """A week of a card by hours, whose store holds some events."""
    return case(VIEW, SOURCE, feature, (1,), Q, list(log), list(held))


def _suspect(found: Case) -> Suspect:
    verdict = explain(found, STREAM)
    assert verdict.cause is Cause.UNEXPLAINED
    return verdict.suspect


def test_a_lost_event_is_a_lost_update() -> None:
    lost = DAYS[3]
    verdict = explain(daily([item for item in DAYS if item is not lost]), STREAM)
    assert (verdict.cause, verdict.suspect) == (Cause.UNEXPLAINED, Suspect.LOST_UPDATE)
    assert f"offset {lost.offset}" in verdict.proof


def test_an_event_that_is_counted_again_was_applied_twice() -> None:
    assert _suspect(daily([*DAYS, DAYS[5]])) is Suspect.APPLIED_TWICE


def test_events_in_the_next_tile_are_a_shifted_window() -> None:
    assert _suspect(daily([replace(item, event_ts=item.event_ts + HOUR) for item in DAYS])) is Suspect.SHIFTED_WINDOW


def test_events_in_another_zones_hours_are_a_shifted_time() -> None:
    verdict = explain(daily([replace(item, event_ts=item.event_ts + 2 * HOUR) for item in DAYS]), STREAM)
    assert verdict.suspect is Suspect.SHIFTED_TIME
    assert "+2 h off" in verdict.proof


def test_the_events_of_another_key_are_a_wrong_key() -> None:
    others = [event(100 + n, NOON - n * 11 * HOUR, 7 * n, card=2) for n in range(1, 14)]
    mine = [replace(item, values={**item.values, "card_id": 1}) for item in others]
    found = daily(mine)
    assert _suspect(replace(found, others=[("card_id=2", others)])) is Suspect.WRONG_KEY
    assert _suspect(found) is not Suspect.WRONG_KEY


def test_a_changed_sum_is_corrupted_state() -> None:
    assert _suspect(tampered(daily(DAYS), 12345)) is Suspect.CORRUPTED_STATE


def test_a_sum_of_doubles_is_float_rounding() -> None:
    aggregate = next(item for item in VIEW.aggregates if item.feature == "sum_amount_7d")
    assert aggregate_column(aggregate, SOURCE)
    amounts = [29, 57, 58, 113, 114, 115]
    log = [event(number, NOON - 3 * HOUR + number * MINUTE, amount) for number, amount in enumerate(amounts)]
    found = case(VIEW, SOURCE, "sum_amount_7d", (1,), Q, log, log)
    (hop, slots), *_ = found.stored.tiles.items()
    (tile, slot), *_ = slots.items()
    added = int(sum((amount / 100 for amount in amounts), 0.0) * 100)
    assert added != sum(amounts)
    (name,) = [item.name for item in components_of(aggregate, SOURCE) if item.name.startswith("sum")]
    doubled = replace(slot, states={**slot.states, name: added})
    assert _suspect(replace(found, served=added, stored=Stored({hop: {tile: doubled}}))) is Suspect.FLOAT_ROUNDING


def test_a_row_that_is_older_than_it_has_to_be_is_a_lost_update() -> None:
    assert _suspect(latest([ON_TIME, FRESH], ON_TIME, 250)) is Suspect.LOST_UPDATE


def test_a_row_of_another_key_is_named() -> None:
    other = event(50, NOON + 32 * MINUTE, 4711, card=2)
    found = replace(latest([ON_TIME, FRESH], other, 4711), others=[("card_id=2", [other])])
    assert _suspect(found) is Suspect.WRONG_KEY


def test_a_row_whose_time_was_read_in_another_zone_is_named() -> None:
    log = [replace(ON_TIME, event_ts=FRESH.event_ts - HOUR), FRESH]
    wrong = replace(log[0], event_ts=log[0].event_ts + 2 * HOUR)
    assert _suspect(latest(log, wrong, 250)) is Suspect.SHIFTED_TIME


def test_a_record_that_the_log_refuses_and_the_store_counts_is_rejected() -> None:
    refused = event(9, NOON + 33 * MINUTE, 999)
    found = replace(hourly([ON_TIME, FRESH], [ON_TIME, FRESH, refused]), rejected=[refused])
    verdict = explain(found, STREAM)
    assert (verdict.cause, verdict.also) == (Cause.REJECTED, ())
    assert explain(replace(found, rejected=[]), STREAM).cause is Cause.UNEXPLAINED


def test_a_producers_clock_that_is_believed_is_a_matter_of_clocks() -> None:
    ahead = replace(ON_TIME, event_ts=NOON + 4 * MINUTE, declared_ts=NOON + 7 * MINUTE, available_at=NOON + 4 * MINUTE)
    believed = replace(ahead, event_ts=ahead.declared_ts)
    # An hour later its tile is gone from the window, and the one that it was believed to be of is not.
    found = case(VIEW, SOURCE, "sum_amount_1h", (1,), NOON + 66 * MINUTE, [ahead, FRESH], [believed, FRESH])
    assert found.served != found.expected
    assert explain(found, STREAM).cause is Cause.CLOCK


def test_two_causes_at_once_are_both_named() -> None:
    behind = replace(STREAM, certified={0: 3})
    late = explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME]), behind)
    assert (late.cause, late.also) == (Cause.IN_FLIGHT, (Cause.LATE,))
    stale = explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME]), replace(behind, freshness=MINUTE))
    assert (stale.cause, stale.also) == (Cause.STALE, (Cause.LATE,))


def test_a_clock_beside_a_late_event_names_both() -> None:
    future = event(4, Q + MINUTE - SECOND, 5)
    log = [ON_TIME, LATE, future]
    stored = stored_tiles(VIEW, SOURCE, "sum_amount_1h", [ON_TIME, future])
    found = replace(hourly(log, [ON_TIME]), served=255, stored=stored)
    verdict = explain(found, STREAM)
    assert (verdict.cause, verdict.also) == (Cause.CLOCK, (Cause.LATE,))


def test_another_ttl_beside_a_row_in_flight_names_both() -> None:
    q = NOON + 3 * DAY
    waiting = event(8, NOON + MINUTE * 20, 600)
    expected = value_at(ROWS, SOURCE, [ON_TIME, waiting], (1,), q)["amount"].value
    found = Case(ROWS, SOURCE, "amount", (1,), q, 250, expected, Stored({}, ON_TIME.order), [ON_TIME, waiting])
    verdict = explain(found, replace(STREAM, certified={0: 8}, freshness=10 * DAY))
    assert (verdict.cause, verdict.also) == (Cause.TTL, (Cause.IN_FLIGHT,))


@pytest.mark.parametrize("suspect", [item for item in Suspect if item])
def test_every_suspect_has_words_for_the_page(suspect: Suspect) -> None:
    from coeval_parity.advice import SUSPECTS

    assert SUSPECTS[suspect]


def test_what_a_defect_makes_late_beyond_a_sound_run_is_not_hidden_by_the_study() -> None:
    clean = Counter({"late": 10})
    assert grown(Counter({"late": 12, "clock": 3}), clean) == {"late": 2, "clock": 3}
    assert grown(Counter({"late": 9}), clean) == {}
