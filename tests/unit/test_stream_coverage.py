"""What the store was seen to cover, and when: noted whenever it changes, forwards or back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval.spec.time import DAY, HOUR
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.control.coverage import Coverage, CoverageBook
from coeval_pipelines.streaming.coverage import CoverageWatch
from coeval_pipelines.streaming.feeds import Feed
from tests.support import catalog

FEED = Feed("changelog", "bank", catalog.CARD_SPEND, catalog.PAYMENTS)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlPlane]:
    """Two certificates, of changelogs of two partitions."""
    with closing(ControlPlane.open(Settings(home=tmp_path))) as made:
        for number in (1, 2):
            ends = {FEED.topic: {0: number, 1: 10 * number}}
            made.record_certificate(Certificate("payments", 1, {0: 100 * number}, ends, number))
        yield made


def test_what_the_store_covers_is_noted_when_it_changes(control: ControlPlane) -> None:
    watch = CoverageWatch(control)
    for written in ({0: None, 1: None}, {0: 1, 1: 15}, {0: 1, 1: 19}, {0: 2, 1: 20}, {0: 2, 1: 19}):
        watch.note(FEED, written)
    noted = CoverageBook(control).of(FEED.topic)
    assert [item.offsets for item in noted] == [{}, {0: 100}, {0: 200}, {0: 100}]
    assert [item.at for item in noted] == sorted(item.at for item in noted)
    assert CoverageBook(control).of("another") == ()


def test_of_what_is_older_than_a_day_the_first_of_each_hour_stays(control: ControlPlane) -> None:
    instants = [0, 1, HOUR - 1, HOUR, DAY + HOUR + 1, DAY + HOUR + 2]
    for at in instants:
        CoverageBook(control).record(Coverage(FEED.topic, {0: at}, at))
    assert [item.at for item in CoverageBook(control).of(FEED.topic)] == [0, HOUR, DAY + HOUR + 1, DAY + HOUR + 2]
