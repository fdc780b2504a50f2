"""Feast's `get_online_features` on Coeval's online store: the SDK's values in Feast's own messages. It knows Feast."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast.feature_service import FeatureService
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.type_map import feast_value_type_to_python_type, python_values_to_proto_values
from feast.value_type import ValueType

from coeval.client import FeatureStore, connect
from coeval.entities import as_columns
from coeval.feast_words import Vector, divided, vectors
from coeval.spec.types import Kind
from coeval_pipelines.catalog.baseline import settings_of

_TYPES = {
    Kind.INT64: ValueType.INT64,
    Kind.FLOAT64: ValueType.DOUBLE,
    Kind.DECIMAL: ValueType.DECIMAL,
    Kind.STRING: ValueType.STRING,
    Kind.BOOL: ValueType.BOOL,
    Kind.TIMESTAMP: ValueType.UNIX_TIMESTAMP,
    Kind.DATE: ValueType.UNIX_TIMESTAMP,
}
_STORES: dict[Path, FeatureStore] = {}
"""By repository: Feast asks its provider anew for every call."""


def get_online_features(
    repository: Path, features: Sequence[str] | FeatureService, entity_rows: Any, full_feature_names: bool
) -> OnlineResponse:
    """What Feast's method of that name gives, by the manifest and the settings of a feature repository.

    Request-time inputs stand among the entities, as Feast has it.

    Raises:
        CoevalError: as `coeval.FeatureStore.get_features`.
        RequestError: without full names, two features are called the same.
    """
    if repository not in _STORES:
        _STORES[repository] = connect(settings_of(repository))
    store = _STORES[repository]
    asked = features.name if isinstance(features, FeatureService) else list(features)
    plan = store.plan(asked)
    columns = {name: _plain(values) for name, values in as_columns(_unwrapped(entity_rows)).items()}
    entities, inputs = divided(columns, plan)
    response = GetOnlineFeaturesResponse()
    for vector in vectors(plan, store.get_features(asked, entities, request=inputs), full_feature_names):
        _add(response, vector)
    return OnlineResponse(response)


def _unwrapped(entity_rows: Any) -> Any:
    if not isinstance(entity_rows, dict):
        return entity_rows
    return {name: list(item.val) if isinstance(item, RepeatedValue) else item for name, item in entity_rows.items()}


def _plain(values: Sequence[Any]) -> list[Any]:
    return [feast_value_type_to_python_type(item) if isinstance(item, Value) else item for item in values]


def _midnights(vector: Vector) -> list[Any]:
    """Feast knows no dates: a day is its first instant in UTC."""
    if vector.field.type.kind is not Kind.DATE:
        return list(vector.values)
    return [None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC) for day in vector.values]


def _add(response: GetOnlineFeaturesResponse, vector: Vector) -> None:
    response.metadata.feature_names.val.append(vector.name)
    found = response.results.add()
    found.values.extend(python_values_to_proto_values(_midnights(vector), _TYPES[vector.field.type.kind]))
    found.statuses.extend(FieldStatus.Value(word) for word in vector.statuses)
    for at in vector.times:
        found.event_timestamps.add(seconds=at // 1_000_000, nanos=at % 1_000_000 * 1000)
