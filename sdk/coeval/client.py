"""The SDK: what models and services call. It knows the manifest and the online store; engines only by entry points."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coeval.derived import run_derived
from coeval.errors import ManifestError, RequestError, StoreError, UnknownFeatureError
from coeval.online import store
from coeval.online.merge import unavailable
from coeval.online.plan import row_count
from coeval.online.reader import OnlineReader, StoredFeatures, wall_clock
from coeval.online.result import Column, FeatureResult, Status
from coeval.spec.manifest import Manifest
from coeval.spec.model import DerivedView, FeatureService, Field, ServiceView
from coeval.spec.types import Kind, to_physical

if TYPE_CHECKING:
    import redis

    from coeval.settings import Settings

Entities = Mapping[str, Sequence[Any]]


def connect(settings: Settings | None = None) -> FeatureStore:
    """Open the feature store that the settings name (default: COEVAL_* variables over coeval.toml over defaults).

    Raises:
        ManifestError: no catalog has been applied here.
        StoreError: the online store does not answer, or would evict data.
    """
    from coeval.settings import load_settings

    settings = settings or load_settings()
    # Readers follow what was released; what is merely applied may still be filling.
    released = settings.released_path.exists()
    path = settings.released_path if released else settings.manifest_path
    return FeatureStore(read_manifest(path), open_redis(settings))


def read_manifest(path: Path) -> Manifest:
    """The manifest that was applied last.

    Raises:
        ManifestError: there is none, or it cannot be read.
    """
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(f"No manifest at {path}.", "Register the catalog: coeval apply") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"The manifest {path} cannot be read: {error}.", "Restore it, or move it away.") from error


def open_redis(settings: Settings) -> redis.Redis:
    """A client of the online store (see `coeval.online.store.connect`).

    Raises:
        StoreError: it does not answer, or its maxmemory-policy evicts.
    """
    return store.connect(settings.redis)


class FeatureStore:
    """Serves the features of one manifest. Safe to share between threads."""

    def __init__(self, manifest: Manifest, client: redis.Redis, clock: Callable[[], int] = wall_clock) -> None:
        self.manifest = manifest
        self._services = {service.name: service for service in manifest.services}
        self._derived = {view.name: view for view in manifest.derived_views}
        self._reader = OnlineReader(client, manifest, clock)
        self._client = client

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_features(
        self,
        service: str,
        entities: Entities | Sequence[Mapping[str, Any]],
        *,
        request: Mapping[str, Sequence[Any]] | None = None,
    ) -> FeatureResult:
        """The features of a service now, for entities given as columns by join key or as a list of dicts.

        `request` holds the request-time inputs of derived features, one value per entity.

        Raises:
            UnknownFeatureError: no such service; near names are given.
            EntityKeyError: a key is missing, null or of the wrong type.
            RequestError: a request-time input is missing or of the wrong type.
            StoreError: the online store does not answer.
        """
        chosen = self.service(service)
        columns = _as_columns(entities)
        inputs = self._request(chosen, request or {}, row_count(columns))
        stored = self._read(self._needed(chosen), columns)
        served = {
            f"{item.view}__{name}": stored.columns[item.view][name] for item in chosen.views for name in item.features
        }
        for item in chosen.derived:
            served |= _derive(self._derived[item.view], item.features, stored, inputs)
        event_ts = {item.view: stored.event_ts[item.view] for item in chosen.views}
        return FeatureResult(served, columns, event_ts, stored.at, self.manifest.hash)

    def service(self, name: str) -> FeatureService:
        """The service of that name.

        Raises:
            UnknownFeatureError: there is none; near names are given.
        """
        if name in self._services:
            return self._services[name]
        near = difflib.get_close_matches(name, self._services, n=3)
        raise UnknownFeatureError(
            f"There is no feature service {name!r}.",
            f"Did you mean {', '.join(near)}?" if near else f"Known: {', '.join(self._services) or 'none'}.",
        )

    def _read(self, views: Sequence[ServiceView], entities: Entities) -> StoredFeatures:
        import redis

        try:
            return self._reader.read(views, entities)
        except redis.RedisError as error:
            raise StoreError(f"The online store does not answer: {error}.", "See coeval status.") from error

    def _needed(self, service: FeatureService) -> list[ServiceView]:
        """What to read: the service's views, widened by the inputs of its derived features."""
        needed = {item.view: (item.version, list(item.features)) for item in service.views}
        for derived in service.derived:
            for ref in self._derived[derived.view].inputs:
                _, features = needed.setdefault(ref.view, (self.manifest.views[ref.view].version, []))
                if ref.feature not in features:
                    features.append(ref.feature)
        return [ServiceView(view, version, tuple(features)) for view, (version, features) in needed.items()]

    def _request(
        self, service: FeatureService, request: Mapping[str, Sequence[Any]], rows: int
    ) -> dict[str, NDArray[Any]]:
        fields = {
            field.name: (field, item.view) for item in service.derived for field in self._derived[item.view].request
        }
        unknown = sorted(request.keys() - fields.keys())
        if unknown:
            raise RequestError(
                f"{service.name} takes no request input {', '.join(unknown)}.",
                f"It takes: {', '.join(fields) or 'none'}.",
            )
        return {name: _request_column(field, view, request.get(name), rows) for name, (field, view) in fields.items()}


