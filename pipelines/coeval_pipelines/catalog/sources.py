"""Feast data sources and entities to their place in the manifest. Pure over registry protos; Feast is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coeval.spec.keys import KEY_KINDS
from coeval.spec.model import EVENT_COLUMNS, BatchSource, Entity, EventSource, Field
from coeval.spec.time import MINUTE, parse_duration
from coeval.spec.types import TIMESTAMP, DataType, Kind
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.names import check_name, check_names, check_topic
from coeval_pipelines.catalog.schema import from_json_schema

if TYPE_CHECKING:
    from feast.protos.feast.core.DataSource_pb2 import DataSource
    from feast.protos.feast.core.Entity_pb2 import EntitySpecV2
    from feast.protos.feast.core.Feature_pb2 import FeatureSpecV2

_TYPES = {
    "INT64": DataType(Kind.INT64),
    "DOUBLE": DataType(Kind.FLOAT64),
    "STRING": DataType(Kind.STRING),
    "BOOL": DataType(Kind.BOOL),
    "UNIX_TIMESTAMP": TIMESTAMP,
}
_REFINED = {"DECIMAL": Kind.DECIMAL, "UNIX_TIMESTAMP": Kind.DATE}
"""Feast types that a `coeval.io/type` tag makes precise."""
_ENVELOPE = frozenset({*EVENT_COLUMNS, "topic", "declared_ts", "batch"})
"""Columns that the event log keeps beside the payload."""


def micros(length: Any) -> int:
    """Microseconds of a protobuf Duration."""
    return int(length.seconds) * 1_000_000 + int(length.nanos) // 1_000


def described(where: str, description: str, owner: str) -> None:
    """Refuse an object that nobody owns or explains.

    Raises:
        DefinitionError: description or owner is empty.
    """
    if not description.strip():
        raise DefinitionError(where, "it has no description", 'Add description="What it says, in one sentence.".')
    if not owner.strip():
        raise DefinitionError(where, "it has no owner", 'Add owner="team@company".')


def enum_name(message: Any, name: str) -> str:
    """The name of an enum field's value: INT64, DECIMAL."""
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    return str(enum.values_by_number[getattr(message, name)].name)


def compile_field(where: str, spec: FeatureSpecV2) -> Field:
    """A Feast field with its type and PII class.

    Raises:
        DefinitionError: its type is not supported, or its tags say nothing of PII.
    """
    here = f"{where}, field {spec.name}"
    tags.check_tags("field", here, spec.tags)
    data_type = _data_type(here, enum_name(spec, "value_type"), spec.tags.get(tags.TYPE, ""))
    if tags.PII_CLASS not in spec.tags:
        fix = (
            f'Field(name="{spec.name}", ..., tags={{"{tags.PII_CLASS}": "personal"}}) or one of {", ".join(tags.PII)}.'
        )
        raise DefinitionError(here, "it has no PII class", fix)
    return Field(spec.name, data_type, True, spec.description, spec.tags[tags.PII_CLASS])


def _data_type(where: str, feast_type: str, refined: str) -> DataType:
    if refined:
        stated = DataType.parse(refined)
        if stated not in (_TYPES.get(feast_type), None) and _REFINED.get(feast_type) is not stated.kind:
            raise DefinitionError(
                where,
                f"its Feast type {feast_type} and its tag {tags.TYPE}: {refined} disagree",
                "Use dtype=Decimal with decimal(p,s), UnixTimestamp with date, else leave the tag out.",
            )
        return stated
    if feast_type == "DECIMAL":
        fix = f'Add tags={{"{tags.TYPE}": "decimal(9,2)"}}: Feast\'s Decimal says neither digits nor scale.'
        raise DefinitionError(where, "it is a decimal of unknown size", fix)
    if feast_type not in _TYPES:
        raise DefinitionError(
            where,
            f"the type {feast_type} is not supported",
            "Use Int64, Float64, Decimal, String, Bool or UnixTimestamp.",
        )
    return _TYPES[feast_type]


def compile_entity(spec: EntitySpecV2) -> Entity:
    """An entity and its key.

    Raises:
        DefinitionError: it says too little, or its key has a type that cannot be one.
    """
    where = f"entity {spec.name}"
    described(where, spec.description, spec.owner)
    check_names(where, (spec.name, spec.join_key))
    tags.check_tags("entity", where, spec.tags)
    data_type = _TYPES.get(enum_name(spec, "value_type"))
    if data_type is None or data_type.kind not in KEY_KINDS:
        raise DefinitionError(
            where, "its key has no type that can be a key", "Add value_type=ValueType.INT64 or STRING."
        )
    if tags.PII_CLASS not in spec.tags:
        raise DefinitionError(where, "its key has no PII class", 'Add tags=entity_tags(pii="pseudonymous").')
    key = Field(spec.join_key, data_type, False, spec.description, spec.tags[tags.PII_CLASS])
    return Entity(spec.name, key, spec.description)


