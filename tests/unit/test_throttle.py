"""Claims about how fast a load writes: a set rate is held, and readers keep their latency."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval_pipelines.offline.throttle import (
    BACK_OFF,
    CALL_SIZE,
    FLOOR,
    SMALLEST_CALL,
    START,
    STEP,
    Flow,
    Limits,
    Reads,
    Throttle,
    TokenBucket,
    adapted,
    first_flow,
    resized,
)

BUDGET = Limits(latency_ms=5.0)


@dataclass
class World:
    """A clock that goes on only where somebody waits or works."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.waits.append(seconds)
        self.now += seconds


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=100), st.floats(10, 1e6))
def test_a_set_rate_is_held_whatever_the_calls_are(calls: list[int], rate: float) -> None:
    world = World()
    bucket = TokenBucket(world.clock, world.sleep)
    for count in calls:
        bucket.take(count, rate)
    # What was taken last is paid for by the next.
    assert world.now == pytest.approx(sum(calls[:-1]) / rate)


def test_what_was_not_written_for_a_while_is_not_made_up_for() -> None:
    world = World()
    bucket = TokenBucket(world.clock, world.sleep)
    world.now = 3600.0
    for _ in range(11):
        bucket.take(100, 1000)
    assert world.now - 3600.0 == pytest.approx(0.9)


def test_an_unlimited_load_never_waits() -> None:
    world = World()
    throttle = Throttle(Limits(), clock=world.clock, sleep=world.sleep)
    for _ in range(100):
        throttle.before(throttle.flow.call_size)
        throttle.after(throttle.flow.call_size, 0.03)
    assert not world.waits
    assert throttle.flow == Flow()


def test_the_rate_rises_by_steps_and_falls_by_a_share() -> None:
    flow = first_flow(BUDGET)
    assert flow.per_second == START
    assert adapted(flow, 4.9, BUDGET).per_second == START + STEP
    assert adapted(flow, 5.1, BUDGET).per_second == START * BACK_OFF
    assert adapted(Flow(FLOOR), 1000.0, BUDGET).per_second == FLOOR


def test_a_set_rate_is_the_most_that_a_budget_gives() -> None:
    both = Limits(writes_per_second=700, latency_ms=5.0)
    assert first_flow(both).per_second == 700
    assert adapted(Flow(650), 1.0, both).per_second == 700


@given(st.floats(1e-7, 1e-2))
def test_a_call_takes_its_share_of_the_budget_at_most(seconds_per_update: float) -> None:
    size = resized(first_flow(BUDGET), seconds_per_update, BUDGET).call_size
    assert SMALLEST_CALL <= size <= CALL_SIZE
    assert size == SMALLEST_CALL or size * seconds_per_update <= BUDGET.latency_ms / 1000 / 2


def test_a_store_that_slows_down_beyond_a_rate_is_written_to_at_about_that_rate() -> None:
    """A store whose reads are within the budget below 20,000 updates a second, and beyond it above."""
    world, rng = World(), random.Random(3)
    bearable, written = 20_000.0, 0
    reads = Reads()
    throttle = Throttle(BUDGET, reads, world.clock, world.sleep)
    asked = 0.0
    within = []
    while world.now < 300:
        while asked < world.now:
            strained = throttle.flow.per_second > bearable
            reads.add(rng.uniform(6, 30) if strained else rng.uniform(0.2, 4))
            asked += 0.1
        count = throttle.flow.call_size
        throttle.before(count)
        world.now += count * 25e-6
        throttle.after(count, count * 25e-6)
        written += count
        within.append(throttle.flow.per_second <= bearable)
    assert 0.6 * bearable < written / world.now < bearable
    assert sum(within) / len(within) > 0.8


def test_one_slow_read_of_a_hundred_is_within_a_p99() -> None:
    reads = Reads()
    assert reads.p99() is None
    for milliseconds in [*[1.0] * 99, 80.0]:
        reads.add(milliseconds)
    assert reads.p99() == 1.0
    reads.add(70.0)
    assert reads.p99() == 70.0
    reads.forget()
    assert reads.p99() is None
