"""What the store was seen to cover, and when: noted whenever it changes, forwards or back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval.spec.time import DAY, HOUR, MINUTE
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
    assert [item.back for item in noted] == [False, False, False, True]
    assert [item.at for item in noted] == sorted(item.at for item in noted)
    assert CoverageBook(control).of("another") == ()


def test_the_last_of_each_minute_stays_for_a_week_and_then_the_last_of_each_hour(control: ControlPlane) -> None:
    book = CoverageBook(control)
    old, days, now = [0, 1, MINUTE, MINUTE + 1, HOUR], [0, 1, MINUTE, MINUTE + 1], [0, 1]
    instants = [*old, *(7 * DAY + at for at in days), *(10 * DAY + at for at in now)]
    for number, at in enumerate(instants):
        book.record(Coverage("gone", {0: number}, at))
    book.thin(10 * DAY + 1)
    left = [MINUTE + 1, HOUR, 7 * DAY + 1, 7 * DAY + MINUTE + 1, 10 * DAY, 10 * DAY + 1]
    assert [item.at for item in book.of("gone")] == left
    # A store that stands still is known to cover what it did: the newest note stays.
    book.thin(90 * DAY)
    assert book.of("gone")[-1].at == 10 * DAY + 1


def test_that_the_store_went_back_is_never_forgotten(control: ControlPlane) -> None:
    book = CoverageBook(control)
    for at, offset in enumerate((5, 9, 7, 8)):
        book.record(Coverage(FEED.topic, {0: offset, 1: at}, at))
    book.thin(30 * DAY)
    assert [(item.offsets[0], item.back) for item in book.of(FEED.topic)] == [(7, True), (8, False)]


def test_changelogs_that_nobody_writes_are_thinned_with_the_others(control: ControlPlane) -> None:
    book = CoverageBook(control)
    for at in (1, 2, 3):
        book.record(Coverage("dropped", {0: at}, at))
    CoverageWatch(control).note(FEED, {0: 1, 1: 15})
    assert [item.at for item in book.of("dropped")] == [3]


def test_another_writer_takes_note_only_while_the_store_may_have_gone_back(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, now = CoverageBook(control), time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    watch = CoverageWatch(control)
    watch.note(FEED, {0: 2, 1: 20}, mine=False)
    assert len(book.of(FEED.topic)) == 1
    now += 2 * MINUTE * 1000
    watch.note(FEED, {0: 1, 1: 20}, mine=False)
    assert len(book.of(FEED.topic)) == 1
    watch.note(FEED, {0: 1, 1: 20}, mine=False, fell=True)
    watch.note(FEED, {0: 2, 1: 20}, mine=False)
    assert [(item.offsets, item.back) for item in book.of(FEED.topic)] == [
        ({0: 200}, False), ({0: 100}, True), ({0: 200}, False),
    ]  # fmt: skip


class _Counting(ControlPlane):
    """Counts the certificates that are read one after the other."""

    read = 0

    def every_certificate(self, source: str) -> Iterator[Certificate]:
        for item in super().every_certificate(source):
            self.read += 1
            yield item


def test_old_certificates_are_looked_at_few_at_a_time_and_not_without_need(control: ControlPlane) -> None:
    for number in range(3, 303):
        ends = {FEED.topic: {0: number, 1: 10 * number}}
        control.record_certificate(Certificate("payments", 1, {0: 100 * number}, ends, number))
    counting = _Counting(control.engine.url.render_as_string(hide_password=False))
    with closing(counting):
        watch, book = CoverageWatch(counting), CoverageBook(control)
        for _ in range(3):
            watch.note(FEED, {0: 0, 1: None})
        assert counting.read == 0, "nothing is written"
        for done in (100, 200, 300, 300, 300):
            watch.note(FEED, {0: 4, 1: 40})
            assert counting.read == done
        assert [item.offsets for item in book.of(FEED.topic)] == [{}, {0: 400}]
        for _ in range(4):
            watch.note(FEED, {0: 5, 1: 49})
        assert counting.read == 300 + 300, "up to the one that is known to be reached"
        watch.note(FEED, {0: 302, 1: 3020})
        before = counting.read
        watch.note(FEED, {0: 290, 1: 2900})
        assert counting.read - before <= 100
        assert [item.offsets for item in book.of(FEED.topic)][2:] == [{0: 30200}, {0: 29000}]
