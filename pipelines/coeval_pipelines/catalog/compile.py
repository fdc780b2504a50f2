"""The Feast registry to the manifest: the only way a definition enters Coeval. Pure over the registry proto.

It reads protobuf messages; it neither imports Feast nor loads a pickled function. Every list is sorted by name and
every order inside an object is canonical, so equal catalogs give equal bytes, whoever applied them and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from coeval.spec.manifest import Manifest
from coeval.spec.model import (
    PII_CLASSES,
    BatchSource,
    DerivedView,
    Entity,
    EventSource,
    FeatureService,
    RowView,
    View,
    WindowedView,
)
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.canaries import check_reserved
from coeval_pipelines.catalog.errors import BrokenCatalogError, DefinitionError, Problem
from coeval_pipelines.catalog.fields import Defaults, enum_name
from coeval_pipelines.catalog.inference import columns_seen, key_types_seen, of_project
from coeval_pipelines.catalog.names import check_tenant
from coeval_pipelines.catalog.notes import notes_of
from coeval_pipelines.catalog.services import compile_derived, compile_service
from coeval_pipelines.catalog.sources import compile_batch_source, compile_entity, compile_event_source
from coeval_pipelines.catalog.summary import Key
from coeval_pipelines.catalog.views import Known, Source, compile_view

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry

_DUMMY = "__dummy"
"""The entity that Feast adds to every registry."""

_INSTEAD = {
    "PUSH_SOURCE": "Produce what is pushed to a topic, and declare it as a KafkaSource; or read its batch_source.",
}
"""What to use for sources that have a counterpart here."""

_ANOTHER = "Give it another name: features, plans and removals are named by it."

_Object = TypeVar("_Object")
_Named = TypeVar("_Named", Entity, EventSource, BatchSource, WindowedView, RowView, DerivedView, FeatureService)


@dataclass(frozen=True, slots=True)
class Compilation:
    """What a project compiles to: the manifest of all that is sound, every mistake, and what is worth knowing.

    `defined` holds (kind, name) of the views, derived views and services that the files define, broken ones included.
    """

    manifest: Manifest
    defined: frozenset[Key] = frozenset()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def compile_project(registry: Registry, project: str) -> Compilation:
    """Compile what a project of the registry defines, as far as it can be; nothing broken is in the manifest."""
    defaults = _defaults(registry, project)
    run = _Run()
    tenant = run.attempt(_tenant, registry, project, defaults) or project
    stored = of_project(project, [*registry.feature_views, *registry.stream_feature_views])
    seen = key_types_seen(registry, project)
    entities = run.every(
        [spec for spec in of_project(project, registry.entities) if spec.name != _DUMMY],
        lambda spec: compile_entity(spec, defaults, seen.get(spec.join_key)),
    )
    sources = _sources(run, registry, project, defaults, entities)
    known = Known(entities, sources, defaults)
    views = run.every([spec for spec in stored if not spec.disabled], lambda spec: compile_view(spec, known))
    derived = run.every(
        of_project(project, registry.on_demand_feature_views), lambda spec: _derived(spec, views, defaults)
    )
    services = run.every(
        of_project(project, registry.feature_services), lambda spec: _service(spec, views, derived, defaults)
    )
    run.every(of_project(project, registry.label_views), _refuse_labels)
    manifest = Manifest(
        project=project,
        tenant=tenant,
        entities=_only(Entity, entities),
        event_sources=_only(EventSource, sources),
        batch_sources=_only(BatchSource, sources),
        windowed_views=_only(WindowedView, views),
        row_views=_only(RowView, views),
        derived_views=_only(DerivedView, derived),
        services=_only(FeatureService, services),
    )
    for source in manifest.event_sources:
        run.attempt(check_reserved, manifest, source)
    kinds: dict[str, Mapping[str, object]] = {"view": views, "derived view": derived, "service": services}
    defined = frozenset((kind, name) for kind, items in kinds.items() for name in items)
    return Compilation(manifest, defined, tuple(run.problems), notes_of(registry, manifest))


@dataclass(slots=True)
class _Run:
    """Compiles object after object, and keeps the problems of those that are broken."""

    problems: list[Problem] = field(default_factory=list)

    def attempt(self, function: Callable[..., _Object], *arguments: Any) -> _Object | None:
        try:
            return function(*arguments)
        except BrokenCatalogError as error:
            self.problems += [problem for problem in error.problems if problem not in self.problems]
            return None

    def every(self, specs: Iterable[Any], function: Callable[[Any], _Object]) -> dict[str, _Object | None]:
        return {str(spec.name): self.attempt(function, spec) for spec in specs}


def _only(kind: type[_Named], items: Mapping[str, object]) -> tuple[_Named, ...]:
    return tuple(item for item in items.values() if isinstance(item, kind))


def _defaults(registry: Registry, project: str) -> Defaults:
    for item in registry.projects:
        if item.spec.name == project:
            pii = item.spec.tags.get(tags.DEFAULT_PII, "")
            return Defaults(item.spec.owner.strip(), pii if pii in PII_CLASSES else "")
    return Defaults()


def _tenant(registry: Registry, project: str, defaults: Defaults) -> str:
    where = f"project {project}"
    stated: Mapping[str, str] = {}
    for item in registry.projects:
        if item.spec.name == project:
            stated = item.spec.tags
    tags.check_tags("project", where, stated)
    _check_owners(where, registry, project, defaults)
    return check_tenant(where, stated.get(tags.TENANT, project))


def _check_owners(where: str, registry: Registry, project: str, defaults: Defaults) -> None:
    """Somebody owns everything. The project's owner owns what names none, so one mistake is reported once."""
    if defaults.owner:
        return
    kinds = {"view": [*registry.feature_views, *registry.stream_feature_views], "service": registry.feature_services}
    kinds["derived view"] = registry.on_demand_feature_views
    nobody = [
        f"{kind} {spec.name}"
        for kind, items in kinds.items()
        for spec in of_project(project, items)
        if not spec.owner.strip()
    ]
    if nobody:
        shown = ", ".join(nobody[:3]) + (f" and {len(nobody) - 3} more" if len(nobody) > 3 else "")
        fix = f'Project(name="{project}", owner="team@company"), or owner= on each of them.'
        raise DefinitionError(where, f"it has no owner, and neither have {shown}", fix)


