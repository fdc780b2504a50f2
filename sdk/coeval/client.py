"""The SDK: what models and services call. It knows the manifest and the online store; engines only by entry points."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coeval.engines import engine
from coeval.entities import Columns, Entities, as_columns
from coeval.errors import EntityKeyError, ManifestError, StoreError, UsageError
from coeval.manifests import LEAST, PIN, Manifests, read_manifest
from coeval.online import store
from coeval.online.cache import ReadCache
from coeval.online.plan import row_count
from coeval.online.reader import OnlineReader, StoredFeatures, wall_clock
from coeval.online.result import FeatureResult
from coeval.service import Asked, Request, ServicePlan, Services
from coeval.sla import SlaBook
from coeval.spec.manifest import Manifest

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import redis

    from coeval.settings import Settings
    from coeval.training import Labels, TrainingSet

__all__ = ["FeatureStore", "connect", "open_redis", "read_manifest"]


def connect(
    settings: Settings | None = None,
    *,
    home: str | Path | None = None,
    redis_url: str | None = None,
    cache_seconds: float = 0.0,
    online: bool = True,
) -> FeatureStore:
    """Open the feature store that the settings name (default: COEVAL_* variables over coeval.toml over defaults).

    `home` (where the manifests are) and `redis_url` go over the settings.

    `online=False` opens it without the online store, for training sets alone. It follows what is released without being
    opened anew. With `cache_seconds` values may be that old, and keys that were asked for within that time
    are not asked for again.

    Raises:
        ManifestError: no catalog has been applied here.
        StoreError: the online store does not answer, or would evict data.
    """
    from coeval.settings import load_settings

    settings = (settings or load_settings()).with_addresses(home, redis_url)
    cache = ReadCache(cache_seconds) if cache_seconds > 0 else None
    client = open_redis(settings) if online else None
    return FeatureStore(Manifests(settings), client, cache=cache, settings=settings)


def open_redis(settings: Settings) -> redis.Redis:
    """A client of the online store (see `coeval.online.store.connect`).

    Raises:
        StoreError: it does not answer, or its maxmemory-policy evicts.
    """
    return store.connect(settings.redis)


class FeatureStore:
    """Serves features. Safe to share between threads, and to be carried through a fork.

    `manifests` is what it follows: the manifests of a home directory, or one manifest for good. Without a client it
    serves no online features, without settings no training sets.
    """

    def __init__(
        self,
        manifests: Manifests | Manifest,
        client: redis.Redis | None,
        clock: Callable[[], int] = wall_clock,
        cache: ReadCache | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._versions = Versions(manifests)
        self._reader = None if client is None else OnlineReader(client, clock, cache)
        self._client = client
        self._settings = settings
        self.slas = SlaBook()
        """What its services promised and kept, measured here."""

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._reader is not None and self._client is not None:
            self._reader.close()
            self._client.close()

    @property
    def manifest(self) -> Manifest:
        """The manifest that is followed now."""
        return self._versions.now().manifest

    def plan(self, asked: Asked) -> ServicePlan:
        """How what is asked for is had: what it takes and gives, before any of it is read.

        Raises:
            UnknownFeatureError, ManifestError: as `get_features`.
        """
        services, name = self._versions.of(asked)
        return services.plan(name)

    def get_features(
        self, asked: Asked, entities: Entities, *, request: Request | None = None, deadline: float | None = None
    ) -> FeatureResult:
        """The features of a service now, or of a list of features, in a stable order.

        `asked` is a service, `service@hash` for the definitions that a model was trained with, or a list of features
        (`view__feature` or `view:feature`). `entities` are columns by join key, a list of dicts, a structured array, an
        Arrow table or a data frame. `request` holds the request-time inputs of derived features, one value per entity.
        `deadline` is in seconds from now: what could not be read by then is UNAVAILABLE, also if the store is away.

        Raises:
            UnknownFeatureError: no such service or feature; near names are given.
            ManifestError: no manifest of that hash was released.
            EntityKeyError: a key is missing, null or of the wrong type.
            RequestError: a request-time input is missing or of the wrong type.
            StoreError: without a deadline: the online store does not answer.
        """
        begin = time.perf_counter()
        plan = self.plan(asked)
        columns = as_columns(entities)
        inputs = plan.inputs(request or {}, row_count(columns))
        try:
            result = plan.result(self._read(plan, columns, deadline), columns, inputs)
        except EntityKeyError:
            raise
        except BaseException:
            # Whatever else it is, it was no fault of the caller.
            self.slas.note(plan.label, plan.promise, time.perf_counter() - begin, None)
            raise
        self.slas.note(plan.label, plan.promise, time.perf_counter() - begin, result)
        return result

    def _read(self, plan: ServicePlan, columns: Columns, deadline: float | None) -> StoredFeatures:
        import redis

        if self._reader is None:
            raise StoreError("This store was opened without the online store.", "Open it with coeval.connect().")
        try:
            return self._reader.read(plan.planner, columns, deadline)
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error

    def get_training_set(
        self,
        service: str,
        spine: object,
        *,
        labels: Labels | None = None,
        knowledge: str = "available",
        name: str | None = None,
        engine: str = "auto",
    ) -> TrainingSet:
        """Every row of a spine with the features of a service that were known at its `event_timestamp`.

        `service` is one of the catalog that was applied last, or `service@hash` of one that was released. `spine` is a
        DataFrame (pandas, polars, Arrow, Spark), the path of Parquet files, a CSV file or a Delta table, or a SELECT of
        Spark's. `knowledge="final"` uses all that is known now, whenever it became available. With a `name` it is kept,
        in place of an earlier one of that name. `engine` is "auto", by size, "local" (this process) or "spark".

        Raises:
            UnknownFeatureError: no such service.
            ManifestError: no catalog was applied, or none of that hash was released.
            UsageError: the spine or the labels lack something.
            NeedsSparkError: "local" was asked for, and cannot be.
            MissingExtraError: the engine is not installed.
            EngineError: Spark fails.
        """
        found: TrainingSet = self._offline("training_set")(
            *self._asked_offline(service), spine, labels=labels, knowledge=knowledge, name=name, engine=engine
        )
        return found

    def get_batch_features(
        self, service: str, entities: object, at: datetime | None = None, *, engine: str = "auto"
    ) -> TrainingSet:
        """The features of many entities at one instant (with a time zone; default: now), by the code of training sets.

        `entities` is a spine without `event_timestamp`, in any of its forms. Nothing is kept.

        Raises:
            UnknownFeatureError, ManifestError, UsageError, NeedsSparkError, MissingExtraError, EngineError: as
                `get_training_set`.
        """
        found: TrainingSet = self._offline("batch_features")(
            *self._asked_offline(service), entities, at=at, engine=engine
        )
        return found

    @staticmethod
    def _offline(name: str) -> Any:
        return engine(name, "notebook|offline")

    def _asked_offline(self, service: str) -> tuple[Settings, Manifest, str]:
        if self._settings is None:
            raise UsageError("This store does not know where the event log is.", "Open it with coeval.connect().")
        return self._settings, *self._versions.offline(service)


class Versions:
    """The services of the manifest that is followed, and of those that are pinned, each planned once."""

    def __init__(self, manifests: Manifests | Manifest) -> None:
        self._manifests = manifests
        self._current: Services | None = None
        self._pinned: dict[str, Services] = {}

    def now(self) -> Services:
        """The services of the manifest that is followed now."""
        manifest = self._manifests if isinstance(self._manifests, Manifest) else self._manifests.current()
        current = self._current
        if current is None or current.manifest is not manifest:
            current = self._current = Services(manifest)
        return current

    def offline(self, service: str) -> tuple[Manifest, str]:
        """The manifest that a training set of `service`, or of `service@hash`, is of, and the service's name.

        Raises:
            ManifestError: none was applied, or none of that hash was released.
        """
        if isinstance(self._manifests, Manifest):
            services, name = self.of(service)
            return services.manifest, str(name)
        return self._manifests.offline(service)

    def of(self, asked: Asked) -> tuple[Services, Asked]:
        """The services that a request means, and what it asks of them.

        Raises:
            ManifestError: it is pinned to a manifest that was never released here.
        """
        if not isinstance(asked, str) or PIN not in asked:
            return self.now(), asked
        name, _, text = asked.partition(PIN)
        if text not in self._pinned:
            now = self.now()
            if len(text) >= LEAST and now.manifest.hash.startswith(text):
                return now, name
            if isinstance(self._manifests, Manifest):
                raise ManifestError(f"This store serves the manifest {now.manifest.hash[:12]} alone, not {text!r}.")
            self._pinned[text] = Services(self._manifests.pinned(text))
        return self._pinned[text], name
