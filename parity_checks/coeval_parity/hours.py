"""Which hour a compared value belongs to, and what became of the values of every hour. Pure; it knows numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coeval.spec.time import HOUR
from coeval.spec.types import INT64_MIN
from coeval_parity.result import Cause, Hour

MAX_HOURS = 72
"""The newest hours that are told apart; those before them are one."""
Rows: TypeAlias = NDArray[np.bool_] | NDArray[np.int64] | Sequence[int]
"""Some rows of a view: whether each is among them, or their numbers."""
_NO_EVENT = INT64_MIN


@dataclass(frozen=True, slots=True)
class Hours:
    """The hours of a view's values. `buckets` says for each row which of `starts` is its own; see `Hour.start`.

    Where `folded`, the first start stands for all hours before the next one, too.
    """

    starts: tuple[int | None, ...]
    buckets: NDArray[np.int64]
    folded: bool

    @classmethod
    def of_instants(cls, at: NDArray[np.int64]) -> Self:
        """A row per response, by its instant (microseconds UTC)."""
        return cls._of(np.where(at == _NO_EVENT, at, at - at % HOUR))

    @classmethod
    def of_keys(cls, keys: Sequence[str], newest: Mapping[str, int]) -> Self:
        """A row per key, by the time of the newest event that the log knows of it."""
        return cls.of_instants(np.array([newest.get(key, _NO_EVENT) for key in keys], dtype=np.int64))

    @classmethod
    def _of(cls, hours: NDArray[np.int64]) -> Self:
        known = np.unique(hours[hours != _NO_EVENT])
        folded = len(known) > MAX_HOURS
        if folded:
            newest_before = known[-MAX_HOURS - 1]
            hours = np.where(hours == _NO_EVENT, hours, np.maximum(hours, newest_before))
        starts, buckets = np.unique(hours, return_inverse=True)
        # The rows without an event come first, as the smallest number stands for them.
        return cls(tuple(None if at == _NO_EVENT else int(at) for at in starts), buckets.astype(np.int64), folded)

    def count(self, rows: Rows) -> dict[int, int]:
        """How many of some rows are in each bucket that occurs among them."""
        counts = np.bincount(self.buckets[rows], minlength=len(self.starts))
        return {bucket: int(counts[bucket]) for bucket in np.flatnonzero(counts).tolist()}

    def series(self, compared: NDArray[np.bool_], causes: Mapping[tuple[int, Cause], int]) -> tuple[Hour, ...]:
        """A feature by hour: the rows that were compared, and how many of a bucket differ for a cause."""
        differing: dict[int, dict[Cause, int]] = {}
        for (bucket, cause), count in causes.items():
            differing.setdefault(bucket, {})[cause] = count
        first = next((bucket for bucket, start in enumerate(self.starts) if start is not None), -1)
        found: list[Hour] = []
        for bucket, count in self.count(compared).items():
            mine = differing.get(bucket, {})
            matched = count - sum(mine.values())
            found.append(Hour(self.starts[bucket], count, matched, mine, self.folded and bucket == first))
        return tuple(found)