def _refuse_labels(spec: Any) -> None:
    fix = "Put labels in the spine of a training set."
    raise DefinitionError(f"label view {spec.name}", "label views are not supported", fix)


def _sources(
    run: _Run, registry: Registry, project: str, defaults: Defaults, entities: Mapping[str, Entity | None]
) -> dict[str, Source | None]:
    mine = sorted((item for item in registry.data_sources if item.project == project), key=lambda item: str(item.name))
    # The history behind a topic is part of its event source, and a source of its own only where a view reads it.
    histories = {source.batch_source.name for source in mine if enum_name(source, "type") == "STREAM_KAFKA"}
    histories -= {spec.batch_source.name for spec in of_project(project, registry.feature_views)}

    def compiled(source: Any) -> Source | None:
        match enum_name(source, "type"):
            case "STREAM_KAFKA":
                return compile_event_source(source, defaults)
            case "BATCH_FILE":
                seen = columns_seen(registry, project, source, entities, defaults)
                return compile_batch_source(source, defaults, seen)
            case other:
                what = f"a source of type {other} is not supported"
                raise DefinitionError(
                    f"source {source.name}", what, _INSTEAD.get(other, "Use KafkaSource or FileSource.")
                )

    real = [item for item in mine if item.name not in histories and enum_name(item, "type") != "REQUEST_SOURCE"]
    return run.every(real, compiled)


def _derived(spec: Any, views: Mapping[str, View | None], defaults: Defaults) -> DerivedView:
    if spec.name in views:
        raise DefinitionError(f"derived view {spec.name}", "a view has the same name", _ANOTHER)
    return compile_derived(spec, views, defaults)


def _service(
    spec: Any, views: Mapping[str, View | None], derived: Mapping[str, DerivedView | None], defaults: Defaults
) -> FeatureService:
    for kind, items in (("view", views), ("derived view", derived)):
        if spec.name in items:
            raise DefinitionError(f"service {spec.name}", f"a {kind} has the same name", _ANOTHER)
    return compile_service(spec, views, derived, defaults)
