"""SLAs: what is counted, what burns, what is forgotten. And quotas, and the sample of the serving log."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from coeval.errors import LimitError, StoreError
from coeval.online.result import Column, FeatureResult, MadeBlock, Part, Status
from coeval.server.quotas import Rate, Slots
from coeval.service import Services
from coeval.serving_log import ServingLog, sampled
from coeval.sla import BOUNDS, Promise, SlaBook, promise
from coeval.spec.types import INT64
from tests.support import catalog

PROMISED = Promise(p99_seconds=0.01, availability=0.999, freshness={"v": 10.0})


def _result(*codes: Status, at: int = 2_000_000, event_ts: int = 1_000_000) -> FeatureResult:
    status = np.array(codes, dtype=np.int8)
    null = status != Status.PRESENT
    block = MadeBlock({"f": Column(INT64, status.astype(np.int64), null, status)}, np.full(len(codes), event_ts))
    return FeatureResult([Part("v", block, ("f",), ("f",))], {"k": list(range(len(codes)))}, at, "h")


def test_slow_failed_and_unavailable_are_counted_and_burn() -> None:
    book = SlaBook(clock=lambda: 30.0, wall=lambda: 5.0)
    for _ in range(97):
        book.note("risk", PROMISED, 0.001, _result(Status.PRESENT))
    book.note("risk", PROMISED, 0.02, _result(Status.NOT_FOUND))
    book.note("risk", PROMISED, 0.001, _result(Status.UNAVAILABLE, Status.PRESENT))
    book.note("risk", PROMISED, 0.001, None)
    (found,) = book.report()
    kept = found.kept["5m"]
    assert (kept.requests, kept.slow, kept.failed) == (100, 1, 2)
    assert kept.latency_burn == pytest.approx(1.0)
    assert kept.availability_burn == pytest.approx(20.0)
    assert kept.p50_seconds == min(bound for bound in BOUNDS if bound >= 0.001)
    assert kept.p999_seconds == min(bound for bound in BOUNDS if bound >= 0.02)
    assert found.newest == {"v": 4.0}


def test_what_is_older_than_a_window_no_longer_burns() -> None:
    now = 0.0
    book = SlaBook(clock=lambda: now)
    book.note("risk", PROMISED, 1.0, None)
    now = 10 * 60.0
    book.note("risk", PROMISED, 0.001, _result(Status.PRESENT))
    (found,) = book.report()
    assert found.kept["5m"].availability_burn == 0.0
    assert found.kept["1h"].failed == 1
    now = 7 * 3600.0
    (found,) = book.report()
    assert found.kept["6h"].requests == 0
    assert found.kept["6h"].latency_burn is None
    ((_, total, slow, failed, counts, seconds),) = book.totals()
    assert (total, slow, failed, sum(counts)) == (2, 1, 1, 2)
    assert seconds == pytest.approx(1.001)


def test_what_was_not_promised_does_not_burn() -> None:
    book = SlaBook(clock=lambda: 0.0)
    book.note("risk", Promise(), 100.0, None)
    (found,) = book.report()
    assert found.kept["5m"].latency_burn is None
    assert found.kept["5m"].availability_burn is None
    assert found.kept["5m"].p99_seconds is None  # Beyond the last bound.


def test_a_service_promises_what_its_weakest_view_does() -> None:
    manifest = catalog.manifest()
    (service,) = manifest.services
    assert promise(manifest, service.views).freshness["card_spend"] == 86_400
    assert Services(manifest).plan("risk").label == "risk"
    assert Services(manifest).plan(["card_spend:count_1h"]).label == "(features)"


def test_a_rate_lets_a_second_through_and_says_when_again() -> None:
    now = 0.0
    rate = Rate(100, clock=lambda: now)
    rate.take(60)
    rate.take(240)  # Whole requests may overdraw.
    with pytest.raises(LimitError) as refused:
        rate.take(1)
    assert refused.value.retry_after == pytest.approx(2.01)
    now = 2.02
    rate.take(1)


def test_slots_are_given_back_also_by_what_fails() -> None:
    slots = Slots(1, "T")
    with slots.one(), pytest.raises(LimitError), slots.one():
        pass
    with pytest.raises(ZeroDivisionError), slots.one():
        raise ZeroDivisionError
    with slots.one():
        assert slots.taken == 1


def test_a_sample_grows_with_its_share() -> None:
    keys = [f"i{number}" for number in range(20_000)]
    small = {key for key in keys if sampled(key, 0.05)}
    large = {key for key in keys if sampled(key, 0.2)}
    assert small < large
    assert len(small) / len(keys) == pytest.approx(0.05, abs=0.01)
    assert all(sampled(key, 1) for key in keys[:100])
    assert not any(sampled(key, 0) for key in keys)


class _Slow:
    """A sink that waits to be let through."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.entered = threading.Event()
        self.rows: list[tuple[str, bytes, bytes]] = []
        self.fail = False
        self.closed = False

    def write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        self.entered.set()
        self.let.wait(10)
        if self.fail:
            raise StoreError("no")
        self.rows += rows

    def close(self) -> None:
        self.closed = True


def _plan_and_result() -> tuple[object, FeatureResult]:
    plan = Services(catalog.manifest()).plan(["card_spend:count_1h"])
    block = MadeBlock(
        {"count_1h": Column(INT64, np.array([3]), np.array([False]), np.zeros(1, dtype=np.int8))}, np.zeros(1, np.int64)
    )
    return plan, FeatureResult([Part("card_spend", block, ("count_1h",), ("count_1h",))], {"card_id": [7]}, 0, "h")


def test_a_full_log_drops_and_counts_and_never_waits() -> None:
    sink, counts = _Slow(), dict.fromkeys(("logged", "dropped", "failed"), 0)

    def note(outcome: str, rows: int) -> None:
        counts[outcome] += rows

    log = ServingLog(lambda: sink, 1.0, note, capacity=2)
    plan, result = _plan_and_result()
    log.offer("bank", plan, result)  # type: ignore[arg-type]
    assert sink.entered.wait(5)
    for _ in range(5):
        log.offer("bank", plan, result)  # type: ignore[arg-type]
    assert counts["dropped"] == 3
    sink.let.set()
    log.close()
    assert counts == {"logged": 3, "dropped": 3, "failed": 0}
    assert sink.closed
    tenant, key, document = sink.rows[0]
    assert (tenant, key) == ("bank", b"i7")
    assert b'"card_spend__count_1h": 3' in document


@pytest.mark.parametrize("opens", [True, False])
def test_a_log_that_fails_is_counted(opens: bool) -> None:
    sink, failed = _Slow(), [0]
    sink.fail = True
    sink.let.set()

    def connect() -> _Slow:
        if not opens:
            raise StoreError("no broker")
        return sink

    def note(outcome: str, rows: int) -> None:
        failed[0] += rows * (outcome == "failed")

    log = ServingLog(connect, 1.0, note)
    plan, result = _plan_and_result()
    log.offer("bank", plan, result)  # type: ignore[arg-type]
    log.close()
    assert failed == [1]