def compile_event_source(source: DataSource) -> EventSource:
    """A Kafka source: topic, columns, identity, time, lateness and history.

    Raises:
        DefinitionError: it says too little, or contradicts itself.
    """
    where = f"source {source.name}"
    described(where, source.description, source.owner)
    check_name(where, source.name)
    tags.check_tags("event source", where, source.tags)
    _no_mapping(where, source)
    if source.created_timestamp_column:
        what = "an event is available from the timestamp of its Kafka record on"
        raise DefinitionError(where, what, "Remove created_timestamp_column=.")
    options = source.kafka_options
    fields = from_json_schema(where, options.message_format.json_format.schema_json)
    if tags.EVENT_ID not in source.tags:
        raise DefinitionError(where, "it names no event id", 'Add tags=event_tags(event_id="event_id").')
    _no_envelope(where, fields, {"event_id": source.tags[tags.EVENT_ID], "event_ts": source.timestamp_field})
    return EventSource(
        name=source.name,
        topic=check_topic(where, options.topic),
        fields=fields,
        event_id=_required(where, fields, source.tags[tags.EVENT_ID], "the event id"),
        event_ts=_time(where, fields, source.timestamp_field, required=True),
        max_future_skew=parse_duration(source.tags.get(tags.SKEW, "5m")),
        allowed_lateness=micros(options.watermark_delay_threshold) or 10 * MINUTE,
        history=_history(where, source.batch_source, source.timestamp_field),
        description=source.description,
        owner=source.owner,
    )


def _no_envelope(where: str, fields: tuple[Field, ...], roles: dict[str, str]) -> None:
    for field in fields:
        if field.name in _ENVELOPE and roles.get(field.name) != field.name:
            what = "every event of the log has a column of that name, with another meaning"
            raise DefinitionError(f"{where}, column {field.name}", what, "Rename it in the topic.")


def _history(where: str, source: DataSource, timestamp_field: str) -> str:
    if source.timestamp_field != timestamp_field:
        raise DefinitionError(
            where,
            f"its history {source.name} has the time column {source.timestamp_field!r}, the topic {timestamp_field!r}",
            f'Give the batch_source timestamp_field="{timestamp_field}".',
        )
    _no_mapping(where, source)
    if source.created_timestamp_column or source.file_options.file_format.HasField("delta_format"):
        what = f"its history {source.name} is Parquet, available when it happened"
        raise DefinitionError(where, what, "Remove created_timestamp_column= and file_format=.")
    return str(source.file_options.uri)


def compile_batch_source(source: DataSource) -> BatchSource:
    """A table of files: path, format, columns and times.

    Raises:
        DefinitionError: it says too little, or contradicts itself.
    """
    where = f"source {source.name}"
    described(where, source.description, source.owner)
    check_name(where, source.name)
    tags.check_tags("batch source", where, source.tags)
    _no_mapping(where, source)
    if tags.SCHEMA not in source.tags:
        raise DefinitionError(where, "it declares no columns", "Add tags=batch_tags(column(...), ...).")
    fields = from_json_schema(where, source.tags[tags.SCHEMA])
    created = source.created_timestamp_column
    return BatchSource(
        name=source.name,
        path=source.file_options.uri,
        format="delta" if source.file_options.file_format.HasField("delta_format") else "parquet",
        fields=fields,
        event_ts=_time(where, fields, source.timestamp_field, required=True),
        available_at=_time(where, fields, created, required=False) if created else "",
        description=source.description,
        owner=source.owner,
    )


def _no_mapping(where: str, source: DataSource) -> None:
    if source.field_mapping:
        raise DefinitionError(
            where, "a field_mapping is not supported", "Name the columns as the features that use them."
        )


def find(where: str, fields: tuple[Field, ...], name: str, role: str) -> Field:
    """The column of that name.

    Raises:
        DefinitionError: there is none.
    """
    for field in fields:
        if field.name == name:
            return field
    known = ", ".join(field.name for field in fields)
    raise DefinitionError(where, f"{role} {name!r} is not one of its columns", f"Use one of {known}, or declare it.")


def _required(where: str, fields: tuple[Field, ...], name: str, role: str) -> str:
    if find(where, fields, name, role).nullable:
        fix = f'Declare column("{name}", ..., required=True).'
        raise DefinitionError(f"{where}, column {name}", f"{role} may be null", fix)
    return name


def _time(where: str, fields: tuple[Field, ...], name: str, *, required: bool) -> str:
    field = find(where, fields, name, "the time column")
    if field.type != TIMESTAMP:
        fix = f'Declare column("{name}", "timestamp", ...).'
        raise DefinitionError(f"{where}, column {name}", f"a time column is a timestamp, not a {field.type}", fix)
    return _required(where, fields, name, "the time column") if required else name
