"""Feast on-demand views and feature services to the manifest. Pure over registry protos; no function is ever loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from coeval.spec.model import DerivedView, FeatureRef, FeatureService, Field, ServiceView, View
from coeval.spec.types import Kind
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import DefinitionError, gather, together
from coeval_pipelines.catalog.fields import Defaults, compile_field
from coeval_pipelines.catalog.names import check_name, check_names, nearest
from coeval_pipelines.catalog.views import sound

if TYPE_CHECKING:
    from feast.protos.feast.core.FeatureService_pb2 import FeatureServiceSpec
    from feast.protos.feast.core.FeatureViewProjection_pb2 import FeatureViewProjection
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureViewSpec


def compile_derived(spec: OnDemandFeatureViewSpec, views: Mapping[str, View | None], defaults: Defaults) -> DerivedView:
    """An on-demand view whose function is named by its import path.

    Raises:
        BrokenCatalogError: its function is pickled, or an input or output cannot be.
    """
    where = f"derived view {spec.name}"
    together(
        lambda: check_names(where, [spec.name, *(item.name for item in spec.features)]),
        lambda: tags.check_tags("derived view", where, spec.tags),
        lambda: _check_function(where, spec),
    )
    projections = [
        item.feature_view_projection for item in spec.sources.values() if item.HasField("feature_view_projection")
    ]
    projections.sort(key=lambda item: str(item.feature_view_name))
    return DerivedView(
        name=spec.name,
        function=spec.tags[tags.FUNCTION],
        inputs=tuple(ref for refs in gather(lambda item: _inputs(where, item, views), projections) for ref in refs),
        request=_request(where, spec, defaults),
        features=_sorted_fields(
            gather(lambda item: _output(compile_field(where, item, defaults), where), spec.features)
        ),
        description=spec.description,
        owner=spec.owner or defaults.owner,
    )


def _check_function(where: str, spec: OnDemandFeatureViewSpec) -> None:
    if tags.FUNCTION in spec.tags:
        return
    function = spec.feature_transformation.user_defined_function.name or spec.name
    inputs = [
        _projected(source.feature_view_projection)
        for _, source in sorted(spec.sources.items())
        if source.HasField("feature_view_projection")
    ]
    request = [name for name, source in sorted(spec.sources.items()) if source.HasField("request_data_source")]
    fix = (
        f"Move {function} to a module, over numpy columns instead of a DataFrame, and name it: "
        f'derived_view(name="{spec.name}", function="feature_repo.functions:{function}", '
        f"inputs=[{', '.join(inputs)}], request={request[0] if request else 'None'}, schema=[...])."
    )
    what = "its function is pickled by Feast and not named by an import path, so serving and training cannot share it"
    raise DefinitionError(where, what, fix)


def _projected(projection: FeatureViewProjection) -> str:
    names = ", ".join(sorted(f'"{column.name}"' for column in projection.feature_columns))
    return f"{projection.feature_view_name}[[{names}]]"


def _output(field: Field, where: str) -> Field:
    if field.type.kind not in (Kind.FLOAT64, Kind.STRING):
        what = f"it is a {field.type}; a function over numpy columns gives float64 or string"
        raise DefinitionError(f"{where}, field {field.name}", what, f'Declare {field.name} as "float64" or "string".')
    return field


def _inputs(where: str, projection: FeatureViewProjection, views: Mapping[str, View | None]) -> list[FeatureRef]:
    name = projection.feature_view_name
    if name not in views:
        raise DefinitionError(where, f"its input view {name} is not defined", nearest(name, views))
    return [FeatureRef(name, feature) for feature in _taken(where, projection, sound(views, name))]


def _request(where: str, spec: OnDemandFeatureViewSpec, defaults: Defaults) -> tuple[Field, ...]:
    sources = [item.request_data_source for item in spec.sources.values() if item.HasField("request_data_source")]
    for source in sources:
        tags.check_tags("request source", f"source {source.name}", source.tags)
    pairs = [(source.name, item) for source in sources for item in source.request_data_options.schema]
    fields = gather(lambda pair: compile_field(f"{where}, request {pair[0]}", pair[1], defaults), pairs)
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

    def check(name: str) -> None:
        raise DefinitionError(f"{where}, feature {view.name}:{name}", "it is not defined", nearest(name, known))

    gather(check, sorted(wanted.difference(known)))
    return tuple(name for name in known if name in wanted)


def compile_service(
    spec: FeatureServiceSpec,
    views: Mapping[str, View | None],
    derived: Mapping[str, DerivedView | None],
    defaults: Defaults,
) -> FeatureService:
    """A service with the version of every view that it takes.

    Raises:
        BrokenCatalogError: it takes what is not defined, or inputs that clash.
    """
    where = f"service {spec.name}"
    together(
        lambda: check_name(where, spec.name),
        lambda: tags.check_tags("service", where, spec.tags),
        lambda: gather(lambda item: _part(where, item, views, derived), spec.features),
    )
    parts = [_part(where, item, views, derived) for item in spec.features]
    stored = tuple(part for part in parts if part.version)
    on_demand = tuple(part for part in parts if not part.version)
    keys = {field.name: field for part in stored for field in sound(views, part.view).key}
    _check_request(where, keys, [field for part in on_demand for field in sound(derived, part.view).request])
    return FeatureService(
        name=spec.name,
        views=stored,
        derived=on_demand,
        description=spec.description,
        owner=spec.owner or defaults.owner,
        deprecated=spec.tags.get(tags.DEPRECATED, ""),
    )


def _part(
    where: str,
    projection: FeatureViewProjection,
    views: Mapping[str, View | None],
    derived: Mapping[str, DerivedView | None],
) -> ServiceView:
    name = projection.feature_view_name
    if name in views:
        view = sound(views, name)
        return ServiceView(name, view.version, _taken(where, projection, view))
    if name in derived:
        return ServiceView(name, "", _taken(where, projection, sound(derived, name)))
    raise DefinitionError(where, f"its view {name} is not defined", nearest(name, [*views, *derived]))


def _check_request(where: str, keys: Mapping[str, Field], request: Iterable[Field]) -> None:
    """A request gives each input once: two views may share one, but not under two types, and none is a key."""
    known = dict(keys)
    for field in request:
        if known.setdefault(field.name, field) != field:
            what = "it is a key, or an input of another type, in the same service"
            raise DefinitionError(f"{where}, input {field.name}", what, "Rename it, or use one RequestSource for both.")
