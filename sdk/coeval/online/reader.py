"""The reader: a plan, one fetch, decode and merge. It knows Redis and takes its clock as a parameter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coeval.online.merge import read_rows, read_windows
from coeval.online.plan import ViewRead, plan_read
from coeval.online.result import Column, Status
from coeval.online.store import fetch
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
        fetched = fetch(self._client, plan.keys)
        columns: dict[str, Mapping[str, Column]] = {}
        event_ts: dict[str, NDArray[np.int64]] = {}
        for read in plan.reads:
            columns[read.view.name], event_ts[read.view.name] = self._decode(read, fetched, at)
        return StoredFeatures(columns, event_ts, at)

    def _decode(
        self, read: ViewRead, fetched: Sequence[bytes | None], at: int
    ) -> tuple[dict[str, Column], NDArray[np.int64]]:
        blobs = fetched[read.data : read.data + read.count]
        markers = fetched[read.start : read.data]
        if None not in markers:
            return self._believed(read, blobs, at)
        lost = {bucket for bucket, marker in zip(read.buckets, markers, strict=True) if marker is None}
        doubted = np.array([bucket in lost for bucket in read.bucket_of_row], dtype=bool)
        kept = [None if doubt else blob for blob, doubt in zip(blobs, doubted.tolist(), strict=True)]
        columns, event_ts = self._believed(read, kept, at)
        return {name: _without(column, doubted) for name, column in columns.items()}, event_ts

    def _believed(
        self, read: ViewRead, blobs: Sequence[bytes | None], at: int
    ) -> tuple[dict[str, Column], NDArray[np.int64]]:
        view = read.view
        if isinstance(view, WindowedView):
            return read_windows(view, self._manifest.event_source(view), blobs, read.features, at)
        return read_rows(view, blobs, read.features, at)


def _without(column: Column, doubted: NDArray[np.bool_]) -> Column:
    """A column without the values of some rows: their bucket is not ready, so that nothing of it may be believed."""
    status = np.where(doubted, Status.UNAVAILABLE, column.status).astype(np.int8)
    return Column(column.type, column.values, column.null | doubted, status)
