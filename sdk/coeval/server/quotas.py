"""How much a tenant may have at once and over time. Pure but for the clock that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coeval.errors import LimitError


class Rate:
    """So many a second, and those of one second at once. What is asked for whole may overdraw, and is waited for."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = per_second
        self._looked = clock()

    def take(self, count: int) -> None:
        """Take some.

        Raises:
            LimitError: nothing is left; it says when there is again.
        """
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._looked) * self._per_second)
        self._looked = now
        if self._left <= 0:
            raise LimitError(
                f"More than {self._per_second:g} rows a second were asked for.",
                "Ask again later, or have the tenant's quota raised.",
                retry_after=(1 - self._left) / self._per_second,
            )
        self._left -= count


class Slots:
    """So many at once. More are refused at once: whoever queues keeps the others waiting."""

    def __init__(self, most: int, whose: str, error: type[LimitError] = LimitError) -> None:
        self._most = most
        self._whose = whose
        self._error = error
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take one for the time of the context.

        Raises:
            LimitError: all are taken.
        """
        if self.taken >= self._most:
            raise self._error(
                f"{self._whose} has {self._most} requests at once already.",
                "Ask again later, with fewer requests at once.",
                retry_after=1.0,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
