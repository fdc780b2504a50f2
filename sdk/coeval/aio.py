"""The SDK for asyncio: the same calls as `coeval`, awaited. Plans, decoding and results are the same code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from coeval.client import Versions
from coeval.entities import Entities, as_columns
from coeval.errors import StoreError
from coeval.manifests import Manifests
from coeval.online import store
from coeval.online.answer import Answer
from coeval.online.plan import row_count
from coeval.online.reader import decode, wall_clock
from coeval.online.result import FeatureResult
from coeval.service import Asked, Request
from coeval.spec.manifest import Manifest

if TYPE_CHECKING:
    import redis.asyncio

    from coeval.settings import Settings

__all__ = ["AsyncFeatureStore", "connect"]


async def connect(settings: Settings | None = None) -> AsyncFeatureStore:
    """Open the feature store that the settings name; see `coeval.connect`.

    Raises:
        ManifestError: no catalog has been applied here.
        StoreError: the online store does not answer, or would evict data.
    """
    from coeval.settings import load_settings

    settings = settings or load_settings()
    # What a store is checked for takes a few round trips, once: in a thread, by the same code.
    await asyncio.to_thread(lambda: store.connect(settings.redis).close())
    manifests = Manifests(settings)
    return AsyncFeatureStore(manifests, store.async_client(settings.redis), settings.redis.timeout_seconds)


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

    async def __aenter__(self) -> AsyncFeatureStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._streams.close()
        await self._client.aclose()

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
        until = None if deadline is None else time.monotonic() + deadline
        services, name = self._versions.of(asked)
        service = services.plan(name)
        columns = as_columns(entities)
        inputs = service.inputs(request or {}, row_count(columns))
        plan = service.planner.plan(columns)
        at = self._clock()
        stored = decode(plan, await self._fetch(plan.keys, until), at)
        return service.result(stored, columns, inputs)

    async def _fetch(self, names: list[str], until: float | None) -> Answer:
        import redis

        try:
            return await self._streams.fetch(names, until)
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error
