"""What a manifest holds and how two differ, as plain documents for tables and JSON. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coeval.aggregations.tiles import tile_plan
from coeval.spec.manifest import Manifest
from coeval.spec.model import DerivedView, FeatureService, Field, View, WindowedView
from coeval.spec.time import duration


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a view or service: new, removed, restated (its values change: a backfill), or described anew."""

    name: str
    kind: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        versions = " -> ".join(version for version in (self.before, self.after) if version)
        return f"{self.name:<24}{self.kind:<12}{versions}"


def changes(old: Manifest | None, new: Manifest) -> tuple[Change, ...]:
    """How the views and services of a manifest differ from those of the one before, by name."""
    before, after = _objects(old) if old else {}, _objects(new)
    found = (_change(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys()))
    return tuple(change for change in found if change)


def _objects(manifest: Manifest) -> dict[str, View | DerivedView | FeatureService]:
    derived = {view.name: view for view in manifest.derived_views}
    services = {service.name: service for service in manifest.services}
    return {**manifest.views, **derived, **services}


def _change(name: str, old: object, new: object) -> Change | None:
    before, after = str(getattr(old, "version", "")), str(getattr(new, "version", ""))
    if old == new:
        return None
    if old is None or new is None:
        return Change(name, "new" if old is None else "removed", before, after)
    return Change(name, "restated" if before != after else "changed", before, after)


def counts(manifest: Manifest) -> dict[str, int]:
    """How much there is of each kind."""
    return {
        "entities": len(manifest.entities),
        "sources": len(manifest.sources),
        "views": len(manifest.views),
        "derived views": len(manifest.derived_views),
        "services": len(manifest.services),
    }


def listing(manifest: Manifest) -> list[dict[str, Any]]:
    """One document per view and derived view."""
    stored = [_view_line(view) for view in manifest.views.values()]
    derived = [
        {
            "name": view.name,
            "kind": "derived",
            "key": [],
            "source": sorted({item.view for item in view.inputs}),
            "windows": [],
            "features": len(view.features),
            "owner": view.owner,
            "freshness": "",
            "version": "",
        }
        for view in manifest.derived_views
    ]
    return stored + derived


def _view_line(view: View) -> dict[str, Any]:
    return {
        "name": view.name,
        "kind": _kind(view),
        "key": [field.name for field in view.key],
        "source": [view.source],
        "windows": _windows(view),
        "features": len(view.features),
        "owner": view.owner,
        "freshness": duration(view.sla.freshness),
        "version": view.version,
    }


def _kind(view: View) -> str:
    if isinstance(view, WindowedView):
        return "windowed"
    return "latest row" if view.stream else "batch row"


def _windows(view: View) -> list[str]:
    if isinstance(view, WindowedView):
        return [duration(window) for window in sorted({item.window for item in view.aggregates})]
    return [f"ttl {duration(view.ttl)}"] if view.ttl else []


def kinds(manifest: Manifest) -> dict[str, str]:
    """What every view, derived view and service is: `view`, `derived view`, `service`."""
    found = dict.fromkeys(manifest.views, "view")
    found |= {view.name: "derived view" for view in manifest.derived_views}
    return found | {service.name: "service" for service in manifest.services if service.name not in found}


def names(manifest: Manifest) -> list[str]:
    """Every view, derived view and service."""
    return list(_objects(manifest))


def detail(manifest: Manifest, name: str) -> dict[str, Any] | None:
    """All that the manifest says of a view, derived view or service; None where there is none of that name."""
    item = _objects(manifest).get(name)
    match item:
        case None:
            return None
        case FeatureService():
            return _service(manifest, item)
        case DerivedView():
            head = {"name": name, "kind": "derived", "function": item.function}
            inputs = [ref.full_name for ref in item.inputs]
            request = [_field(field) for field in item.request]
            return head | _owned(item) | {"inputs": inputs, "request": request, "features": _fields(item.features)}
        case _:
            return _view_line(item) | _owned(item) | _size(manifest, item) | {"features": _view_fields(item)}


def _service(manifest: Manifest, service: FeatureService) -> dict[str, Any]:
    objects = _objects(manifest)
    features = []
    for taken in (*service.views, *service.derived):
        view = objects[taken.view]
        assert not isinstance(view, FeatureService)
        known = {field.name: field for field in view.features}
        features += [_field(known[name]) | {"name": f"{taken.view}__{name}"} for name in taken.features]
    versions = {taken.view: taken.version for taken in service.views}
    head = {"name": service.name, "kind": "service", "views": versions}
    return head | _owned(service) | {"features": features}


def _owned(item: View | DerivedView | FeatureService) -> dict[str, Any]:
    return {"description": item.description, "owner": item.owner}


def _size(manifest: Manifest, view: View) -> dict[str, Any]:
    if not isinstance(view, WindowedView):
        return {}
    return {"bytes a key": tile_plan(view, manifest.event_source(view)).bytes_per_key}


def _view_fields(view: View) -> list[dict[str, Any]]:
    if not isinstance(view, WindowedView):
        return _fields(view.features)
    pairs = zip(view.features, view.aggregates, strict=True)
    return [_field(field) | {"aggregate": aggregate.label} for field, aggregate in pairs]


def _fields(fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    return [_field(field) for field in fields]


def _field(field: Field) -> dict[str, Any]:
    return {"name": field.name, "type": str(field.type), "pii": field.pii, "description": field.description}
