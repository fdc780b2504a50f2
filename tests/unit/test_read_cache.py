"""Claims about the cache of reads: how old, how many, and what is never kept."""

from __future__ import annotations

from collections.abc import Sequence

from coeval.online.answer import UNREAD, Answer, Fetched
from coeval.online.cache import ReadCache


class Source:
    """Answers with how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def ask(self, names: Sequence[str]) -> Answer:
        self.asked.append(list(names))
        return Answer([str(len(self.asked)).encode()] * len(names))


def test_nothing_is_older_than_was_asked_for() -> None:
    now, source = [0.0], Source()
    cache = ReadCache(1.0, clock=lambda: now[0])
    assert cache.fetch(["a", "b", "a"], source.ask).values == [b"1", b"1", b"1"]
    now[0] = 0.99
    assert cache.fetch(["a", "c"], source.ask).values == [b"1", b"2"]
    now[0] = 1.0
    assert cache.fetch(["a", "c"], source.ask).values == [b"3", b"2"]
    assert source.asked == [["a", "b"], ["c"], ["a"]]


def test_it_is_as_old_as_the_question_not_as_the_answer() -> None:
    now = [0.0]
    cache = ReadCache(1.0, clock=lambda: now[0])

    def slow(names: Sequence[str]) -> Answer:
        now[0] += 0.8
        return Answer([b"x"] * len(names))

    cache.fetch(["a"], slow)
    now[0] = 1.0
    source = Source()
    assert cache.fetch(["a"], source.ask).values == [b"1"]


def test_what_could_not_be_read_is_asked_for_again() -> None:
    cache = ReadCache(60.0)
    values: list[Fetched] = [UNREAD, None]
    assert not cache.fetch(["a", "b"], lambda _: Answer(values, whole=False)).whole
    source = Source()
    assert cache.fetch(["a", "b"], source.ask) == Answer([b"1", None])


def test_it_holds_no_more_than_it_may() -> None:
    source = Source()
    cache = ReadCache(60.0, entries=2)
    cache.fetch(["a", "b", "c"], source.ask)
    assert cache.fetch(["b", "c"], source.ask).values == [b"1", b"1"]
    assert cache.fetch(["a"], source.ask).values == [b"2"]
