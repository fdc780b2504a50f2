"""Feast feature views to windowed and row views of the manifest. Pure over registry protos; Feast is not imported.

Features stand in a canonical order, so that neither Feast (which scrambles it) nor moving a line restates a view: rows
by name, windows by function, column and length. Keys stand in the order of the entities: it is part of a stored key.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.spec.manifest import with_version
from coeval.spec.model import Aggregate, BatchSource, Entity, EventSource, Field, RowView, View, WindowedView
from coeval.spec.time import duration, hop_of
from coeval.spec.types import INT64
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import BrokenCatalogError, DefinitionError, gather, together
from coeval_pipelines.catalog.fields import Defaults, compile_field, micros
from coeval_pipelines.catalog.names import check_name
from coeval_pipelines.catalog.selection import Selection, compile_selection
from coeval_pipelines.catalog.sources import find

if TYPE_CHECKING:
    from feast.protos.feast.core.Aggregation_pb2 import Aggregation
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewSpec
    from feast.protos.feast.core.StreamFeatureView_pb2 import StreamFeatureViewSpec

    ViewSpec: TypeAlias = FeatureViewSpec | StreamFeatureViewSpec

Source: TypeAlias = EventSource | BatchSource


@dataclass(frozen=True, slots=True)
class Known:
    """What a view may refer to, by name; None stands for what is broken and reported by itself."""

    entities: Mapping[str, Entity | None]
    sources: Mapping[str, Source | None]
    defaults: Defaults


def sound(items: Mapping[str, Any], name: str) -> Any:
    """The object of that name.

    Raises:
        BrokenCatalogError: it is broken, which is reported there; without problems, so that it is not reported again.
    """
    item = items[name]
    if item is None:
        raise BrokenCatalogError([])
    return item


def compile_view(spec: ViewSpec, known: Known) -> View:
    """A view with its version.

    Raises:
        BrokenCatalogError: naming the fields and what to write instead.
    """
    where = f"view {spec.name}"
    together(
        lambda: check_name(where, spec.name),
        lambda: tags.check_tags("view", where, spec.tags),
        lambda: _refuse_unsupported(where, spec),
    )
    source = _source(where, spec, known)
    together(lambda: _key(where, spec, known, source), lambda: _fields(where, spec, known.defaults))
    parts = _Parts(where, spec, source, _key(where, spec, known, source), known.defaults)
    view = parts.windowed() if getattr(spec, "aggregations", ()) else parts.rows()
    _check_tolerated(where, view)
    return with_version(view, source)


def _check_tolerated(where: str, view: View) -> None:
    windows = {item.window for item in view.aggregates} if isinstance(view, WindowedView) else set()
    stray = [item for item in view.sla.tolerated if item.window and item.window not in windows]
    if stray:
        what = f"it tolerates {stray[0].cause} in windows of {duration(stray[0].window)}, and has none"
        known = f"Its windows are {', '.join(map(duration, sorted(windows)))}." if windows else "It has no windows."
        raise DefinitionError(f"{where}, tag {tags.TOLERATED}", what, known)


def _refuse_unsupported(where: str, spec: ViewSpec) -> None:
    functions: Any = spec
    transformed = functions.HasField("feature_transformation") or bool(getattr(spec, "source_views", ()))
    if transformed or getattr(spec, "user_defined_function", functions.feature_transformation).ByteSize():
        fix = (
            "Filter and compute columns of each event with tags=selection(where=..., columns=[...]), aggregate them "
            "with windowed(...), or use derived_view() for what is computed on demand."
        )
        raise DefinitionError(where, "a transformation or a view over views is not supported", fix)
    if spec.version not in ("", "latest"):
        fix = "Remove version=: a view's version is the hash of what changes its values."
        raise DefinitionError(where, f"a pinned version ({spec.version}) is not supported", fix)


def source_name(spec: ViewSpec) -> str:
    """The source that a view reads: its stream where it has one."""
    return str(spec.stream_source.name if spec.HasField("stream_source") else spec.batch_source.name)


def _source(where: str, spec: ViewSpec, known: Known) -> Source:
    name = source_name(spec)
    if name not in known.sources:
        raise DefinitionError(
            where, f"its source {name!r} is neither a KafkaSource nor a FileSource", "Use one of these."
        )
    source: Source = sound(known.sources, name)
    return source


def _key(where: str, spec: ViewSpec, known: Known, source: Source) -> tuple[Field, ...]:
    if not spec.entities or any(name not in known.entities for name in spec.entities):
        raise DefinitionError(where, "it has no entity", "Add entities=[...]: every view is about something.")
    return tuple(gather(lambda name: _key_column(sound(known.entities, name), source), spec.entities))


def _key_column(entity: Entity, source: Source) -> Field:
    # Said of entity and source, not of the view: several views of the same two are one mistake, reported once.
    key, here = entity.key, f"source {source.name}, key {entity.key.name}"
    role = f"the key of entity {entity.name}"
    column = find(f"source {source.name}", source.fields, key.name, role)
    if column.type != key.type:
        what = f"entity {entity.name} says that it is {key.type}, and the source {column.type}"
        raise DefinitionError(here, what, "Make them the same: value_type= of the entity, or column() of the source.")
    if column.nullable:
        what = f"it may be null, and a key (of entity {entity.name}) cannot"
        raise DefinitionError(here, what, f'Declare column("{key.name}", ..., required=True).')
    return key


def _fields(where: str, spec: ViewSpec, defaults: Defaults) -> list[Field]:
    # Feast lists the keys among a stream view's features, and all of them in an order of its own.
    keys = {column.name for column in spec.entity_columns}
    mine = sorted((item for item in spec.features if item.name not in keys), key=lambda item: str(item.name))
    return gather(lambda item: compile_field(where, item, defaults), mine)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a view is compiled from."""

    where: str
    spec: Any
    source: Source
    key: tuple[Field, ...]
    defaults: Defaults

    def rows(self) -> RowView:
        fields, selection = self._stated()
        if not fields:
            raise DefinitionError(self.where, "it has no features", "Add schema=take(source, ...).")
        columns = self.source.fields + selection.fields
        gather(lambda name: self._check_row_field(fields[name], columns), fields)
        return RowView(
            features=tuple(fields[name] for name in sorted(fields)),
            stream=isinstance(self.source, EventSource),
            ttl=micros(self.spec.ttl),
            **self._common(selection),
        )

    def _check_row_field(self, field: Field, columns: tuple[Field, ...]) -> None:
        here = f"{self.where}, field {field.name}"
        column = find(here, columns, field.name, f"in source {self.source.name}, the feature")
        if column.type != field.type:
            fix = f'Use schema=take({self.source.name}, "{field.name}", ...), which copies the type.'
            what = f"it is a {field.type}, and a {column.type} in source {self.source.name}"
            raise DefinitionError(here, what, fix)

    def windowed(self) -> WindowedView:
        source = self.source
        if not isinstance(source, EventSource):
            what = f"windows need a stream, and source {source.name} is a table"
            raise DefinitionError(self.where, what, "Use a KafkaSource.")
        declared, selection = self._stated()
        columns = source.fields + selection.fields
        _check_window_view(self.where, self.spec, source)
        pairs = gather(lambda item: self._aggregate(item, columns, declared), self.spec.aggregations)
        pairs.sort(key=lambda pair: (pair[0].function, pair[0].column, pair[0].window, pair[0].feature))
        _check_outputs(self.where, [aggregate.feature for aggregate, _ in pairs], declared)
        return WindowedView(
            aggregates=tuple(aggregate for aggregate, _ in pairs),
            features=tuple(field for _, field in pairs),
            **self._common(selection),
        )

    def _stated(self) -> tuple[dict[str, Field], Selection]:
        steps: list[Callable[[], Any]] = [self._declared, self._selection]
        declared, selection = gather(lambda step: step(), steps)
        return declared, selection

    def _declared(self) -> dict[str, Field]:
        keys = {field.name for field in self.key}
        fields = _fields(self.where, self.spec, self.defaults)
        return {field.name: field for field in fields if field.name not in keys}

    def _selection(self) -> Selection:
        return compile_selection(self.where, self.spec.tags, self.source.fields, self.defaults)

    def _common(self, selection: Selection) -> dict[str, Any]:
        stated = self.spec.tags
        return {
            "name": self.spec.name,
            "entities": tuple(self.spec.entities),
            "key": self.key,
            "source": self.source.name,
            "partitions": int(stated.get(tags.PARTITIONS, "8")),
            "where": selection.where,
            "columns": selection.columns,
            "description": self.spec.description,
            "owner": self.spec.owner or self.defaults.owner,
            "deprecated": stated.get(tags.DEPRECATED, ""),
            "sla": tags.read_sla(stated),
        }

    def _aggregate(
        self, item: Aggregation, columns: tuple[Field, ...], declared: Mapping[str, Field]
    ) -> tuple[Aggregate, Field]:
        window = micros(item.time_window)
        if not window:
            fix = "Add time_window=timedelta(...); a total over all time is not a feature here."
            raise DefinitionError(self.where, f"{item.function}({item.column}) has no window", fix)
        name = item.name or "_".join(part for part in (item.function, item.column, duration(window)) if part)
        here = f"{self.where}, feature {name}"
        check_name(here, name)
        role = f"in source {self.source.name}, the column"
        column = find(here, columns, item.column, role) if item.column else None
        function = check_function(here, item.function, column)
        hop = _hop(here, window, micros(item.slide_interval))
        result = AGGREGATIONS[function].result(column.type) if column else INT64
        return Aggregate(name, function, item.column, window, hop), _output(
            here, Field(name, result), declared.get(name)
        )


