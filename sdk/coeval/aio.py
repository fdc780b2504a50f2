"""The SDK for asyncio: the same calls as `coeval`, awaited. Plans, decoding and results are the same code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from coeval.client import Versions
from coeval.entities import Entities, as_columns
from coeval.errors import StoreError
from coeval.manifests import Manifests
from coeval.online import store
from coeval.online.answer import Answer
from coeval.online.keys import ready_key
from coeval.online.plan import row_count
from coeval.online.reader import decode, wall_clock
from coeval.online.result import FeatureResult
from coeval.service import Asked, Request, ServicePlan
from coeval.sla import SlaBook
from coeval.spec.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    import redis.asyncio

    from coeval.settings import Settings

_MANY = 256
_T = TypeVar("_T")
__all__ = ["AsyncFeatureStore", "aside", "connect"]


async def connect(
    settings: Settings | None = None, *, home: str | Path | None = None, redis_url: str | None = None
) -> AsyncFeatureStore:
    """Open the feature store that the settings name; see `coeval.connect`.

    Raises:
        ManifestError: no catalog has been applied here.
        StoreError: the online store does not answer, or would evict data.
    """
    from coeval.settings import load_settings

    settings = (settings or load_settings()).with_addresses(home, redis_url)
    # What a store is checked for takes a few round trips, once: in a thread, by the same code.
    await asyncio.to_thread(lambda: store.connect(settings.redis).close())
    manifests = Manifests(settings)
    return AsyncFeatureStore(manifests, store.async_client(settings.redis), settings.redis.timeout_seconds)


async def aside(rows: int, work: Callable[..., _T], *arguments: Any) -> _T:
    """Work that takes long for many rows is done in a thread: other coroutines need not wait for it."""
    return await asyncio.to_thread(work, *arguments) if rows > _MANY else work(*arguments)


class AsyncFeatureStore:
    """Serves features to coroutines. `manifests` is what it follows; see `coeval.FeatureStore`."""

    def __init__(
        self,
        manifests: Manifests | Manifest,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        timeout: float = 2.0,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        from coeval.online.streams import Streams

        self._versions = Versions(manifests)
        self._streams = Streams(client, timeout)
        self._client = client
        self._clock = clock
        self.slas = SlaBook()
        """What its services promised and kept, measured here."""

    async def __aenter__(self) -> AsyncFeatureStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._streams.close()
        await self._client.aclose()

    async def ping(self) -> None:
        """See whether the online store answers.

        Raises:
            StoreError: it does not.
        """
        await self._fetch([ready_key(self.manifest.tenant, 0)], None)

    @property
    def manifest(self) -> Manifest:
        """The manifest that is followed now."""
        return self._versions.now().manifest

    async def get_features(
        self, asked: Asked, entities: Entities, *, request: Request | None = None, deadline: float | None = None
    ) -> FeatureResult:
        """The features of a service now, or of a list of features; see `coeval.FeatureStore.get_features`.

        Raises:
            UnknownFeatureError, ManifestError, EntityKeyError, RequestError, StoreError: as there.
        """
        return await self.read(self.plan(asked), entities, request=request, deadline=deadline)

    def plan(self, asked: Asked) -> ServicePlan:
        """How what is asked for is had: what it takes and gives, before any of it is read.

        Raises:
            UnknownFeatureError, ManifestError: as `get_features`.
        """
        services, name = self._versions.of(asked)
        return services.plan(name)

    async def read(
        self, service: ServicePlan, entities: Entities, *, request: Request | None = None, deadline: float | None = None
    ) -> FeatureResult:
        """The features of a plan now; see `get_features`."""
        begin = time.monotonic()
        columns = as_columns(entities)
        rows = row_count(columns)
        inputs = service.inputs(request or {}, rows)
        plan = await aside(rows, service.planner.plan, columns)
        at = self._clock()
        try:
            answer = await self._fetch(plan.keys, None if deadline is None else begin + deadline)
            result = await aside(rows, lambda: service.result(decode(plan, answer, at), columns, inputs))
        except BaseException:
            # Whatever it is, it was no fault of the caller.
            self.slas.note(service.label, service.promise, time.monotonic() - begin, None)
            raise
        self.slas.note(service.label, service.promise, time.monotonic() - begin, result)
        return result

    async def _fetch(self, names: list[str], until: float | None) -> Answer:
        import redis

        try:
            return await self._streams.fetch(names, until)
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error
