"""The interval kernel gives what the oracle gives: late events, boundaries, ties, nulls, sums beyond int64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import Finalised
from coeval.reference import value_at
from coeval.spec.model import Aggregate, EventSource, Field, WindowedView
from coeval.spec.records import Event
from coeval.spec.types import INT64, INT64_MAX, INT64_MIN, STRING, TIMESTAMP, DataType, Physical
from coeval_pipelines.offline.kernel import Events, Spine, Values, window_values

MONEY = DataType.parse("decimal(18,2)")
SOURCE = EventSource(
    name="purchases",
    topic="purchases",
    event_id="id",
    event_ts="at",
    fields=(
        Field("id", STRING, nullable=False),
        Field("at", TIMESTAMP, nullable=False),
        Field("k", INT64, nullable=False),
        Field("n", INT64),
        Field("money", MONEY),
    ),
)


def _view() -> WindowedView:
    aggregates, features = [], []
    for window, hop in ((10, 5), (40, 5), (60, 20)):
        for function, column in [("count", ""), *((name, c) for c in ("n", "money") for name in AGGREGATIONS)]:
            name = f"{function}_{column}_{window}"
            aggregates.append(Aggregate(name, function, column, window, hop))
            taken = SOURCE.field(column).type if column else None
            features.append(Field(name, AGGREGATIONS[function].result(taken)))
    return WindowedView("spend", ("k",), (SOURCE.field("k"),), "purchases", tuple(aggregates), tuple(features))


VIEW = _view()


def _event(key: int, declared: int, delay: int, n: int | None, money: int | None, offset: int) -> Event:
    values: dict[str, Physical] = {"id": str(offset), "at": declared, "k": key, "n": n, "money": money}
    return Event(str(offset), declared, declared + delay, 0, offset, values, declared)


def _column(events: list[Event], name: str) -> Values:
    values = [event.values[name] for event in events]
    return Values(
        np.array([0 if value is None else value for value in values], dtype=np.int64),
        np.array([value is not None for value in values], dtype=bool),
    )


def _run(events: list[Event], spine: list[tuple[int, int]]) -> dict[str, Finalised]:
    def ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    columnar = Events(
        ints([int(str(event.values["k"])) for event in events]),
        ints([event.event_ts for event in events]),
        ints([event.available_at for event in events]),
        {name: _column(events, name) for name in ("n", "money")},
    )
    return window_values(VIEW, SOURCE, columnar, Spine(ints([key for key, _ in spine]), ints([q for _, q in spine])))


def _found(finalised: Finalised, row: int) -> Physical:
    if finalised.null[row]:
        return None
    value = finalised.values[row]
    return float(value) if isinstance(value, np.floating) else int(value)


def _assert_equal(events: list[Event], spine: list[tuple[int, int]]) -> None:
    found = _run(events, spine)
    for row, (key, q) in enumerate(spine):
        expected = value_at(VIEW, SOURCE, events, (key,), q)
        for feature, value in expected.items():
            assert _found(found[feature], row) == value.value, (feature, key, q)
            assert found[feature].overflow[row] == (value.status == "OVERFLOW"), (feature, key, q)


TIMES = st.integers(-120, 120)
ANY_INT = st.none() | st.integers(-50, 50) | st.sampled_from([INT64_MIN, INT64_MAX, INT64_MAX - 1, 2**53 + 1])
AMOUNTS = st.none() | st.integers(-500, 500) | st.sampled_from([10**18 - 1, 1 - 10**18])
ROWS = st.tuples(st.integers(0, 2), TIMES, st.sampled_from([0, 0, 1, 3, 5, 19, 20, 45, 70]), ANY_INT, AMOUNTS)


@given(st.lists(ROWS, max_size=40), st.lists(st.tuples(st.integers(0, 3), st.integers(-130, 260)), max_size=30))
def test_every_window_equals_the_oracle(rows: list[tuple[int, int, int, int | None, int | None]], spine) -> None:  # type: ignore[no-untyped-def]
    events = [_event(*row, offset) for offset, row in enumerate(rows)]
    _assert_equal(events, [*spine, *spine[:3], *_edges(events)])


def _edges(events: list[Event]) -> list[tuple[int, int]]:
    """The instants at which an event enters and leaves a window, and those beside them."""
    return [
        (int(str(event.values["k"])), at + beside)
        for event in events[:6]
        for at in (event.available_at, event.event_ts // 5 * 5 + 15, event.event_ts // 20 * 20 + 80)
        for beside in (0, 1)
    ]


def test_long_runs_of_rows_fill_every_level_of_the_table() -> None:
    generator = np.random.default_rng(20261120)
    events = [
        _event(int(k), int(t), int(d), int(n), int(n), i)
        for i, (k, t, d, n) in enumerate(
            zip(
                generator.integers(0, 3, 150),
                generator.integers(0, 90, 150),
                generator.choice([0, 0, 0, 7, 30], 150),
                generator.integers(-99, 99, 150),
                strict=True,
            )
        )
    ]
    _assert_equal(events, [(int(k), int(q)) for k, q in zip(generator.integers(0, 3, 400), range(400), strict=True)])


def test_a_sum_beyond_int64_is_overflow_for_integers_and_exact_for_decimals() -> None:
    events = [_event(0, 1, 0, INT64_MAX, 10**18 - 1, offset) for offset in range(12)]
    found = _run(events, [(0, 5)])
    assert found["sum_n_10"].overflow[0] and found["sum_n_10"].null[0]
    assert _found(found["sum_money_10"], 0) == 12 * (10**18 - 1)
    assert _found(found["mean_n_10"], 0) == float(INT64_MAX)


def test_an_event_is_not_seen_at_the_instant_it_became_available() -> None:
    found = _run([_event(0, 10, 5, 1, 1, 0)], [(0, 15), (0, 16)])
    assert [_found(found["count__60"], row) for row in (0, 1)] == [0, 1]


@pytest.mark.parametrize("spine", [[], [(7, 100)]])
def test_no_events_and_no_rows_are_no_trouble(spine: list[tuple[int, int]]) -> None:
    _assert_equal([], spine)
