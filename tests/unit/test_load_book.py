"""Claims about the states of a load: which there are, who may change them, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import (
    CANCELLED,
    CATCHING_UP,
    FAILED,
    FIRST_FILL,
    LOADING,
    OPEN,
    PLANNED,
    READY,
    LoadBook,
    LoadRun,
    Pins,
)
from coeval_pipelines.coordination.backfills import INTERRUPTED, cancel, status
from coeval_pipelines.coordination.fill import load_lock
from coeval_pipelines.coordination.locks import is_held, only_one


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def control(settings: Settings) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(settings)) as opened:
        yield opened


@pytest.fixture
def book(control: ControlPlane) -> LoadBook:
    return LoadBook(control)


def _begin(book: LoadBook, cut: int = 5) -> LoadRun:
    return book.begin("card_spend", "abc", "hash", cut, FIRST_FILL, "asked for", 1)


def test_a_load_is_remembered_as_it_was_begun_and_pinned(book: LoadBook) -> None:
    run = _begin(book)
    pins = Pins(7, 2, 99, "files", None)
    book.pin(run.run, pins)
    found = book.get(run.run)
    assert (found.state, found.cut, found.kind, found.pins) == (PLANNED, 5, FIRST_FILL, pins)
    assert book.of("card_spend", "abc", OPEN) == (found,)
    with pytest.raises(UsageError, match="no load 99"):
        book.get(99)


def test_a_finished_load_says_as_of_when_it_wrote_rows(control: ControlPlane, book: LoadBook) -> None:
    pinned, bare = _begin(book), _begin(book)
    book.pin(pinned.run, Pins(7, 2, 99, "files", None))
    for run in (pinned, bare):
        control.finish_load(run.run, 3, 500)
    assert [item.as_of for item in control.finished_loads("card_spend", "abc")] == [None, 99]
    assert control.last_load("card_spend", "abc") == control.finished_loads("card_spend", "abc")[0]


@pytest.mark.parametrize("over", [READY, CANCELLED])
def test_a_load_that_is_over_stays_so(book: LoadBook, over: str) -> None:
    run = _begin(book).run
    assert book.move(run, LOADING, "writing", 2, who="ana")
    assert book.move(run, over, "done", 3, who="ben")
    assert not any(book.move(run, state, "no", 4) for state in (*OPEN, READY, CANCELLED))
    assert [(item.state, item.who, item.at) for item in book.changes(run)][1:] == [
        (LOADING, "ana", 2),
        (over, "ben", 3),
    ]


def test_a_failed_load_may_be_gone_on_with(book: LoadBook) -> None:
    run = _begin(book).run
    assert all(book.move(run, state, "why", 2) for state in (LOADING, FAILED, LOADING, CATCHING_UP, READY))


def test_units_count_for_the_life_of_the_store_that_they_were_written_to(book: LoadBook) -> None:
    run = _begin(book).run
    book.unit_done(run, "1h/a", "one", 10, 9, 1)
    book.unit_done(run, "1h/b", "one", 10, 10, 1)
    assert book.units_done(run, "one") == {"1h/a": 9, "1h/b": 10}
    book.unit_done(run, "1h/a", "two", 10, 10, 1)
    assert (book.units_done(run, "one"), book.units_done(run, "two")) == ({"1h/b": 10}, {"1h/a": 10})


def test_a_load_that_nobody_works_on_is_seen_as_interrupted(
    settings: Settings, control: ControlPlane, book: LoadBook
) -> None:
    run = _begin(book)
    book.move(run.run, LOADING, "writing", 2)
    with only_one(settings, load_lock(run)):
        assert is_held(settings, load_lock(run))
        assert status(settings, control, run.run)[0].state == LOADING
    assert not is_held(settings, load_lock(run))
    assert status(settings, control, run.run)[0].state == INTERRUPTED
    book.move(run.run, FAILED, "the store did not answer", 3)
    assert status(settings, control, run.run)[0].state == FAILED


def test_a_load_is_cancelled_once_and_not_when_all_is_written(
    settings: Settings, control: ControlPlane, book: LoadBook
) -> None:
    one, other = _begin(book).run, _begin(book).run
    assert cancel(settings, control, one).state == CANCELLED
    with pytest.raises(UsageError, match="is over: cancelled"):
        cancel(settings, control, one)
    book.move(other, CATCHING_UP, "all is written", 2)
    with pytest.raises(UsageError, match="nothing left to cancel"):
        cancel(settings, control, other)


def test_how_long_a_load_will_take_is_said_while_it_writes(book: LoadBook) -> None:
    run = _begin(book).run
    book.move(run, LOADING, "writing", 2)
    book.stage(run, 4, 1000, "life")
    assert book.get(run).seconds_left is None
    book.beat(run, 200, 100.0, 3)
    assert book.get(run).seconds_left == 8.0
