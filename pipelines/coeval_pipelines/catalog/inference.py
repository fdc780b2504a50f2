"""What plain Feast definitions leave unsaid and others of their registry say: types of keys, columns of files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coeval.spec.model import PII_CLASSES, Entity, Field
from coeval.spec.types import DataType
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import BrokenCatalogError, DefinitionError, gather
from coeval_pipelines.catalog.fields import FEAST_TYPES, Defaults, compile_field, enum_name
from coeval_pipelines.catalog.names import check_name, check_names
from coeval_pipelines.catalog.schema import from_json_schema
from coeval_pipelines.catalog.sources import time_columns

if TYPE_CHECKING:
    from feast.protos.feast.core.DataSource_pb2 import DataSource
    from feast.protos.feast.core.Registry_pb2 import Registry


def of_project(project: str, items: Iterable[Any]) -> list[Any]:
    """The specs of a project, by name: also the order of errors must not depend on Feast's."""
    return sorted((item.spec for item in items if item.spec.project == project), key=lambda spec: str(spec.name))


def key_types_seen(registry: Registry, project: str) -> dict[str, DataType]:
    """The types of columns that views list as their keys, or sources declare: for entities that name no type."""
    found: dict[str, DataType] = {}
    for spec in of_project(project, [*registry.feature_views, *registry.stream_feature_views]):
        for column in spec.entity_columns:
            data_type = FEAST_TYPES.get(enum_name(column, "value_type"))
            if data_type is not None:
                found.setdefault(column.name, data_type)
    for source in sorted(registry.data_sources, key=lambda item: str(item.name)):
        for column in _declared(source):
            # What the source says is what is read.
            found[column.name] = column.type
    return found


def _declared(source: DataSource) -> tuple[Field, ...]:
    text = source.tags.get(tags.SCHEMA, "") or source.kafka_options.message_format.json_format.schema_json
    try:
        return from_json_schema("", text, PII_CLASSES[0]) if text else ()
    except BrokenCatalogError:  # It is reported where the source is compiled.
        return ()


def columns_seen(
    registry: Registry, project: str, source: DataSource, entities: Mapping[str, Entity | None], defaults: Defaults
) -> tuple[Field, ...]:
    """The columns of a file source as the views on it name them: keys, then its times, then features by name.

    Raises:
        BrokenCatalogError: two views give a column two types, or one gives it a name that cannot be one.
    """
    specs = [spec for spec in of_project(project, registry.feature_views) if spec.batch_source.name == source.name]
    gather(lambda named: check_name(*named), _names_given(specs))
    keys: dict[str, Field] = {}
    features: dict[str, Field] = {}
    for spec in specs:
        named = (entities.get(name) for name in spec.entities)
        keys |= {entity.key.name: entity.key for entity in named if entity}
        for field in _features(spec, defaults):
            if features.setdefault(field.name, field).type != field.type:
                what = f"views on it give it two types, {features[field.name].type} and {field.type}"
                fix = "Declare the columns of the source: tags=batch_tags(column(...), ...)."
                raise DefinitionError(f"source {source.name}, column {field.name}", what, fix)
    times = {field.name: field for field in time_columns(source)}
    check_names(f"source {source.name}, a time column", times)
    rest = {name: features[name] for name in sorted(features) if name not in keys | times}
    return (*keys.values(), *(times[name] for name in times if name not in keys), *rest.values())


def _names_given(specs: Iterable[Any]) -> list[tuple[str, str]]:
    """Where views name a column of their source, and the name: nothing else declares it."""
    return [(f"view {spec.name}, field {item.name}", item.name) for spec in specs for item in spec.features]


def _features(spec: Any, defaults: Defaults) -> Iterator[Field]:
    for item in spec.features:
        try:
            yield compile_field(f"view {spec.name}", item, defaults)
        except BrokenCatalogError:  # It is reported where the view is compiled.
            continue
