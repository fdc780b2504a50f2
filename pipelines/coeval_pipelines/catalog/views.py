"""Feast feature views to windowed and row views of the manifest. Pure over registry protos; Feast is not imported.

Features stand in a canonical order, so that neither Feast (which scrambles it) nor moving a line restates a view: rows
by name, windows by function, column and length. Keys stand in the order of the entities: it is part of a stored key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.spec.manifest import with_version
from coeval.spec.model import Aggregate, BatchSource, Entity, EventSource, Field, RowView, View, WindowedView
from coeval.spec.time import duration, hop_of
from coeval.spec.types import INT64
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.names import check_name
from coeval_pipelines.catalog.sources import compile_field, described, find, micros

if TYPE_CHECKING:
    from feast.protos.feast.core.Aggregation_pb2 import Aggregation
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewSpec
    from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureViewSpec

    ViewSpec: TypeAlias = FeatureViewSpec | StreamFeatureViewSpec

Source: TypeAlias = EventSource | BatchSource


@dataclass(frozen=True, slots=True)
class Known:
    """What a view may refer to, by name."""

    entities: Mapping[str, Entity]
    sources: Mapping[str, Source]


def compile_view(spec: ViewSpec, known: Known) -> View:
    """A view with its version.

    Raises:
        DefinitionError: naming the field and what to write instead.
    """
    where = f"view {spec.name}"
    described(where, spec.description, spec.owner)
    check_name(where, spec.name)
    tags.check_tags("view", where, spec.tags)
    _refuse_unsupported(where, spec)
    source = _source(where, spec, known)
    key = _key(where, spec, known, source)
    aggregations = getattr(spec, "aggregations", ())
    view = _windowed(where, spec, source, key) if aggregations else _row(where, spec, source, key)
    return with_version(view, source)


def _refuse_unsupported(where: str, spec: ViewSpec) -> None:
    if spec.HasField("feature_transformation") or list(getattr(spec, "source_views", [])):
        fix = "Compute columns upstream, or use derived_view() for what is computed on demand."
        raise DefinitionError(where, "a transformation or a view over views is not supported", fix)
    if spec.version not in ("", "latest"):
        fix = "Remove version=: a view's version is the hash of what changes its values."
        raise DefinitionError(where, f"a pinned version ({spec.version}) is not supported", fix)


def _source(where: str, spec: ViewSpec, known: Known) -> Source:
    name = spec.stream_source.name if spec.HasField("stream_source") else spec.batch_source.name
    if name not in known.sources:
        raise DefinitionError(
            where, f"its source {name!r} is neither a KafkaSource nor a FileSource", "Use one of these."
        )
    return known.sources[name]


def _key(where: str, spec: ViewSpec, known: Known, source: Source) -> tuple[Field, ...]:
    unknown = [name for name in spec.entities if name not in known.entities]
    if unknown:
        raise DefinitionError(where, "it has no entity", "Add entities=[...]: every view is about something.")
    return tuple(_key_column(where, known.entities[name], source) for name in spec.entities)


def _key_column(where: str, entity: Entity, source: Source) -> Field:
    key = entity.key
    here = f"{where}, key {key.name}"
    column = find(here, source.fields, key.name, f"in source {source.name}, the key")
    if column.type != key.type:
        fix = f"Make them the same: entity {entity.name} in value_type, source {source.name} in its column."
        raise DefinitionError(here, f"the entity says {key.type}, the source {column.type}", fix)
    if column.nullable:
        fix = f'In source {source.name}, declare column("{key.name}", ..., required=True).'
        raise DefinitionError(here, f"it may be null in source {source.name}, and a key cannot", fix)
    return key


def _features(where: str, spec: ViewSpec, key: tuple[Field, ...]) -> dict[str, Field]:
    # Feast lists the keys among a stream view's features.
    keys = {field.name for field in key}
    return {item.name: compile_field(where, item) for item in spec.features if item.name not in keys}


def _row(where: str, spec: ViewSpec, source: Source, key: tuple[Field, ...]) -> RowView:
    features = _features(where, spec, key)
    if not features:
        raise DefinitionError(where, "it has no features", "Add schema=take(source, ...).")
    for field in features.values():
        here = f"{where}, field {field.name}"
        column = find(here, source.fields, field.name, f"in source {source.name}, the feature")
        if column.type != field.type:
            fix = f'Use schema=take({source.name}, "{field.name}", ...), which copies the type.'
            raise DefinitionError(here, f"it is a {field.type}, and a {column.type} in source {source.name}", fix)
    return RowView(
        name=spec.name,
        entities=tuple(spec.entities),
        key=key,
        source=source.name,
        features=tuple(features[name] for name in sorted(features)),
        stream=isinstance(source, EventSource),
        ttl=micros(spec.ttl),
        partitions=int(spec.tags.get(tags.PARTITIONS, "8")),
        description=spec.description,
        owner=spec.owner,
        sla=tags.read_sla(where, spec.tags),
    )


def _windowed(where: str, spec: ViewSpec, source: Source, key: tuple[Field, ...]) -> WindowedView:
    if not isinstance(source, EventSource):
        raise DefinitionError(
            where, f"windows need a stream, and source {source.name} is a table", "Use a KafkaSource."
        )
    _check_window_view(where, spec, source)
    declared = _features(where, spec, key)
    pairs = [_aggregate(where, item, source, declared) for item in getattr(spec, "aggregations", ())]
    pairs.sort(key=lambda pair: (pair[0].function, pair[0].column, pair[0].window, pair[0].feature))
    names = [aggregate.feature for aggregate, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(
                f"{where}, feature {name}", "it is declared twice", "Remove one, or name it otherwise."
            )
    stray = sorted(declared.keys() - set(names))
    if stray:
        fix = f"Its outputs are {', '.join(names)}: correct the name in schema, or add an aggregation."
        raise DefinitionError(f"{where}, field {stray[0]}", "no aggregation gives it", fix)
    return WindowedView(
        name=spec.name,
        entities=tuple(spec.entities),
        key=key,
        source=source.name,
        aggregates=tuple(aggregate for aggregate, _ in pairs),
        features=tuple(field for _, field in pairs),
        partitions=int(spec.tags.get(tags.PARTITIONS, "8")),
        description=spec.description,
        owner=spec.owner,
        sla=tags.read_sla(where, spec.tags),
    )


def _check_window_view(where: str, spec: ViewSpec, source: EventSource) -> None:
    if getattr(spec, "timestamp_field", source.event_ts) != source.event_ts:
        fix = f'Write timestamp_field="{source.event_ts}".'
        raise DefinitionError(where, f"windows run over the event time of {source.name}", fix)
    if micros(getattr(spec, "tiling_hop_size", spec.ttl)):
        fix = "Remove tiling_hop_size=; declare slide_interval= on an Aggregation to choose its hop."
        raise DefinitionError(where, "tiles follow the hop of each window, not one size", fix)
    if micros(spec.ttl):
        raise DefinitionError(where, "a windowed view has no ttl: its windows say what is too old", "Remove ttl=.")


def _aggregate(
    where: str, item: Aggregation, source: EventSource, declared: Mapping[str, Field]
) -> tuple[Aggregate, Field]:
    window = micros(item.time_window)
    if not window:
        fix = "Add time_window=timedelta(...); a total over all time is not a feature here."
        raise DefinitionError(where, f"{item.function}({item.column}) has no window", fix)
    name = item.name or "_".join(part for part in (item.function, item.column, duration(window)) if part)
    here = f"{where}, feature {name}"
    check_name(here, name)
    column = find(here, source.fields, item.column, f"in source {source.name}, the column") if item.column else None
    try:
        function = check_aggregation(item.function, column)
        hop = hop_of(window, micros(item.slide_interval) or None)
    except ValueError as error:
        fix = "Correct function=, column=, time_window= or slide_interval= of this Aggregation."
        raise DefinitionError(here, str(error), fix) from error
    result = AGGREGATIONS[function].result(column.type) if column else INT64
    return Aggregate(name, function, item.column, window, hop), _output(here, Field(name, result), declared.get(name))


def _output(where: str, computed: Field, declared: Field | None) -> Field:
    if declared is None:
        fix = f'Add Field(name="{computed.name}", ...) to schema, or use schema=windowed(...).schema.'
        raise DefinitionError(where, "it has no field in schema, so no description and no PII class", fix)
    if declared.type != computed.type:
        fix = f"Declare it as {computed.type}, or use schema=windowed(...).schema."
        raise DefinitionError(where, f"it is declared as {declared.type}, and the result is a {computed.type}", fix)
    return dataclasses.replace(declared, nullable=True)
