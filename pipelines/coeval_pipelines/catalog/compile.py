"""The Feast registry to the manifest: the only way a definition enters Coeval. Pure over the registry proto.

It reads protobuf messages; it neither imports Feast nor loads a pickled function. Every list is sorted by name and every
order inside an object is canonical, so equal catalogs give equal bytes, whoever applied them and where.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from coeval.spec.manifest import Manifest
from coeval.spec.model import (
    BatchSource,
    DerivedView,
    EventSource,
    FeatureRef,
    FeatureService,
    Field,
    RowView,
    ServiceView,
    View,
    WindowedView,
)
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.problem import CatalogProblem
from coeval_pipelines.catalog.sources import (
    compile_batch_source,
    compile_entity,
    compile_event_source,
    compile_field,
    described,
    value_type,
)
from coeval_pipelines.catalog.views import Known, Source, compile_view

if TYPE_CHECKING:
    from feast.protos.feast.core.FeatureService_pb2 import FeatureServiceSpec
    from feast.protos.feast.core.FeatureViewProjection_pb2 import FeatureViewProjection
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureViewSpec
    from feast.protos.feast.core.Registry_pb2 import Registry

_DUMMY = "__dummy"
"""The entity that Feast adds to every registry."""

_Named = TypeVar("_Named", EventSource, BatchSource, WindowedView, RowView)


def compile_registry(registry: Registry, project: str) -> Manifest:
    """Compile what a project of the registry defines.

    Raises:
        CatalogProblem: a definition cannot be compiled; it names the object, the field and what to write instead.
    """
    entities = _by_name(
        compile_entity(item.spec)
        for item in registry.entities
        if item.spec.project == project and item.spec.name != _DUMMY
    )
    sources = _sources(registry, project)
    specs = [item.spec for item in (*registry.feature_views, *registry.stream_feature_views)]
    views = _by_name(
        compile_view(spec, Known(entities, sources)) for spec in specs if spec.project == project and not spec.disabled
    )
    derived = _by_name(
        _derived(item.spec, views) for item in registry.on_demand_feature_views if item.spec.project == project
    )
    services = _by_name(
        _service(item.spec, views, derived) for item in registry.feature_services if item.spec.project == project
    )
    _refuse_labels(registry, project)
    return Manifest(
        project=project,
        tenant=_tenant(registry, project),
        entities=tuple(entities.values()),
        event_sources=_only(EventSource, sources),
        batch_sources=_only(BatchSource, sources),
        windowed_views=_only(WindowedView, views),
        row_views=_only(RowView, views),
        derived_views=tuple(derived.values()),
        services=tuple(services.values()),
    )


_T = TypeVar("_T")


def _by_name(items: Iterable[_T]) -> dict[str, _T]:
    return {item.name: item for item in sorted(items, key=lambda item: item.name)}  # type: ignore[attr-defined]


def _only(kind: type[_Named], items: Mapping[str, Source | View]) -> tuple[_Named, ...]:
    return tuple(item for item in items.values() if isinstance(item, kind))


def _tenant(registry: Registry, project: str) -> str:
    for item in registry.projects:
        if item.spec.name == project:
            tags.check_tags("project", f"project {project}", item.spec.tags)
            return item.spec.tags.get(tags.TENANT, project)
    return project


def _refuse_labels(registry: Registry, project: str) -> None:
    for item in registry.label_views:
        if item.spec.project == project:
            raise CatalogProblem(
                f"label view {item.spec.name}", "label views are not supported", "Put labels in the spine."
            )


def _sources(registry: Registry, project: str) -> dict[str, Source]:
    mine = [source for source in registry.data_sources if source.project == project]
    # The history behind a topic is part of its event source, not a source of its own.
    histories = {source.batch_source.name for source in mine if source.HasField("batch_source")}
    compiled: list[Source] = []
    for source in mine:
        match value_type(source, "type"):
            case "STREAM_KAFKA":
                compiled.append(compile_event_source(source))
            case "BATCH_FILE" if source.name not in histories:
                compiled.append(compile_batch_source(source))
            case "BATCH_FILE" | "REQUEST_SOURCE":
                pass
            case other:
                where = f"source {source.name}"
                raise CatalogProblem(
                    where, f"a source of type {other} is not supported", "Use KafkaSource or FileSource."
                )
    return _by_name(compiled)


def _derived(spec: OnDemandFeatureViewSpec, views: Mapping[str, View]) -> DerivedView:
    where = f"derived view {spec.name}"
    described(where, spec.description, spec.owner)
    tags.check_tags("derived view", where, spec.tags)
    if tags.FUNCTION not in spec.tags:
        fix = (
            'Use derived_view(function="package.module:function", ...): the same code must run in serving and training.'
        )
        raise CatalogProblem(where, "its function is not named by an import path", fix)
    projections = [
        item.feature_view_projection for item in spec.sources.values() if item.HasField("feature_view_projection")
    ]
    inputs = [
        FeatureRef(projection.feature_view_name, feature)
        for projection in sorted(projections, key=lambda item: item.feature_view_name)
        for feature in _taken(where, projection, _input_view(where, projection, views))
    ]
    return DerivedView(
        name=spec.name,
        function=spec.tags[tags.FUNCTION],
        inputs=tuple(inputs),
        request=_request(where, spec),
        features=_sorted_fields(compile_field(where, item) for item in spec.features),
        description=spec.description,
        owner=spec.owner,
    )


def _input_view(where: str, projection: FeatureViewProjection, views: Mapping[str, View]) -> View:
    name = projection.feature_view_name
    if name not in views:
        raise CatalogProblem(where, f"its input view {name} is not defined", _near(name, views))
    return views[name]


def _request(where: str, spec: OnDemandFeatureViewSpec) -> tuple[Field, ...]:
    sources = [item.request_data_source for item in spec.sources.values() if item.HasField("request_data_source")]
    for source in sources:
        tags.check_tags("request source", f"source {source.name}", source.tags)
    fields = [
        compile_field(f"{where}, request {source.name}", item)
        for source in sources
        for item in source.request_data_options.schema
    ]
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise CatalogProblem(f"{where}, input {name}", "two request sources give it", "Rename one.")
    return _sorted_fields(fields)


def _sorted_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple(sorted(fields, key=lambda field: field.name))


def _taken(where: str, projection: FeatureViewProjection, view: View | DerivedView) -> tuple[str, ...]:
    """What a projection takes of a view, in the view's order."""
    if projection.feature_view_name_alias or projection.join_key_map:
        fix = "Remove with_name() and with_join_key_map(): a feature has one name everywhere."
        raise CatalogProblem(where, f"it renames {view.name} or its keys, which is not supported", fix)
    keys = {field.name for field in getattr(view, "key", ())}
    wanted = {column.name for column in projection.feature_columns} - keys
    known = [field.name for field in view.features]
    unknown = sorted(wanted.difference(known))
    if unknown:
        raise CatalogProblem(
            f"{where}, feature {view.name}:{unknown[0]}", "it is not defined", _near(unknown[0], known)
        )
    return tuple(name for name in known if name in wanted)


def _service(spec: FeatureServiceSpec, views: Mapping[str, View], derived: Mapping[str, DerivedView]) -> FeatureService:
    where = f"service {spec.name}"
    described(where, spec.description, spec.owner)
    tags.check_tags("service", where, spec.tags)
    stored: list[ServiceView] = []
    on_demand: list[ServiceView] = []
    for projection in spec.features:
        name = projection.feature_view_name
        if name in views:
            stored.append(ServiceView(name, views[name].version, _taken(where, projection, views[name])))
        elif name in derived:
            on_demand.append(ServiceView(name, "", _taken(where, projection, derived[name])))
        else:
            raise CatalogProblem(where, f"its view {name} is not defined", _near(name, [*views, *derived]))
    return FeatureService(spec.name, tuple(stored), tuple(on_demand), spec.description, spec.owner)


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(names)}."
