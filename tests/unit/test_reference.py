"""The oracle explains itself: the events that it names make the value, and each of the others has its reason."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from coeval.reference import Part, explain, value_at, visible_events
from coeval.reference.aggregate import BeyondTypeError, aggregate
from coeval.reference.oracle import key_of
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import FLOAT64, INT64, INT64_MAX, DataType, micros
from tests.support import catalog
from tests.support.events import records

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
VIEWS = list(catalog.manifest().views.values())


def _events(seed: int) -> list[Event]:
    return list(ingest(catalog.PAYMENTS, records(seed, 400, START, 35 * DAY)).good)


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
def test_the_events_that_an_explanation_names_make_the_value(view: catalog.View) -> None:
    print("seed 11")
    rng = random.Random(11)
    events = _events(11)
    parts: Counter[Part] = Counter()
    for _ in range(40):
        event = rng.choice(events)
        key, q = key_of(view, event), event.available_at + rng.choice((0, 1, MINUTE, HOUR, 3 * DAY))
        feature = rng.choice(view.features).name
        found = explain(view, catalog.PAYMENTS, events, key, q, feature)
        again = value_at(view, catalog.PAYMENTS, found.made_of, key, q)[feature].value
        assert (found.value.value, found.value.value) == (
            value_at(view, catalog.PAYMENTS, events, key, q)[feature].value,
            again,
        )
        assert len(found.contributions) == sum(key_of(view, event) == key for event in events)
        unseen = [item.event for item in found.contributions if item.part is Part.NOT_AVAILABLE]
        assert set(map(id, unseen)).isdisjoint(map(id, visible_events(view, events, key, q)))
        parts.update(item.part for item in found.contributions)
    assert parts[Part.COUNTED] and parts[Part.NOT_AVAILABLE]


def test_a_late_event_is_said_to_be_late() -> None:
    view = catalog.CARD_SPEND
    values = {"card_id": 1, "merchant_id": "m", "amount": 100, "fee": None, "points": 1, "note": None}
    on_time = Event("a", START, START + MINUTE, 0, 0, values, START)
    late = Event("b", START, START + HOUR, 0, 1, values, START)
    found = explain(view, catalog.PAYMENTS, [late, on_time], (1,), START + 2 * HOUR, "count_24h")
    assert [(item.event.event_id, item.late, item.tile) for item in found.contributions] == [
        ("a", False, START // HOUR),
        ("b", False, START // HOUR),
    ]
    found = explain(view, catalog.PAYMENTS, [late, on_time], (1,), START + HOUR + 1, "count_1h")
    assert [(item.event.event_id, item.late) for item in found.contributions] == [("a", False), ("b", True)]
    assert found.start == START and found.value.value == 2


def test_an_exact_variance_does_not_cancel() -> None:
    values = [10**17, 10**17 + 1, 10**17 + 2]
    assert aggregate("variance", values, 3, DataType.parse("decimal(18,0)"), FLOAT64) == 2 / 3
    assert aggregate("stddev", [5, 5], 2, INT64, FLOAT64) == 0.0


def test_what_leaves_its_type_is_beyond_it() -> None:
    with pytest.raises(BeyondTypeError):
        aggregate("sum", [INT64_MAX, 1], 2, INT64, INT64)
    with pytest.raises(BeyondTypeError):
        aggregate("mean", [1.7e308, 1.7e308], 2, FLOAT64, FLOAT64)
    assert aggregate("sum", [INT64_MAX, 1, -1], 3, INT64, INT64) == INT64_MAX
