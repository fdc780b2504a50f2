"""The Feast registry to the manifest: the only way a definition enters Coeval. Pure over the registry proto.

It reads protobuf messages; it neither imports Feast nor loads a pickled function. Every list is sorted by name and
every order inside an object is canonical, so equal catalogs give equal bytes, whoever applied them and where.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
from coeval.spec.types import Kind
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.names import check_name, check_names, check_tenant
from coeval_pipelines.catalog.sources import (
    compile_batch_source,
    compile_entity,
    compile_event_source,
    compile_field,
    described,
    enum_name,
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
        DefinitionError: a definition cannot be compiled; it names the object, the field and what to write instead.
    """
    tenant = _tenant(registry, project)
    mine = partial(_specs, project)
    entities = {spec.name: compile_entity(spec) for spec in mine(registry.entities) if spec.name != _DUMMY}
    sources = _sources(registry, project)
    known = Known(entities, sources)
    stored = mine([*registry.feature_views, *registry.stream_feature_views])
    views = {spec.name: compile_view(spec, known) for spec in stored if not spec.disabled}
    derived = {spec.name: _derived(spec, views) for spec in mine(registry.on_demand_feature_views)}
    services = {spec.name: _service(spec, views, derived) for spec in mine(registry.feature_services)}
    _refuse_labels(mine(registry.label_views))
    return Manifest(
        project=project,
        tenant=tenant,
        entities=tuple(entities.values()),
        event_sources=_only(EventSource, sources),
        batch_sources=_only(BatchSource, sources),
        windowed_views=_only(WindowedView, views),
        row_views=_only(RowView, views),
        derived_views=tuple(derived.values()),
        services=tuple(services.values()),
    )


def _specs(project: str, items: Iterable[Any]) -> list[Any]:
    """The project's own, by name: also which of two errors is reported must not depend on Feast's order."""
    return sorted((item.spec for item in items if item.spec.project == project), key=lambda spec: str(spec.name))


def _only(kind: type[_Named], items: Mapping[str, Source | View]) -> tuple[_Named, ...]:
    return tuple(item for item in items.values() if isinstance(item, kind))


def _tenant(registry: Registry, project: str) -> str:
    for item in registry.projects:
        if item.spec.name == project:
            tags.check_tags("project", f"project {project}", item.spec.tags)
            return check_tenant(f"project {project}", item.spec.tags.get(tags.TENANT, project))
    return check_tenant(f"project {project}", project)


def _refuse_labels(specs: Iterable[Any]) -> None:
    for spec in specs:
        raise DefinitionError(f"label view {spec.name}", "label views are not supported", "Put labels in the spine.")


def _sources(registry: Registry, project: str) -> dict[str, Source]:
    mine = sorted((item for item in registry.data_sources if item.project == project), key=lambda item: item.name)
    # The history behind a topic is part of its event source, not a source of its own.
    histories = {source.batch_source.name for source in mine if source.HasField("batch_source")}
    compiled: list[Source] = []
    for source in mine:
        match enum_name(source, "type"):
            case "STREAM_KAFKA":
                compiled.append(compile_event_source(source))
            case "BATCH_FILE" if source.name not in histories:
                compiled.append(compile_batch_source(source))
            case "BATCH_FILE" | "REQUEST_SOURCE":
                pass
            case other:
                where = f"source {source.name}"
                raise DefinitionError(
                    where, f"a source of type {other} is not supported", "Use KafkaSource or FileSource."
                )
    return {source.name: source for source in compiled}


def _derived(spec: OnDemandFeatureViewSpec, views: Mapping[str, View]) -> DerivedView:
    where = f"derived view {spec.name}"
    described(where, spec.description, spec.owner)
    check_names(where, [spec.name, *(item.name for item in spec.features)])
    tags.check_tags("derived view", where, spec.tags)
    if tags.FUNCTION not in spec.tags:
        fix = (
            'Use derived_view(function="package.module:function", ...): the same code must run in serving and training.'
        )
        raise DefinitionError(where, "its function is not named by an import path", fix)
    projections = [
        item.feature_view_projection for item in spec.sources.values() if item.HasField("feature_view_projection")
    ]
    inputs = [
        FeatureRef(projection.feature_view_name, feature)
        for projection in sorted(projections, key=lambda item: item.feature_view_name)
        for feature in _taken(where, projection, _input_view(where, projection, views))
    ]
    features = _sorted_fields(compile_field(where, item) for item in spec.features)
    for feature in features:
        if feature.type.kind not in (Kind.FLOAT64, Kind.STRING):
            problem = f"{feature.name} is a {feature.type}; a function over numpy columns gives float64 or string"
            raise DefinitionError(where, problem, f'Declare {feature.name} as "float64" or "string".')
    return DerivedView(
        name=spec.name,
        function=spec.tags[tags.FUNCTION],
        inputs=tuple(inputs),
        request=_request(where, spec),
        features=features,
        description=spec.description,
        owner=spec.owner,
    )


def _input_view(where: str, projection: FeatureViewProjection, views: Mapping[str, View]) -> View:
    name = projection.feature_view_name
    if name not in views:
        raise DefinitionError(where, f"its input view {name} is not defined", _near(name, views))
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
    check_names(where, names)
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"{where}, input {name}", "two request sources give it", "Rename one.")
    return _sorted_fields(fields)


def _sorted_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple(sorted(fields, key=lambda field: field.name))


def _taken(where: str, projection: FeatureViewProjection, view: View | DerivedView) -> tuple[str, ...]:
    """What a projection takes of a view, in the view's order."""
    if projection.feature_view_name_alias or projection.join_key_map:
        fix = "Remove with_name() and with_join_key_map(): a feature has one name everywhere."
        raise DefinitionError(where, f"it renames {view.name} or its keys, which is not supported", fix)
    keys = {field.name for field in getattr(view, "key", ())}
    wanted = {column.name for column in projection.feature_columns} - keys
    known = [field.name for field in view.features]
    unknown = sorted(wanted.difference(known))
    if unknown:
        raise DefinitionError(
            f"{where}, feature {view.name}:{unknown[0]}", "it is not defined", _near(unknown[0], known)
        )
    return tuple(name for name in known if name in wanted)


def _service(spec: FeatureServiceSpec, views: Mapping[str, View], derived: Mapping[str, DerivedView]) -> FeatureService:
    where = f"service {spec.name}"
    described(where, spec.description, spec.owner)
    check_name(where, spec.name)
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
            raise DefinitionError(where, f"its view {name} is not defined", _near(name, [*views, *derived]))
    keys = {field.name: field for item in stored for field in views[item.view].key}
    _check_request(where, keys, [field for item in on_demand for field in derived[item.view].request])
    return FeatureService(spec.name, tuple(stored), tuple(on_demand), spec.description, spec.owner)


def _check_request(where: str, keys: Mapping[str, Field], request: Iterable[Field]) -> None:
    """A request gives each input once: two views may share one, but not under two types, and none is a key."""
    known = dict(keys)
    for field in request:
        if known.setdefault(field.name, field) != field:
            what = "it is a key, or an input of another type, in the same service"
            raise DefinitionError(f"{where}, input {field.name}", what, "Rename it, or use one RequestSource for both.")


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(names)}."
