"""The as-of kernel gives what the oracle gives: late rows, ties, time to live, strict and inclusive visibility."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.reference import value_at
from coeval.spec.model import BatchSource, EventSource, Field, RowView
from coeval.spec.records import Event
from coeval.spec.types import INT64, INT64_MAX, INT64_MIN, STRING, TIMESTAMP
from coeval_pipelines.offline.asof_kernel import latest_events
from coeval_pipelines.offline.kernel import Events, Spine

KEY, NUMBER = Field("k", INT64, nullable=False), Field("n", INT64)
FIELDS = (Field("id", STRING, nullable=False), Field("at", TIMESTAMP, nullable=False), KEY, NUMBER)
STREAM = EventSource(name="moves", topic="moves", event_id="id", event_ts="at", fields=FIELDS)
BATCH = BatchSource(name="moves", path="", format="parquet", fields=FIELDS, event_ts="at")
Row = tuple[int, int, int, int]
"""Key, event_ts, available_at, partition."""


def _events(rows: list[Row]) -> list[Event]:
    return [
        Event(str(n), at, available, partition, n, {"id": str(n), "at": at, "k": key, "n": n}, at)
        for n, (key, at, available, partition) in enumerate(rows)
    ]


def _ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def _latest(rows: list[Row], spine: list[tuple[int, int]], *, strict: bool, ttl: int) -> list[int]:
    keys, times, available, partitions = (_ints([row[place] for row in rows]) for place in range(4))
    events = Events(keys, times, available, {}, (partitions, np.arange(len(rows))))
    asked = Spine(_ints([key for key, _ in spine]), _ints([q for _, q in spine]))
    return latest_events(events, available, asked, strict=strict, ttl=ttl).tolist()  # type: ignore[no-any-return]


ROWS = st.tuples(st.integers(0, 3), st.integers(-20, 20), st.integers(-25, 40), st.integers(-1, 1))
SPINE = st.tuples(st.integers(0, 4), st.integers(-30, 50))


@given(st.lists(ROWS, max_size=40), st.lists(SPINE, max_size=30), st.booleans(), st.sampled_from([0, 1, 7]))
def test_every_row_equals_the_oracle(
    rows: list[Row], spine: list[tuple[int, int]], stream: bool, ttl: int
) -> None:  # fmt: skip
    if stream:  # nothing in a log was available before it happened
        rows = [(key, at, max(at, available), partition) for key, at, available, partition in rows]
    view = RowView("latest", ("k",), (KEY,), "moves", (NUMBER,), stream=stream, ttl=ttl)
    events = _events(rows)
    edges = [
        (key, at + beside)
        for key, at, available, _ in rows[:8]
        for at in (at, available, at + ttl)
        for beside in (0, 1)
    ]
    found = _latest(rows, [*spine, *edges], strict=stream, ttl=ttl)
    source = STREAM if stream else BATCH
    expected = [value_at(view, source, events, (key,), q)["n"].value for key, q in [*spine, *edges]]
    assert [None if place < 0 else place for place in found] == expected


def test_a_row_that_came_late_is_not_seen_before_and_does_not_replace_a_newer_one() -> None:
    rows = [(0, 10, 10, 0), (0, 5, 30, 0), (0, 12, 20, 0)]
    spine = [(0, q) for q in (10, 11, 20, 21, 31)]
    assert _latest(rows, spine, strict=True, ttl=0) == [-1, 0, 0, 2, 2]
    assert _latest(rows, spine, strict=False, ttl=0) == [0, 0, 2, 2, 2]


def test_ties_are_decided_by_availability_then_partition_then_offset() -> None:
    rows = [(0, 1, 2, 0), (0, 1, 3, 0), (0, 1, 3, 1), (0, 1, 3, 1)]
    assert [_latest(rows[:n], [(0, 9)], strict=True, ttl=0)[0] for n in (1, 2, 3, 4)] == [0, 1, 2, 3]
    assert _latest([rows[0], rows[2], rows[1]], [(0, 9)], strict=True, ttl=0) == [1]


def test_knowledge_of_all_is_asked_for_by_another_time_of_knowing() -> None:
    event_ts, late = _ints([1, 2]), _ints([1, 99])
    events = Events(_ints([0, 0]), event_ts, late, {}, (_ints([0, 0]), _ints([0, 1])))
    asked = Spine(_ints([0]), _ints([50]))
    assert latest_events(events, late, asked, strict=True).tolist() == [0]
    assert latest_events(events, event_ts, asked, strict=True).tolist() == [1]


@pytest.mark.parametrize("ttl", [0, 5])
def test_instants_at_the_ends_of_int64_are_no_trouble(ttl: int) -> None:
    found = _latest([(0, 0, 0, 0), (1, 0, 0, 0)], [(0, INT64_MIN), (0, INT64_MAX), (1, 1)], strict=True, ttl=ttl)
    assert found == ([-1, 0, 1] if not ttl else [-1, -1, 1])


def test_no_events_and_no_rows_are_no_trouble() -> None:
    assert _latest([], [(0, 1)], strict=True, ttl=3) == [-1]
    assert _latest([(0, 1, 1, 0)], [], strict=True, ttl=3) == []