def _as_columns(entities: Entities | Sequence[Mapping[str, Any]]) -> Entities:
    if isinstance(entities, Mapping):
        return entities
    names = {name: None for row in entities for name in row}
    return {name: [row.get(name) for row in entities] for name in names}


def _request_column(field: Field, view: str, values: Sequence[Any] | None, rows: int) -> NDArray[Any]:
    where = f"the request input {field.name} ({field.type}) of {view}"
    if values is None:
        raise RequestError(f"Missing is {where}.", f"Pass request={{'{field.name}': [...]}} with one value per entity.")
    if len(values) != rows:
        raise RequestError(f"There are {len(values)} values of {where} for {rows} entities.", "Give one per entity.")
    try:
        physical = [to_physical(field.type, value) for value in values]
    except ValueError as error:
        raise RequestError(f"{where[0].upper()}{where[1:]}: {error}.", f"Give values of {field.type}.") from error
    if field.type.kind is Kind.STRING:
        return np.array(physical, dtype=object)
    return np.array([np.nan if value is None else float(value) / 10**field.type.scale for value in physical])


def _derive(
    view: DerivedView, features: Iterable[str], stored: StoredFeatures, request: Mapping[str, NDArray[Any]]
) -> dict[str, Column]:
    inputs = [stored.columns[ref.view][ref.feature] for ref in view.inputs]
    rows = max((len(column.status) for column in inputs), default=len(next(iter(request.values()), ())))
    fields = {field.name: field for field in view.features}
    blocked = np.zeros(rows, dtype=bool)
    for column in inputs:
        blocked |= column.status == Status.UNAVAILABLE
    if rows and bool(blocked.all()):
        return {f"{view.name}__{name}": unavailable(fields[name], rows) for name in features}
    columns = {ref.full_name: _plain(column) for ref, column in zip(view.inputs, inputs, strict=True)}
    outputs = run_derived(view, {**columns, **request})
    return {f"{view.name}__{name}": _derived_column(fields[name], outputs[name], blocked) for name in features}


def _plain(column: Column) -> NDArray[Any]:
    if column.type.kind is Kind.STRING:
        return np.array(column.logical(), dtype=object)
    return column.numeric()


def _derived_column(field: Field, values: NDArray[Any], blocked: NDArray[np.bool_]) -> Column:
    if field.type.kind is Kind.STRING:
        null = np.array([value is None for value in values], dtype=bool)
    else:
        null = np.isnan(values)
    null |= blocked
    status = np.where(blocked, Status.UNAVAILABLE, np.where(null, Status.NULL, Status.PRESENT)).astype(np.int8)
    return Column(field.type, values, null, status)
