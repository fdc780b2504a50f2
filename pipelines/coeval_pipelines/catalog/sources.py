"""Feast data sources and entities to their place in the manifest. Pure over registry protos; Feast is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.spec.keys import KEY_KINDS
from coeval.spec.model import RESERVED, BatchSource, Entity, EventSource, Field
from coeval.spec.time import MINUTE, parse_duration
from coeval.spec.types import TIMESTAMP, DataType
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.canaries import with_canary
from coeval_pipelines.catalog.errors import DefinitionError, together
from coeval_pipelines.catalog.fields import FEAST_TYPES, Defaults, enum_name, micros, pii_fix
from coeval_pipelines.catalog.names import check_name, check_names, check_topic, nearest
from coeval_pipelines.catalog.schema import from_json_schema

if TYPE_CHECKING:
    from feast.protos.feast.core.DataSource_pb2 import DataSource
    from feast.protos.feast.core.Entity_pb2 import EntitySpecV2


def compile_entity(spec: EntitySpecV2, defaults: Defaults, seen: DataType | None) -> Entity:
    """An entity and its key; `seen` is the type of that column in the sources and views that use it.

    Raises:
        BrokenCatalogError: its key has no type, or one that cannot be a key, or no PII class.
    """
    where = f"entity {spec.name}"
    pii = spec.tags.get(tags.PII_CLASS, defaults.pii)
    stated = enum_name(spec, "value_type")
    data_type = FEAST_TYPES.get(stated) or (seen if stated in ("INVALID", "UNKNOWN") else None)
    together(
        lambda: check_names(where, (spec.name, spec.join_key)),
        lambda: tags.check_tags("entity", where, spec.tags),
        lambda: _check_key(where, spec, stated, data_type),
        lambda: _check_pii(where, spec, pii),
    )
    assert data_type is not None
    return Entity(spec.name, Field(spec.join_key, data_type, False, spec.description, pii), spec.description)


def _check_key(where: str, spec: EntitySpecV2, stated: str, data_type: DataType | None) -> None:
    if data_type is None and stated in ("INVALID", "UNKNOWN"):
        fix = (
            f'Entity(name="{spec.name}", ..., value_type=ValueType.INT64) or STRING, as the column {spec.join_key} is.'
        )
        raise DefinitionError(where, "its key has no type, and no source or view says it", fix)
    if data_type is None or data_type.kind not in KEY_KINDS:
        what = f"a {data_type or stated} cannot be a key"
        raise DefinitionError(where, what, "Add value_type=ValueType.INT64 or STRING.")


def _check_pii(where: str, spec: EntitySpecV2, pii: str) -> None:
    if not pii:
        fix = pii_fix(f'Entity(name="{spec.name}", ..., ', ")")
        raise DefinitionError(where, "its key has no PII class", fix)


def compile_event_source(source: DataSource, defaults: Defaults) -> EventSource:
    """A Kafka source: topic, columns, identity, time, lateness and history.

    Raises:
        BrokenCatalogError: it says too little, or contradicts itself.
    """
    where = f"source {source.name}"
    options = source.kafka_options
    together(
        lambda: check_name(where, source.name),
        lambda: tags.check_tags("event source", where, source.tags),
        lambda: check_topic(where, options.topic),
        lambda: _plain_columns(where, source),
        lambda: _check_history(where, source),
    )
    fields = from_json_schema(where, options.message_format.json_format.schema_json, defaults.pii)
    event_id = source.tags.get(tags.EVENT_ID, "")
    together(
        lambda: _check_event_id(where, fields, event_id),
        lambda: _check_time(where, fields, source.timestamp_field, required=True),
        lambda: _no_envelope(where, fields, {"event_id": event_id, "event_ts": source.timestamp_field}),
    )
    compiled = EventSource(
        name=source.name,
        topic=options.topic,
        fields=fields,
        event_id=event_id,
        event_ts=source.timestamp_field,
        max_future_skew=parse_duration(source.tags.get(tags.SKEW, "5m")),
        allowed_lateness=micros(options.watermark_delay_threshold) or 10 * MINUTE,
        history=source.batch_source.file_options.uri,
        description=source.description,
        owner=source.owner or defaults.owner,
        dedup=source.tags.get(tags.DEDUP, "on") == "on",
        expected_rate=float(source.tags[tags.RATE]) if tags.RATE in source.tags else None,
    )
    stated = source.tags.get(tags.CANARY, "")
    return with_canary(where, compiled, tags.canary_literals(stated) if stated else {})


def _plain_columns(where: str, source: DataSource) -> None:
    if source.field_mapping:
        fix = "Remove field_mapping=, and name the columns as the features that use them."
        raise DefinitionError(where, "a field_mapping is not supported", fix)
    if source.HasField("kafka_options") and source.created_timestamp_column:
        what = "an event is available from the timestamp of its Kafka record on"
        raise DefinitionError(where, what, "Remove created_timestamp_column=.")


def _no_envelope(where: str, fields: tuple[Field, ...], roles: dict[str, str]) -> None:
    for field in fields:
        if field.name in RESERVED and roles.get(field.name) != field.name:
            what = "every event of the log has a column of that name, with another meaning"
            raise DefinitionError(f"{where}, column {field.name}", what, "Rename it where it is written.")


def _no_origin(where: str, fields: tuple[Field, ...]) -> None:
    for field in fields:
        if field.origin:
            here = f"{where}, column {field.name}"
            raise DefinitionError(here, "only a topic's records have a key and headers", "Remove origin=.")


def _check_history(where: str, source: DataSource) -> None:
    history, time = source.batch_source, source.timestamp_field
    if not source.HasField("batch_source"):
        return
    if history.timestamp_field != time:
        what = f"its history {history.name} has the time column {history.timestamp_field!r}, the topic {time!r}"
        raise DefinitionError(where, what, f'Give the batch_source timestamp_field="{time}".')
    _plain_columns(where, history)
    if history.created_timestamp_column or history.file_options.file_format.HasField("delta_format"):
        what = f"its history {history.name} is Parquet, available when it happened"
        raise DefinitionError(where, what, "Remove created_timestamp_column= and file_format=.")


def compile_batch_source(source: DataSource, defaults: Defaults, seen: tuple[Field, ...]) -> BatchSource:
    """A table of files: path, format, columns and times; `seen` are its columns where it does not declare them.

    Raises:
        BrokenCatalogError: it says too little, or contradicts itself.
    """
    where = f"source {source.name}"
    together(
        lambda: check_name(where, source.name),
        lambda: tags.check_tags("batch source", where, source.tags),
        lambda: _plain_columns(where, source),
    )
    stated = source.tags.get(tags.SCHEMA, "")
    fields = from_json_schema(where, stated, defaults.pii) if stated else seen
    created = source.created_timestamp_column
    together(
        lambda: _check_time(where, fields, source.timestamp_field, required=True),
        lambda: _check_time(where, fields, created, required=False) if created else None,
        lambda: _no_envelope(where, fields, {"event_ts": source.timestamp_field, "available_at": created}),
        lambda: _no_origin(where, fields),
    )
    return BatchSource(
        name=source.name,
        path=source.file_options.uri,
        format="delta" if source.file_options.file_format.HasField("delta_format") else "parquet",
        fields=fields,
        event_ts=source.timestamp_field,
        available_at=created,
        description=source.description,
        owner=source.owner or defaults.owner,
    )


def find(where: str, fields: tuple[Field, ...], name: str, role: str) -> Field:
    """The column of that name.

    Raises:
        DefinitionError: there is none.
    """
    for field in fields:
        if field.name == name:
            return field
    fix = f"{nearest(name, [field.name for field in fields])} Or declare it."
    raise DefinitionError(where, f"{role} {name!r} is not one of its columns", fix)


def _check_event_id(where: str, fields: tuple[Field, ...], name: str) -> None:
    if not name:
        raise DefinitionError(where, "it names no event id", 'Add tags=event_tags(event_id="event_id").')
    _required(where, find(where, fields, name, "the event id"), "the event id")


def _required(where: str, field: Field, role: str) -> None:
    if field.nullable:
        fix = f'Declare column("{field.name}", ..., required=True).'
        raise DefinitionError(f"{where}, column {field.name}", f"{role} may be null", fix)


def _check_time(where: str, fields: tuple[Field, ...], name: str, *, required: bool) -> None:
    if not name:
        raise DefinitionError(where, "it names no time column", 'Add timestamp_field="event_timestamp".')
    field = find(where, fields, name, "the time column")
    if field.type != TIMESTAMP:
        fix = f'Declare column("{name}", "timestamp", ...).'
        raise DefinitionError(f"{where}, column {name}", f"a time column is a timestamp, not a {field.type}", fix)
    if required:
        _required(where, field, "the time column")


def time_columns(source: DataSource) -> tuple[Field, ...]:
    """The columns that a source without a schema has by itself: its event time, and when a row was known."""
    named = [(source.timestamp_field, False), (source.created_timestamp_column, True)]
    return tuple(Field(name, TIMESTAMP, nullable) for name, nullable in named if name)
