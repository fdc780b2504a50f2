"""Explanations: a cause is accepted only where what the rules allow gives exactly the served value."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from coeval.reference.oracle import is_late, key_of, value_at
from coeval.spec.erasure import Erasure
from coeval.spec.model import RowView, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import Physical, micros
from coeval_parity.evidence import Case, Delivery, Floor, Stored, erased_epoch
from coeval_parity.expected import floors_of
from coeval_parity.explain import explain
from coeval_parity.omissions import Why
from coeval_parity.result import BENIGN, Cause, Suspect
from coeval_pipelines.catalog.expressions import parse_condition
from tests.support import catalog
from tests.support.events import records
from tests.support.parity import case, stored_tiles, tampered

SOURCE = catalog.PAYMENTS
VIEW = cast("WindowedView", catalog.CARD_SPEND)
ROWS = cast("RowView", catalog.LATEST)

NOON = micros(datetime(2026, 5, 4, 12, tzinfo=UTC))
Q = NOON + 50 * MINUTE
STREAM = Delivery(since=0, load_cut=None, rows_at=None, certified={0: 1000, 1: 1000}, freshness=DAY)


def event(number: int, at: int, amount: int = 100, delay: int = SECOND, partition: int = 0, card: int = 1) -> Event:
    values: dict[str, Physical] = {
        "card_id": card,
        "merchant_id": "m",
        "amount": amount,
        "fee": None,
        "points": None,
        "note": None,
    }
    return Event(f"e{number}", at, at + delay, partition, number, values, at)


ON_TIME = event(1, NOON + 2 * MINUTE, 250)
LATE = event(2, NOON + 3 * MINUTE, 1000, delay=40 * MINUTE)
FRESH = event(3, NOON + 31 * MINUTE, 77)


def hourly(log: list[Event], held: list[Event], q: int = Q, feature: str = "sum_amount_1h") -> Case:
    return case(VIEW, SOURCE, feature, (1,), q, log, held)


def test_an_event_that_came_after_its_tile_was_final_is_late() -> None:
    verdict = explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME, FRESH]), STREAM)
    assert (verdict.cause, dict(verdict.omitted)) == (Cause.LATE, {LATE.order: Why.LATE})
    assert verdict.since == LATE.available_at


def test_the_same_event_is_not_late_for_a_coarser_tile() -> None:
    log, held = [ON_TIME, LATE, FRESH], [ON_TIME, FRESH]
    assert explain(hourly(log, held, feature="sum_amount_30d"), STREAM).cause is Cause.UNEXPLAINED


def test_an_event_on_time_that_is_missing_is_lost_and_not_late() -> None:
    verdict = explain(hourly([ON_TIME, LATE, FRESH], [FRESH]), STREAM)
    assert verdict.cause is Cause.UNEXPLAINED
    assert verdict.since == NOON


def test_late_counts_only_what_the_stream_owns() -> None:
    owned_later = replace(STREAM, since=NOON + 30 * MINUTE)
    assert explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME, FRESH]), owned_later).cause is Cause.UNEXPLAINED


def test_what_a_batch_load_has_covered_is_no_longer_late() -> None:
    loaded = replace(STREAM, load_cut=Q - MINUTE, rows_at=Q)
    assert explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME, FRESH]), loaded).cause is Cause.UNEXPLAINED


def test_what_came_after_the_cut_of_the_batch_load_is_late_in_its_tiles_too() -> None:
    loaded = replace(STREAM, since=NOON + 30 * MINUTE, load_cut=NOON + 20 * MINUTE, rows_at=NOON + 21 * MINUTE)
    assert explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME, FRESH]), loaded).cause is Cause.LATE
    assert explain(hourly([ON_TIME, LATE, FRESH], [FRESH]), loaded).cause is Cause.UNEXPLAINED


def test_an_event_above_the_certified_offsets_is_in_flight() -> None:
    verdict = explain(hourly([ON_TIME, FRESH], [ON_TIME]), replace(STREAM, certified={0: 3}))
    assert (verdict.cause, dict(verdict.omitted)) == (Cause.IN_FLIGHT, {FRESH.order: Why.IN_FLIGHT})


def test_an_event_below_the_certified_offsets_is_lost() -> None:
    assert explain(hourly([ON_TIME, FRESH], [ON_TIME]), replace(STREAM, certified={0: 4})).cause is Cause.UNEXPLAINED


def test_without_a_certificate_nothing_is_in_flight() -> None:
    assert explain(hourly([ON_TIME, FRESH], [ON_TIME]), replace(STREAM, certified=None)).cause is Cause.UNEXPLAINED


def test_history_is_never_in_flight() -> None:
    old = replace(FRESH, partition=-1)
    assert explain(hourly([ON_TIME, old], [ON_TIME]), replace(STREAM, certified={})).cause is Cause.UNEXPLAINED


def test_of_one_partition_only_a_tail_can_be_in_flight() -> None:
    first, second = event(5, NOON + 31 * MINUTE, 10), event(6, NOON + 32 * MINUTE, 20)
    certified = replace(STREAM, certified={0: 5})
    assert explain(hourly([ON_TIME, first, second], [ON_TIME, first]), certified).cause is Cause.IN_FLIGHT
    assert explain(hourly([ON_TIME, first, second], [ON_TIME, second]), certified).cause is Cause.UNEXPLAINED


def test_partitions_are_in_flight_independently() -> None:
    mine = [event(n, NOON + n * MINUTE, 10 + n, partition=n % 2) for n in range(10, 18)]
    held = [item for item in mine if (item.partition, item.offset) < (0, 14) or item.partition]
    certified = replace(STREAM, certified={0: 10, 1: 10})
    verdict = explain(hourly(mine, held), certified)
    assert verdict.cause is Cause.IN_FLIGHT
    assert {order[3] for order in verdict.omitted} == {14, 16}


def test_late_and_in_flight_together_are_in_flight() -> None:
    verdict = explain(hourly([ON_TIME, LATE, FRESH], [ON_TIME]), replace(STREAM, certified={0: 3}))
    assert verdict.cause is Cause.IN_FLIGHT
    assert set(verdict.omitted.values()) == {Why.LATE, Why.IN_FLIGHT}


def test_what_an_erasure_took_with_its_tile_is_erased_until_batch_has_written_it_anew() -> None:
    floored = replace(hourly([ON_TIME, FRESH], [FRESH]), floors=[Floor(NOON + 2 * MINUTE, 3)])
    verdict = explain(floored, STREAM)
    assert (verdict.cause, dict(verdict.omitted)) == (Cause.ERASED, {ON_TIME.order: Why.ERASED})
    corrected = replace(STREAM, load_cut=NOON + 30 * MINUTE, load_run=4)
    assert explain(floored, corrected).cause is Cause.UNEXPLAINED
    assert explain(floored, replace(corrected, load_run=3)).cause is Cause.ERASED
    assert explain(replace(floored, floors=[Floor(NOON - MINUTE, 3)]), STREAM).cause is Cause.UNEXPLAINED


def test_a_value_that_still_holds_what_was_erased_is_erased_until_batch_has_written_it_anew() -> None:
    gone = event(9, NOON + 2 * MINUTE, 50)
    held = replace(hourly([ON_TIME, FRESH], [ON_TIME, gone, FRESH]), erased=[gone])
    verdict = explain(held, STREAM)
    assert verdict.cause is Cause.ERASED
    assert "Counting 1 erased event " in verdict.proof
    assert explain(replace(held, erased=[]), STREAM).cause is Cause.UNEXPLAINED
    assert explain(tampered(held, 1), STREAM).cause is Cause.UNEXPLAINED


def test_what_was_erased_is_unexplained_once_a_load_had_to_take_it_away() -> None:
    gone = event(9, NOON + 2 * MINUTE, 50)
    mine = Erasure("merchant_id", "m", gone.available_at, 4)
    held = replace(hourly([ON_TIME, FRESH], [ON_TIME, gone, FRESH]), erased=[gone], erasures=[mine])
    loaded = replace(STREAM, load_cut=NOON + 30 * MINUTE, load_run=4)
    assert explain(held, loaded).cause is Cause.ERASED
    assert explain(held, replace(loaded, load_run=5)).cause is Cause.UNEXPLAINED
    # The load did not write that tile: it was not final yet.
    assert explain(held, replace(loaded, load_run=5, load_cut=NOON)).cause is Cause.ERASED


def test_the_erasure_of_somebody_else_excuses_nothing() -> None:
    gone = event(9, NOON + 2 * MINUTE, 50)
    held = replace(hourly([ON_TIME, FRESH], [ON_TIME, gone, FRESH]), erased=[gone])
    held = replace(held, stored=stored_tiles(VIEW, SOURCE, held.feature, [ON_TIME, gone, FRESH], epoch=5))
    loaded = replace(STREAM, load_cut=NOON + 30 * MINUTE, load_run=5)
    mine, other = (Erasure("merchant_id", who, NOON + HOUR, epoch) for who, epoch in (("m", 4), ("n", 5)))
    assert explain(replace(held, erasures=[mine, other]), loaded).cause is Cause.UNEXPLAINED
    assert explain(replace(held, erasures=[replace(mine, epoch=5)]), loaded).cause is Cause.ERASED


def test_a_removed_event_may_be_that_of_any_subject_it_does_not_name_any_more() -> None:
    gone = replace(ON_TIME, values={**ON_TIME.values, "merchant_id": None})
    erasures = [Erasure("merchant_id", "m", NOON + HOUR, 4), Erasure("card_id", 2, NOON + HOUR, 9)]
    assert erased_epoch(gone, erasures) == 4
    assert erased_epoch(gone, [replace(erasures[0], at=NOON)]) == 0


def test_an_erased_row_that_a_load_had_to_replace_is_unexplained() -> None:
    gone = event(9, NOON + 20 * MINUTE, 50)
    found = replace(latest([ON_TIME], gone, 50), erased=[gone], erasures=[Erasure("merchant_id", "m", NOON + HOUR, 4)])
    loaded = replace(STREAM, load_cut=Q, rows_at=Q, load_run=4)
    assert explain(found, loaded).cause is Cause.ERASED
    assert explain(found, replace(loaded, load_run=5)).cause is Cause.UNEXPLAINED


def test_a_row_that_an_erased_one_had_replaced_is_erased_until_batch_has_written_it_anew() -> None:
    late = event(4, NOON, delay=40 * MINUTE)
    expected = value_at(ROWS, SOURCE, [late], (1,), Q)["amount"].value
    found = Case(ROWS, SOURCE, "amount", (1,), Q, None, expected, Stored({}), [late], floors=[Floor(NOON + MINUTE, 2)])
    assert explain(found, STREAM).cause is Cause.ERASED
    written = replace(STREAM, load_run=3, load_cut=late.available_at + 1)
    assert explain(found, written).cause is Cause.UNEXPLAINED
    # It became available after the load: the stream's is refused, and the next load writes it.
    assert explain(found, replace(written, load_cut=late.available_at)).cause is Cause.ERASED


def test_floors_of_two_subjects_are_not_mixed() -> None:
    floors = [Floor(NOON + 2 * MINUTE, 3), Floor(NOON - MINUTE, 5)]
    found = replace(hourly([ON_TIME, FRESH], [FRESH]), floors=floors)
    assert explain(found, replace(STREAM, load_cut=NOON + 30 * MINUTE, load_run=4)).cause is Cause.UNEXPLAINED
    reached = replace(found, floors=[floors[0], Floor(NOON, 5)])
    assert explain(reached, replace(STREAM, load_cut=NOON + 30 * MINUTE, load_run=4)).cause is Cause.ERASED


def test_a_key_has_the_floors_of_its_subjects_and_a_row_of_others_that_of_its_newest_erased_event() -> None:
    erasures = (Erasure("card_id", 1, NOON, 3), Erasure("merchant_id", "m", NOON + HOUR, 5))
    unrelated = Erasure("merchant_id", "n", NOON + HOUR, 9)
    gone = [ON_TIME, FRESH]
    assert floors_of(erasures, catalog.PAIR, (1, "m"), []) == (Floor(NOON, 3), Floor(NOON + HOUR, 5))
    assert floors_of(erasures, VIEW, (1,), gone) == (Floor(NOON, 3),)
    assert floors_of((*erasures, unrelated), ROWS, (1,), gone) == (Floor(NOON, 3), Floor(FRESH.event_ts, 5))
    assert floors_of(erasures, ROWS, (2,), []) == ()


def test_in_flight_for_longer_than_the_freshness_promise_is_stale() -> None:
    verdict = explain(hourly([ON_TIME, FRESH], [ON_TIME]), replace(STREAM, certified={0: 3}, freshness=MINUTE))
    assert verdict.cause is Cause.STALE


def test_tiles_that_nobody_delivers_are_stale() -> None:
    assert explain(hourly([ON_TIME, FRESH], []), replace(STREAM, since=NOON + DAY)).cause is Cause.STALE


def test_an_edited_tile_is_unexplained_even_beside_a_late_event() -> None:
    edited = tampered(hourly([ON_TIME, LATE, FRESH], [ON_TIME, FRESH]), 1)
    verdict = explain(edited, replace(STREAM, certified={0: 3}))
    assert verdict.cause is Cause.UNEXPLAINED
    assert "1 stored 5m tile holds" in verdict.proof


def test_an_event_gone_from_the_log_is_unexplained() -> None:
    assert explain(hourly([ON_TIME], [ON_TIME, FRESH]), STREAM).cause is Cause.UNEXPLAINED


def test_an_offline_value_that_the_oracle_denies_is_the_offline_sides_fault() -> None:
    wrong = replace(hourly([ON_TIME, LATE, FRESH], [ON_TIME, FRESH]), expected=4711)
    verdict = explain(wrong, STREAM)
    assert verdict.cause is Cause.UNEXPLAINED
    assert "the offline side is wrong" in verdict.proof
    assert verdict.suspect is Suspect.OFFLINE_SIDE


def test_events_from_after_the_read_are_a_fault_of_the_clock() -> None:
    ahead = event(4, Q + MINUTE - SECOND, 5)
    log, feature = [ON_TIME, ahead], "sum_amount_1h"
    served = replace(hourly(log, [ON_TIME]), served=255, stored=stored_tiles(VIEW, SOURCE, feature, log))
    assert explain(served, STREAM).cause is Cause.CLOCK
    elsewhere = replace(served, stored=stored_tiles(VIEW, SOURCE, feature, [ON_TIME]))
    assert explain(elsewhere, STREAM).cause is Cause.UNEXPLAINED


def test_duplicates_that_were_counted_twice_are_unexplained_and_named() -> None:
    again = replace(ON_TIME, offset=9)
    doubled = replace(hourly([ON_TIME], [ON_TIME, again]), duplicates=[again])
    verdict = explain(doubled, STREAM)
    assert verdict.cause is Cause.UNEXPLAINED
    assert "counting 1 duplicate" in verdict.proof


def test_another_version_that_was_deployed_explains_a_definition() -> None:
    longer = replace(
        VIEW,
        version="0ld",
        aggregates=tuple(
            replace(item, window=2 * HOUR) if item.feature == "sum_amount_1h" else item for item in VIEW.aggregates
        ),
    )
    before = event(7, NOON - 30 * MINUTE, 900)
    log = [before, ON_TIME]
    served = value_at(longer, SOURCE, log, (1,), Q)["sum_amount_1h"].value
    wrong = replace(hourly(log, log), served=served, definitions=[longer])
    assert explain(wrong, STREAM).cause is Cause.DEFINITION
    assert explain(replace(wrong, definitions=[]), STREAM).cause is Cause.UNEXPLAINED


def test_another_version_explains_nothing_where_the_store_does_not_hold_what_it_makes() -> None:
    dear = replace(VIEW, version="0ld", where=parse_condition("test", "amount > 1.00", SOURCE.fields))
    cheap, lost = event(1, NOON + 2 * MINUTE, 50), event(2, NOON + 31 * MINUTE, 500)
    log, feature = [cheap, lost], "count_1h"
    # The version counts one of both; the store holds the other one.
    chance = replace(hourly(log, [cheap], feature=feature), definitions=[dear], every=log)
    assert explain(chance, STREAM).cause is Cause.UNEXPLAINED
    filled = replace(hourly(log, [lost], feature=feature), definitions=[dear], every=log)
    assert explain(filled, STREAM).cause is Cause.DEFINITION


def test_a_ttl_or_another_version_explains_a_row_only_where_that_row_is_stored() -> None:
    q = NOON + 3 * DAY
    assert explain(latest([ON_TIME, FRESH], ON_TIME, 77, q), STREAM).cause is Cause.UNEXPLAINED
    dear = replace(ROWS, version="0ld", where=parse_condition("test", "amount > 1.00", SOURCE.fields))
    old = replace(latest([ON_TIME, FRESH], ON_TIME, 250), definitions=[dear], every=[ON_TIME, FRESH])
    assert explain(old, STREAM).cause is Cause.DEFINITION
    changed = replace(old, stored=Stored({}, FRESH.order))
    assert explain(changed, STREAM).cause is Cause.UNEXPLAINED


def latest(log: list[Event], stored: Event | None, served: Physical, q: int = Q) -> Case:
    expected = value_at(ROWS, SOURCE, log, (1,), q)["amount"].value
    return Case(ROWS, SOURCE, "amount", (1,), q, served, expected, Stored({}, stored.order if stored else None), log)


def test_a_row_behind_the_certified_offsets_is_lost_and_one_ahead_is_in_flight() -> None:
    behind = latest([ON_TIME, FRESH], ON_TIME, 250)
    assert explain(behind, STREAM).cause is Cause.UNEXPLAINED
    assert explain(behind, replace(STREAM, certified={0: 3})).cause is Cause.IN_FLIGHT


def test_a_row_that_was_overtaken_in_its_own_partition_cannot_be_in_flight() -> None:
    newer = event(4, NOON + 40 * MINUTE, 5)
    overtaken = replace(FRESH, offset=8)
    log = [newer, overtaken]
    assert explain(latest(log, overtaken, 77), replace(STREAM, certified={0: 0})).cause is Cause.UNEXPLAINED


def test_a_row_that_the_log_does_not_hold_is_unexplained() -> None:
    verdict = explain(latest([ON_TIME], FRESH, 77), replace(STREAM, certified={}))
    assert verdict.cause is Cause.UNEXPLAINED
    assert "offset 3: the log has no such event" in verdict.proof


def test_a_row_with_changed_values_is_unexplained() -> None:
    assert "was changed" in explain(latest([ON_TIME], ON_TIME, 251), STREAM).proof


def test_a_row_served_beyond_its_ttl_is_a_matter_of_ttl() -> None:
    q = NOON + 3 * DAY
    assert explain(latest([ON_TIME], ON_TIME, 250, q), STREAM).cause is Cause.TTL
    assert explain(latest([ON_TIME], ON_TIME, 249, q), STREAM).cause is Cause.UNEXPLAINED


FEATURES = [item.feature for item in VIEW.aggregates]
START = micros(datetime(2026, 3, 20, tzinfo=UTC))


def _world(seed: int) -> tuple[random.Random, list[Event], tuple[Physical, ...], int]:
    rng = random.Random(seed)
    events = list(ingest(SOURCE, records(seed % 7, 250, START, 3 * DAY, cards=3)).good)
    key = key_of(VIEW, rng.choice(events))
    q = rng.choice(events).available_at + rng.choice((1, MINUTE, HOUR))
    return rng, [item for item in events if key_of(VIEW, item) == key], key, q


def _delivered(rng: random.Random, feature: str, events: list[Event], q: int) -> tuple[list[Event], Delivery]:
    """What a sound store holds: no late events, of each tile and partition any prefix above the certified offsets."""
    hop = next(item.hop for item in VIEW.aggregates if item.feature == feature)
    visible = [item for item in events if item.available_at < q]
    certified = {p: rng.choice([item.offset for item in visible] or [0]) for p in (0, 1)}
    reached = {
        (p, tile): rng.choice([item.offset for item in visible])
        for p in (0, 1)
        for tile in {item.event_ts // hop for item in visible}
    }
    held = [
        item
        for item in visible
        if not is_late(item, hop, SOURCE.allowed_lateness)
        and (item.offset < certified[item.partition] or item.offset < reached[item.partition, item.event_ts // hop])
    ]
    return held, replace(STREAM, certified=certified, freshness=10 * DAY)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(FEATURES))
def test_whatever_a_sound_store_lacks_is_explained_as_benign(seed: int, feature: str) -> None:
    rng, events, key, q = _world(seed)
    held, delivery = _delivered(rng, feature, events, q)
    found = case(VIEW, SOURCE, feature, key, q, events, held)
    assume(found.served != found.expected)
    verdict = explain(found, delivery)
    assert verdict.cause in BENIGN, verdict.proof
    kept = [item for item in events if item.available_at < q and item.order not in verdict.omitted]
    assert value_at(VIEW, SOURCE, kept, key, q)[feature].value == found.served


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["sum_amount_1h", "sum_amount_24h", "sum_amount_7d", "sum_amount_30d"]))
def test_an_edited_tile_is_never_explained_away(seed: int, feature: str) -> None:
    rng, events, key, q = _world(seed)
    held, delivery = _delivered(rng, feature, events, q)
    found = case(VIEW, SOURCE, feature, key, q, events, held)
    assume(found.served is not None and any(found.stored.tiles.values()))
    # No sum of these amounts has a twin a trillion away.
    assert explain(tampered(found, 10**14), delivery).cause is Cause.UNEXPLAINED


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(FEATURES))
@example(364, "count_1h")
def test_a_lost_event_is_never_explained_away(seed: int, feature: str) -> None:
    rng, events, key, q = _world(seed)
    hop = next(item.hop for item in VIEW.aggregates if item.feature == feature)
    visible = [item for item in events if item.available_at < q]
    held = [item for item in visible if not is_late(item, hop, SOURCE.allowed_lateness)]
    assume(held)
    lost = rng.choice(held)
    found = case(VIEW, SOURCE, feature, key, q, events, [item for item in held if item is not lost])
    on_time = case(VIEW, SOURCE, feature, key, q, events, held)
    assume(found.served not in (found.expected, on_time.served))
    certified = replace(STREAM, certified={0: 10**6, 1: 10**6})
    assert explain(found, certified).cause is Cause.UNEXPLAINED


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_explains_a_late_event(feature: str) -> None:
    aggregate = next(item for item in VIEW.aggregates if item.feature == feature)
    values: dict[str, Physical] = {**ON_TIME.values, "fee": 5, "points": 3}
    early = replace(event(8, NOON), values=values | {"amount": 600})
    amount = 500 if aggregate.function == "min" else 700
    late = replace(
        event(9, NOON + MINUTE, delay=aggregate.hop + SOURCE.allowed_lateness), values=values | {"amount": amount}
    )
    found = case(VIEW, SOURCE, feature, (1,), NOON + aggregate.window, [early, late], [early])
    assert found.served != found.expected
    assert explain(found, STREAM).cause is Cause.LATE
