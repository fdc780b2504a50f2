"""Groups of keys for the kernel: what goes together, and which keys are cut by time."""

from __future__ import annotations

import random

import pytest

from coeval.spec.time import DAY
from coeval_pipelines.offline.groups import BUCKETS, ROWS, Grouping, grouping


def _held(rows: list[int], found: Grouping) -> dict[int, int]:
    held: dict[int, int] = {}
    for count, group in zip(rows, found.groups, strict=True):
        held[group] = held.get(group, 0) + count
    return held


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_fuller_than_it_should_be_unless_one_bucket_is(seed: int) -> None:
    rng = random.Random(seed)
    rows = [rng.choice((0, 10, 50_000, 400_000, 3_000_000)) for _ in range(BUCKETS)]
    found = grouping(rows, 90 * DAY, 31 * DAY, 16)
    assert list(found.groups) == sorted(found.groups)
    cut = {group for group, _ in found.brackets}
    for group, held in _held(rows, found).items():
        alone = [count for count, mine in zip(rows, found.groups, strict=True) if mine == group and count]
        assert held <= ROWS or (len(alone) == 1 and group in cut)


def test_few_rows_still_give_every_worker_some() -> None:
    assert len(set(grouping([100] * BUCKETS, DAY, DAY, 16).groups)) >= 16


def test_a_bracket_is_as_long_as_an_event_is_seen_at_least() -> None:
    rows = [0] * (BUCKETS - 1) + [50 * ROWS]
    ((_, length),) = grouping(rows, 90 * DAY, 31 * DAY, 16).brackets
    assert 31 * DAY <= length <= 46 * DAY
    ((_, length),) = grouping(rows, 900 * DAY, 2 * DAY, 16).brackets
    assert length == 18 * DAY + 1


def test_what_is_seen_for_as_long_as_the_spine_lasts_is_not_cut() -> None:
    assert grouping([50 * ROWS], 30 * DAY, 31 * DAY, 16).brackets == ()


def test_no_rows_at_all_are_one_group() -> None:
    assert set(grouping([0] * BUCKETS, 0, DAY, 16).groups) == {0}
