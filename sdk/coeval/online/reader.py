"""The reader: a plan, one MGET, decode and merge. It knows Redis and takes its clock as a parameter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coeval.online.merge import read_rows, read_windows, unavailable
from coeval.online.plan import ViewRead, plan_read
from coeval.online.result import Column
from coeval.spec.manifest import Manifest
from coeval.spec.model import ServiceView, WindowedView

if TYPE_CHECKING:
    import redis


def wall_clock() -> int:
    """Now, in microseconds since the epoch."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """Columns by view and feature, and the newest event time per view and entity, as read at `at`."""

    columns: Mapping[str, Mapping[str, Column]]
    event_ts: Mapping[str, NDArray[np.int64]]
    at: int


class OnlineReader:
    """Reads the stored features of one manifest. Thread-safe as far as its Redis client is."""

    def __init__(self, client: redis.Redis, manifest: Manifest, clock: Callable[[], int] = wall_clock) -> None:
        self._client = client
        self._manifest = manifest
        self._clock = clock

    def read(self, views: Sequence[ServiceView], entities: Mapping[str, Sequence[Any]]) -> StoredFeatures:
        """Read views for entities given as columns by join key; every value as of one instant, taken before the read.

        Raises:
            EntityKeyError: a key is missing, null or of the wrong type.
            redis.RedisError: the store refused or did not answer.
        """
        plan = plan_read(self._manifest, views, entities)
        at = self._clock()
        fetched: list[bytes | None] = self._client.mget(plan.keys) if plan.keys else []  # type: ignore[assignment]
        columns: dict[str, Mapping[str, Column]] = {}
        event_ts: dict[str, NDArray[np.int64]] = {}
        for index, read in enumerate(plan.reads):
            blobs = fetched[read.start : read.start + read.count]
            columns[read.view.name], event_ts[read.view.name] = self._decode(read, fetched[index], blobs, at)
        return StoredFeatures(columns, event_ts, at)

    def _decode(
        self, read: ViewRead, ready: bytes | None, blobs: Sequence[bytes | None], at: int
    ) -> tuple[dict[str, Column], NDArray[np.int64]]:
        view = read.view
        if ready is None:
            fields = {field.name: field for field in view.features}
            absent = {name: unavailable(fields[name], read.count) for name in read.features}
            return absent, np.zeros(read.count, dtype=np.int64)
        if isinstance(view, WindowedView):
            return read_windows(view, self._manifest.event_source(view), blobs, read.features, at)
        return read_rows(view, blobs, read.features, at)
