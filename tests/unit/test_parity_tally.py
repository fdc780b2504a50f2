"""Counts: every value that is compared has one fate, and what is not compared has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from coeval.online.result import Column, Status
from coeval.settings import Settings
from coeval.spec.records import Reason, Record
from coeval_parity.cases import read_evidence
from coeval_parity.compare import Values, compare
from coeval_parity.evidence import Delivery
from coeval_parity.hours import Hours
from coeval_parity.judge import Judged, judge
from coeval_parity.local_log import LocalLog
from coeval_parity.online_state import Look, Served
from coeval_parity.result import Cause
from coeval_parity.screen import Screened
from coeval_parity.tail import Tail
from coeval_parity.tally import tally
from tests.support import catalog

VIEW = replace(catalog.LATEST, features=catalog.LATEST.features[:1])
NAME = VIEW.features[0].name
DELIVERY = Delivery(0, None, None, None, 1)


def _served(values: Sequence[int], *, ready: bool = True, null: Sequence[bool] = ()) -> Served:
    missing = np.array(null or [False] * len(values))
    status = np.where(missing, Status.UNAVAILABLE, Status.PRESENT).astype(np.int8)
    column = Column(VIEW.features[0].type, np.array(values), missing, status)
    keys = tuple(f"i{number}" for number in range(len(values)))
    return Served(keys, np.full(len(values), 10**15), {NAME: column}, ready)


def _screened(served: Served, expected: Sequence[int]) -> Screened:
    values = Values(np.array(expected), np.zeros(len(expected), bool))
    found = compare(served.columns[NAME], values)
    hours = Hours.of_instants(served.at)
    return Screened(Look(VIEW, DELIVERY, served, {}), served, len(expected), {NAME: values}, {NAME: found}, hours)


def test_a_view_that_is_ready_at_the_first_look_only_has_every_value_unavailable(tmp_path: Path) -> None:
    screened = _screened(_served([0, 0, 0, 0]), [0, 0, 0, 1])
    log = LocalLog(Settings(home=tmp_path), catalog.manifest(), {})
    judged = judge(log, log, screened, Look(VIEW, DELIVERY, _served([0], ready=False), {}), ())
    view = tally(screened, judged, DELIVERY)
    (feature,) = view.features
    assert (feature.compared, feature.matched, feature.causes) == (4, 0, {Cause.UNEXPLAINED: 4})
    assert not view.ready


def test_what_is_not_compared_is_not_counted_as_null() -> None:
    screened = _screened(_served([0, 0], null=[False, True]), [0, 0])
    comparison = screened.comparisons[NAME]
    unknown = replace(comparison, outcome=np.array([0, -1], np.int8))
    (feature,) = tally(replace(screened, comparisons={NAME: unknown}), Judged(), DELIVERY).features
    assert (feature.compared, feature.matched, feature.null_online) == (1, 1, 0)


def test_every_check_knows_the_rejected_records_of_a_key(tmp_path: Path) -> None:
    """Also `coeval explain`, so that it says what a run says."""
    text = b'{"payment_id": "p", "card_id": 1, "merchant_id": null, "amount": 5, "paid_at": "2026-05-04T12:00:00Z"}'
    tail = Tail(rejected=((Record(text, 10**16, 0, 7), Reason.NULL_REQUIRED),))
    log = LocalLog(Settings(home=tmp_path), catalog.manifest(), {"payments": None}, {"payments": tail})
    case = read_evidence(log, catalog.LATEST, ["i1"], None, ()).case("i1", 10**16)
    assert [event.offset for event in case.rejected] == [7]
