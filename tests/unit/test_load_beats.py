"""A load whose process lives is not one that stands still, though nothing of it is written for long."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coeval.settings import Settings
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import CATCHING_UP, FAILED, FIRST_FILL, LOADING, PLANNED, READY, LoadBook
from coeval_pipelines.coordination.beats import beating

DEADLINE = 10


@pytest.fixture
def book(tmp_path: Path) -> Iterator[LoadBook]:
    with closing(ControlPlane.open(Settings(home=tmp_path))) as control:
        yield LoadBook(control)


def _load(book: LoadBook, state: str) -> int:
    run = book.begin("card_spend", "3f2a91bc", "hash", 0, FIRST_FILL, "test", 1).run
    if state != PLANNED:
        book.move(run, state, "test", 1)
    return run


@pytest.mark.parametrize(
    ("state", "beats"), [(PLANNED, True), (CATCHING_UP, True), (FAILED, True), (LOADING, False), (READY, False)]
)
def test_what_is_not_being_written_beats_as_long_as_it_is_worked_on(book: LoadBook, state: str, beats: bool) -> None:
    run, other = _load(book, state), _load(book, state)
    book.beat_idle([run], 77)
    assert book.get(run).beat_at == (77 if beats else 1)
    assert book.get(other).beat_at == 1


def test_it_beats_in_the_context_and_not_after_it(book: LoadBook) -> None:
    run, before = _load(book, PLANNED), threading.active_count()
    with beating(book, [run], 0.001):
        deadline = time.monotonic() + DEADLINE
        while book.get(run).beat_at == 1:
            assert time.monotonic() < deadline
    assert threading.active_count() == before
