"""Changelog messages to guarded writes: nothing between commas is NULL, the greatest wins, offsets stay contiguous."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations.tiles import tile_plan
from coeval.online.rows import decode_row
from coeval.spec.keys import bucket_of
from coeval.spec.model import RowView, WindowedView
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval_pipelines.control import Certificate
from coeval_pipelines.streaming.changelog import coalesce, encode, parse
from coeval_pipelines.streaming.feeds import Feed, Range, ranges
from coeval_pipelines.streaming.members import owners
from coeval_pipelines.streaming.progress import SourceProgress, covered_offsets
from tests.support import catalog

assert isinstance(catalog.LATEST, RowView)
assert isinstance(catalog.PAIR, WindowedView)
assert isinstance(catalog.CARD_SPEND, WindowedView)
HOP = 5 * MINUTE


def _tile(hop: int, tile: int, events: int, *states: object) -> bytes:
    return ",".join(str(item) for item in (hop, tile, events, 10, 20, *states)).encode()


def _pair(tile: int, events: int, points: int = 7, hop: int = HOUR) -> bytes:
    # card_merchant keeps count_points and max_points.
    return _tile(hop, tile, events, events, points)


@dataclass(frozen=True)
class Message:
    partition: int
    offset: int
    key: bytes
    value: bytes | None


def test_an_absent_text_an_empty_one_and_one_that_looks_like_null_differ() -> None:
    texts = [None, "", "null", "\\N", 'a "quoted", note', "two\nlines", "tab\t|%", "=x", "ünï😀"]
    values = []
    for note in texts:
        marked = "" if note is None else '"=' + note.replace('"', '""') + '"'
        values.append(f"0,1,2,0,3,=m,,-5,{marked}".encode())
    (changes,) = parse(catalog.LATEST, None, [b"i%d" % n for n in range(len(texts))], values)
    rows = [decode_row(catalog.LATEST.features, item.payload)[1] for item in encode(catalog.LATEST, None, changes)]
    assert [row[3] for row in rows] == texts
    assert {tuple(row[:3]) for row in rows} == {("m", None, -5)}


def test_sums_beyond_int64_survive() -> None:
    great = 3 * 2**63
    plan = tile_plan(catalog.CARD_SPEND, catalog.PAYMENTS)
    names = [item.name for item in plan.granularity(DAY).components]
    states = [great if name == "sum_points" else -great if name == "sum_fee" else 1 for name in names]
    small = [1 for _ in names]
    (changes,) = parse(
        catalog.CARD_SPEND, catalog.PAYMENTS, [b"i1", b"i2"], [_tile(DAY, 5, 2, *states), _tile(DAY, 5, 2, *small)]
    )
    payload = encode(catalog.CARD_SPEND, catalog.PAYMENTS, changes)[0].payload
    assert great.to_bytes(16, "little", signed=True) in payload
    assert (-great).to_bytes(16, "little", signed=True) in payload


def test_of_one_tile_the_message_that_counted_most_is_kept_wherever_it_stands() -> None:
    keys = [b"i1|sm", b"i2|sm", b"i1|sm", b"i1|sm", b"i1|sm"]
    values = [_pair(5, 2, 20), _pair(5, 9, 90), _pair(5, 3, 30), _pair(5, 1, 10), _pair(6, 1, 60)]
    (changes,) = parse(catalog.PAIR, catalog.PAYMENTS, keys, values)
    assert coalesce(changes, np.zeros(5, dtype=np.int64)).index.tolist() == [1, 2, 4]
    # Of two parts each keeps its own: the offset between them then says what the store holds.
    assert coalesce(changes, np.array([0, 0, 0, 1, 1])).index.tolist() == [1, 2, 3, 4]


def test_of_one_key_the_greatest_row_in_the_total_order_is_kept() -> None:
    orders = [(5, 9, 0, 1), (5, 9, 1, 0), (5, 8, 3, 9), (4, 99, 9, 9)]
    values = [",".join(str(part) for part in (0, *order)).encode() + b",=m,1,1," for order in orders]
    (changes,) = parse(catalog.LATEST, None, [b"i1"] * 4, values)
    assert coalesce(changes, np.zeros(4, dtype=np.int64)).index.tolist() == [1]


def test_granularities_of_one_poll_are_parsed_apart() -> None:
    names = [item.name for item in tile_plan(catalog.CARD_SPEND, catalog.PAYMENTS).granularity(HOUR).components]
    states = [1] * len(names)
    values = [_tile(hop, 5, 1, *states) for hop in (HOUR, DAY, HOUR, HOP)]
    found = parse(catalog.CARD_SPEND, catalog.PAYMENTS, [b"i1", b"i1", b"i2", b"i1"], values)
    assert {changes.hop: changes.index.tolist() for changes in found} == {HOUR: [0, 2], DAY: [1], HOP: [3]}


def test_a_range_spans_what_was_read_and_skips_what_takes_back() -> None:
    keys = [f"i{n}|sm" for n in range(40)]
    messages = []
    ends = dict.fromkeys(range(4), 10)
    for key in keys:
        bucket = bucket_of(key, 4)
        for value in (_pair(5, 1), None, _pair(5, 2)):
            messages.append(Message(bucket, ends[bucket], key.encode(), value))
            ends[bucket] += 1
    messages.append(Message(0, ends[0], b"i1|sm", None))
    found = ranges(Feed("t", "bank", catalog.PAIR, catalog.PAYMENTS), _by_partition(messages))
    assert {item.bucket: (item.first, item.following) for item in found} == {
        bucket: (10, end + (bucket == 0)) for bucket, end in ends.items()
    }
    for item in found:
        assert {update.key for update in item.updates} == {key for key in keys if bucket_of(key, 4) == item.bucket}
        assert len(item.updates) == len({update.key for update in item.updates})
        assert item.newest == 20


def _by_partition(messages: Sequence[Message]) -> dict[int, list[Message]]:
    return {at: [item for item in messages if item.partition == at] for at in {item.partition for item in messages}}


def test_a_long_range_is_cut_into_calls_that_follow_each_other() -> None:
    messages = [Message(0, 7 + n, b"i1|sm", _pair(5, n + 1)) for n in range(5)]
    found = ranges(Feed("t", "bank", catalog.PAIR, catalog.PAYMENTS), {0: messages}, size=2)
    assert [(item.first, item.following) for item in found] == [(7, 9), (9, 11), (11, 12)]
    # Each holds the greatest of its own messages alone.
    assert [len(item.updates) for item in found] == [1, 1, 1]


def test_a_range_of_nothing_but_taken_back_values_still_moves_on() -> None:
    found = ranges(Feed("t", "bank", catalog.PAIR, catalog.PAYMENTS), {3: [Message(3, 7, b"i1|sm", None)]})
    assert found == [Range(3, 7, 8, [], None)]


@given(st.integers(1, 8), st.integers(1, 64), st.text(max_size=20))
def test_every_partition_has_one_writer_and_the_shares_differ_by_one_at_most(
    writers: int, partitions: int, topic: str
) -> None:
    names = tuple(f"w{number}" for number in range(writers))
    shares = Counter(owners(topic, partitions, names))
    assert sum(shares.values()) == partitions
    assert max(shares.values()) - min(shares.get(name, 0) for name in names) <= 1


@pytest.mark.parametrize(("topics", "partitions"), [(1, 80), (5, 16), (20, 4)])
def test_a_writer_that_joins_three_others_moves_less_than_half_of_the_partitions(topics: int, partitions: int) -> None:
    def read_by(members: list[str]) -> list[str]:
        return [name for topic in range(topics) for name in owners(str(topic), partitions, tuple(sorted(members)))]

    moved = []
    for group in range(50):
        names = [f"{group}-{number}" for number in range(4)]
        before, after = read_by(names[:3]), read_by(names)
        assert after.count(names[3]) == 20
        moved.append(sum(one != other for one, other in zip(before, after, strict=True)))
    assert min(moved) >= 20
    assert sum(moved) / len(moved) < 40


@pytest.mark.parametrize(
    ("ends", "written", "covered"),
    [
        ({"a": {0: 5, 1: 3}}, {"a": {0: 5, 1: 3}}, {0: 9}),
        ({"a": {0: 5, 1: 3}}, {"a": {0: 5, 1: 2}}, {}),
        ({"a": {0: 5}, "old": {0: 99}}, {"a": {0: 5}}, {0: 9}),
        ({"old": {0: 0}}, {"a": {0: 5}}, {}),
    ],
    ids=["reached", "one partition behind", "a topic that is not asked for", "of another deployment"],
)
def test_a_certificate_counts_once_its_ends_are_written(
    ends: dict[str, dict[int, int]], written: dict[str, dict[int, int]], covered: dict[int, int]
) -> None:
    assert covered_offsets((Certificate("s", 1, {0: 9}, ends, 0),), {"a"}, written) == covered


def test_the_newest_certificate_that_is_reached_counts() -> None:
    newest, older = Certificate("s", 1, {0: 9}, {"a": {0: 50}}, 2), Certificate("s", 1, {0: 4}, {"a": {0: 20}}, 1)
    assert covered_offsets((newest, older), {"a"}, {"a": {0: 30}}) == {0: 4}


def test_a_partition_without_events_is_covered() -> None:
    progress = SourceProgress("s", ends={0: 7, 1: 0}, covered={0: 7}, changelog_lag=0)
    assert progress.covers({0: 7, 1: 0})
    assert not progress.covers({0: 7, 1: 1})
    assert progress.lag == 0
