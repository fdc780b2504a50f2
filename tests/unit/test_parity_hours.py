"""Values by hour: every value that is compared belongs to one hour, and the hours of a feature are all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coeval.settings import Settings
from coeval.spec.time import HOUR, MINUTE
from coeval.spec.types import INT64_MIN
from coeval_parity.compare import Outcome
from coeval_parity.hours import MAX_HOURS, Hours
from coeval_parity.judge import Docket
from coeval_parity.local_log import LocalLog
from coeval_parity.result import Cause, FeatureParity, Symptom
from coeval_parity.tally import tally
from coeval_pipelines.offline.tables import table_path
from tests.support import catalog
from tests.support.delta_log import write_log
from tests.support.parity import adds_up
from tests.unit.test_parity_log import NOON, _event
from tests.unit.test_parity_tally import DELIVERY, NAME, _screened, _served

INSTANTS = st.one_of(st.none(), st.integers(-5 * HOUR, 200 * HOUR))
FATES = st.sampled_from([-1, Outcome.MATCH, Outcome.WITHIN_TOLERANCE, "settled", "within", *Cause])


def _feature(rows: list[tuple[int | None, object]]) -> FeatureParity:
    """One feature over rows: when each was, and what became of it."""
    screened = _screened(_served([0] * len(rows)), [0] * len(rows))
    fates = [fate for _, fate in rows]
    outcome = np.array([fate if isinstance(fate, int) else Outcome.MISMATCH for fate in fates], np.int8)
    hours = Hours.of_instants(np.array([INT64_MIN if at is None else at for at, _ in rows], np.int64))
    screened = replace(screened, comparisons={NAME: replace(screened.comparisons[NAME], outcome=outcome)}, hours=hours)
    docket = Docket(hours)
    for row, fate in enumerate(fates):
        if isinstance(fate, Cause):
            docket.count(NAME, fate, Symptom.NONE, [row])
    docket.settled[NAME], docket.within[NAME] = fates.count("settled"), fates.count("within")
    return tally(screened, docket.close(), DELIVERY).features[0]


@given(st.lists(st.tuples(INSTANTS, FATES), min_size=1, max_size=200))
def test_the_hours_of_a_feature_add_up_to_its_totals(rows: list[tuple[int | None, object]]) -> None:
    feature = _feature(rows)
    adds_up(feature)
    assert feature.causes == Counter(fate for _, fate in rows if isinstance(fate, Cause))
    starts = [hour.start for hour in feature.hours]
    assert starts == sorted(starts, key=lambda start: (start is not None, start or 0))
    assert len(starts) == len(set(starts)) <= MAX_HOURS + 2


def test_a_value_belongs_to_the_hour_that_it_falls_into() -> None:
    feature = _feature([(HOUR, Outcome.MATCH), (2 * HOUR - 1, Cause.LATE), (2 * HOUR, Cause.STALE), (None, Cause.LATE)])
    assert [(hour.start, hour.compared, hour.matched, hour.causes) for hour in feature.hours] == [
        (None, 1, 0, {Cause.LATE: 1}),
        (HOUR, 2, 1, {Cause.LATE: 1}),
        (2 * HOUR, 1, 0, {Cause.STALE: 1}),
    ]


def test_what_is_older_than_the_newest_hours_that_occur_is_one() -> None:
    rows: list[tuple[int | None, object]] = [(3 * hour * HOUR, Outcome.MATCH) for hour in range(MAX_HOURS + 5)]
    first, *others = _feature([*rows, (0, Cause.TTL)]).hours
    assert (first.start, first.earlier, first.compared, first.causes) == (12 * HOUR, True, 6, {Cause.TTL: 1})
    assert [hour.start for hour in others] == [3 * hour * HOUR for hour in range(5, MAX_HOURS + 5)]
    assert not any(hour.earlier for hour in others)


def test_keys_that_the_log_does_not_know_have_no_hour() -> None:
    hours = Hours.of_keys(["i1", "i2", "i3"], {"i1": NOON + MINUTE, "i3": NOON + 2 * HOUR})
    assert hours.starts == (None, NOON, NOON + 2 * HOUR)
    assert hours.buckets.tolist() == [1, 0, 2]


def test_the_log_says_when_the_newest_event_of_every_key_happened(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    events = [replace(_event(number, number), event_ts=NOON + number * HOUR) for number in (2, 3, 1)]
    other = _event(9, 9)
    path = table_path(settings, catalog.manifest(), "log", "payments")
    write_log(path, catalog.PAYMENTS, [*events, replace(other, values=other.values | {"card_id": 0})])
    log = LocalLog(settings, catalog.manifest(), {"payments": 0})
    assert log.newest(catalog.LATEST) == {"i0": NOON, "i1": NOON + 3 * HOUR}