def check_function(where: str, function: str, column: Field | None) -> str:
    """The canonical name of an aggregation over a column, or over events.

    Raises:
        DefinitionError: it is unknown, not supported yet, or does not take this column.
    """
    try:
        return check_aggregation(function, column)
    except ValueError as error:
        known = ", ".join(AGGREGATIONS)
        fix = f"Ask for another function or column; the functions are {known}."
        raise DefinitionError(where, str(error), fix) from error


def _hop(where: str, window: int, slide: int) -> int:
    try:
        return hop_of(window, slide or None)
    except ValueError as error:
        fix = "Choose a slide_interval= that divides time_window=, and divides a day or is whole days."
        raise DefinitionError(where, str(error), fix) from error


def _check_window_view(where: str, spec: ViewSpec, source: EventSource) -> None:
    if getattr(spec, "timestamp_field", source.event_ts) != source.event_ts:
        fix = f'Write timestamp_field="{source.event_ts}".'
        raise DefinitionError(where, f"windows run over the event time of {source.name}", fix)
    if micros(getattr(spec, "tiling_hop_size", spec.ttl)):
        fix = "Remove tiling_hop_size=; declare slide_interval= on an Aggregation to choose its hop."
        raise DefinitionError(where, "tiles follow the hop of each window, not one size", fix)
    if micros(spec.ttl):
        raise DefinitionError(where, "a windowed view has no ttl: its windows say what is too old", "Remove ttl=.")


def _check_outputs(where: str, names: Iterable[str], declared: Mapping[str, Field]) -> None:
    given = Counter(names)
    for name, times in given.items():
        if times > 1:
            fix = "Remove one, or name it otherwise."
            raise DefinitionError(f"{where}, feature {name}", "it is declared twice", fix)
    stray = sorted(declared.keys() - given.keys())
    if stray:
        fix = f"Its outputs are {', '.join(given)}: correct the name in schema, or add an aggregation."
        raise DefinitionError(f"{where}, field {stray[0]}", "no aggregation gives it", fix)


def _output(where: str, computed: Field, declared: Field | None) -> Field:
    if declared is None:
        fix = f'Add Field(name="{computed.name}", ...) to schema, or use schema=windowed(...).schema.'
        raise DefinitionError(where, "it has no field in schema, so no description and no PII class", fix)
    if declared.type != computed.type:
        fix = f"Declare it as {computed.type}, or use schema=windowed(...).schema."
        raise DefinitionError(where, f"it is declared as {declared.type}, and the result is a {computed.type}", fix)
    return dataclasses.replace(declared, nullable=True)
