"""The interval kernel gives what the oracle gives: late events, boundaries, ties, nulls, sums beyond int64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.partial import Finalised
from coeval.reference import value_at, visible_events
from coeval.reference.aggregate import agree, tolerance
from coeval.reference.oracle import in_window, values_of
from coeval.spec.model import Aggregate, EventSource, Field, WindowedView
from coeval.spec.records import Event
from coeval.spec.types import FLOAT64, INT64, INT64_MAX, INT64_MIN, STRING, TIMESTAMP, DataType, Physical
from coeval_pipelines.offline.kernel import Events, Spine, Values, window_values

MONEY = DataType.parse("decimal(18,2)")
WIDE = DataType.parse("decimal(38,6)")
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
        Field("score", FLOAT64),
        Field("wide", WIDE),
    ),
)


COLUMNS = ("n", "money", "score", "wide")


def _fits(function: str, column: str) -> bool:
    return column != "wide" or function not in ("variance", "stddev")


def _view() -> WindowedView:
    aggregates, features = [], []
    for window, hop in ((10, 5), (40, 5), (60, 20)):
        for function, column in [("count", ""), *((n, c) for c in COLUMNS for n in AGGREGATIONS if _fits(n, c))]:
            name = f"{function}_{column}_{window}"
            aggregates.append(Aggregate(name, function, column, window, hop))
            taken = SOURCE.field(column).type if column else None
            features.append(Field(name, AGGREGATIONS[function].result(taken)))
    return WindowedView("spend", ("k",), (SOURCE.field("k"),), "purchases", tuple(aggregates), tuple(features))


VIEW = _view()


def _event(key: int, declared: int, delay: int, n: int | None, money: int | None, offset: int) -> Event:
    score = None if n is None else n / 7
    wide = None if money is None else money * 10**20 - 3
    payload: dict[str, Physical] = {"n": n, "money": money, "score": score, "wide": wide}
    values = {"id": str(offset), "at": declared, "k": key} | payload
    return Event(str(offset), declared, declared + delay, 0, offset, values, declared)


def _column(events: list[Event], name: str) -> Values:
    values = [event.values[name] for event in events]
    dtype = {"score": np.float64, "wide": object}.get(name, np.int64)
    return Values(
        np.array([0 if value is None else value for value in values], dtype=dtype),
        np.array([value is not None for value in values], dtype=bool),
    )


def _run(events: list[Event], spine: list[tuple[int, int]]) -> dict[str, Finalised]:
    def ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    columnar = Events(
        ints([int(str(event.values["k"])) for event in events]),
        ints([event.event_ts for event in events]),
        ints([event.available_at for event in events]),
        {name: _column(events, name) for name in COLUMNS},
        (ints([event.partition for event in events]), ints([event.offset for event in events])),
    )
    return window_values(VIEW, SOURCE, columnar, Spine(ints([key for key, _ in spine]), ints([q for _, q in spine])))


def _found(finalised: Finalised, row: int) -> Physical:
    if finalised.null[row]:
        return None
    value = finalised.values[row]
    return float(value) if isinstance(value, float) else int(value)


def _assert_equal(events: list[Event], spine: list[tuple[int, int]]) -> None:
    found = _run(events, spine)
    for row, (key, q) in enumerate(spine):
        expected = value_at(VIEW, SOURCE, events, (key,), q)
        for aggregate in VIEW.aggregates:
            feature, value = aggregate.feature, expected[aggregate.feature]
            bound = _bound(aggregate, events, key, q)
            assert agree(aggregate.function, _found(found[feature], row), value.value, bound), (feature, key, q)
            assert found[feature].overflow[row] == (value.status == "OVERFLOW"), (feature, key, q)


def _bound(aggregate: Aggregate, events: list[Event], key: int, q: int) -> float:
    """Sums of doubles are exact here: only what is made of a rounded sum has a tolerance."""
    if aggregate.function not in ("mean", "variance", "stddev") or aggregate.column != "score":
        return 0.0
    seen = in_window(aggregate, visible_events(VIEW, events, (key,), q), q)
    return tolerance(aggregate.function, values_of(aggregate, seen), FLOAT64)


def test_a_great_double_that_left_the_window_leaves_nothing_behind() -> None:
    events = [_event(0, at, 0, n, 1, at) for at, n in ((0, 7 * 10**17), (6, 7), (7, 14))]
    assert _run(events, [(0, 16)])["sum_score_10"].values.tolist() == [3.0]


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
