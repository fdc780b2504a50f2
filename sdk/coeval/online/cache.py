"""Keeps what was read for a bounded time, for services that ask for the same entities again and again. Pure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from coeval.online.answer import Answer, Fetched, Unread


class ReadCache:
    """The values of at most `entries` keys, none of them served when older than `seconds`. Safe for threads.

    What is absent is remembered too, and so are ready markers: a store that was wiped is believed for so long.
    """

    def __init__(self, seconds: float, entries: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._entries = entries
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Fetched]] = {}

    def fetch(self, names: Sequence[str], ask: Callable[[Sequence[str]], Answer]) -> Answer:
        """The values of keys; only those that are not known, or too old, are asked for."""
        # Taken before asking: a value is as old as the question.
        now = self._clock()
        with self._lock:
            found = {name: known[1] for name in names if (known := self._known.get(name)) and known[0] > now}
        missing = [name for name in dict.fromkeys(names) if name not in found]
        answer = ask(missing) if missing else Answer([])
        asked = dict(zip(missing, answer.values, strict=True))
        with self._lock:
            for name, value in asked.items():
                if not isinstance(value, Unread):
                    self._known.pop(name, None)
                    self._known[name] = now + self._seconds, value
            while len(self._known) > self._entries:
                del self._known[next(iter(self._known))]
        return Answer([found[name] if name in found else asked[name] for name in names], answer.whole)
