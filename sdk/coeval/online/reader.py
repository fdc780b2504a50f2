"""The reader: a plan, one fetch, and blocks of features. It knows Redis and takes its clock as a parameter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coeval.online.answer import UNREAD, Answer, Fetched
from coeval.online.cache import ReadCache
from coeval.online.plan import Entities, ReadPlan, ReadPlanner, ViewRead
from coeval.online.result import Block, Column

if TYPE_CHECKING:
    import redis


def wall_clock() -> int:
    """Now, in microseconds since the epoch."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """What was read at `at`: a block per view, of which `features` were asked for."""

    blocks: Mapping[str, Block]
    features: Mapping[str, Sequence[str]]
    at: int

    @property
    def columns(self) -> dict[str, dict[str, Column]]:
        """Every column that was asked for, by view and feature."""
        return {view: {name: self.blocks[view].column(name) for name in names} for view, names in self.features.items()}

    @property
    def event_ts(self) -> dict[str, NDArray[np.int64]]:
        """Per view, the newest event behind each entity's values (microseconds UTC, 0 for none)."""
        return {view: block.event_ts for view, block in self.blocks.items()}


def decode(plan: ReadPlan, answer: Answer, at: int) -> StoredFeatures:
    """What was fetched as a plan says, as features at an instant (microseconds UTC)."""
    blocks = {read.view.name: _block(plan, read, answer, at) for read in plan.reads}
    return StoredFeatures(blocks, {read.view.name: read.features for read in plan.reads}, at)


def _block(plan: ReadPlan, read: ViewRead, answer: Answer, at: int) -> Block:
    blobs, doubted = _believed(plan, read, answer)
    return read.codec.read(blobs, read.features, doubted, at)


def _believed(plan: ReadPlan, read: ViewRead, answer: Answer) -> tuple[Sequence[bytes | None], Sequence[bool]]:
    """A view's blobs, and which of them nobody may believe: they were not read, or their bucket is not ready."""
    values = answer.values
    fetched = values[read.start : read.start + plan.rows]
    lost = [bucket for bucket in read.touched if not _says(values[plan.markers[bucket]], read.line)]
    if answer.whole and not lost:
        return fetched, ()  # type: ignore[return-value]
    doubted = [bucket in lost or value is UNREAD for bucket, value in zip(read.buckets, fetched, strict=True)]
    blobs = [None if doubt else value for value, doubt in zip(fetched, doubted, strict=True)]
    return blobs, doubted  # type: ignore[return-value]


def _says(marker: Fetched, line: bytes) -> bool:
    return isinstance(marker, bytes) and line in marker


class OnlineReader:
    """Reads stored features. Safe to share between threads, and to be carried through a fork."""

    def __init__(
        self, client: redis.Redis, clock: Callable[[], int] = wall_clock, cache: ReadCache | None = None
    ) -> None:
        # redis-py takes long to import, which who only imports us need not wait for.
        from coeval.online.lanes import Lanes

        self._lanes = Lanes(client)
        self._clock = clock
        self._cache = cache

    def close(self) -> None:
        """Close the connections for reading; the client stays as it is."""
        self._lanes.close()

    def read(self, planner: ReadPlanner, entities: Entities, deadline: float | None = None) -> StoredFeatures:
        """Read views for entities given as columns by join key; every value as of one instant, taken before the read.

        `deadline` is in seconds from now: what is not read by then is UNAVAILABLE.

        Raises:
            EntityKeyError: a key is missing, null or of the wrong type.
            redis.RedisError: without a deadline: the store refused or did not answer.
        """
        until = None if deadline is None else time.monotonic() + deadline
        plan = planner.plan(entities)
        at = self._clock()
        return decode(plan, self._fetch(plan.keys, until), at)

    def _fetch(self, names: Sequence[str], until: float | None) -> Answer:
        if self._cache is None:
            return self._lanes.fetch(names, until)
        return self._cache.fetch(names, lambda missing: self._lanes.fetch(missing, until))
