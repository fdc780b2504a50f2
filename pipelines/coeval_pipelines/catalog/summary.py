"""What a manifest holds, as plain documents for tables and JSON. Pure."""

from __future__ import annotations

from typing import Any

from coeval.aggregations.tiles import tile_plan
from coeval.spec.expressions import to_text
from coeval.spec.manifest import Manifest
from coeval.spec.model import DerivedView, FeatureService, Field, Sla, View, WindowedView
from coeval.spec.time import duration

Key = tuple[str, str]
"""What an object is (`view`, `derived view` or `service`) and its name: a name alone says it only where one is new."""


def objects(manifest: Manifest) -> dict[Key, View | DerivedView | FeatureService]:
    """Every view, derived view and service."""
    views: dict[Key, View | DerivedView | FeatureService] = {
        ("view", view.name): view for view in manifest.views.values()
    }
    derived = {("derived view", view.name): view for view in manifest.derived_views}
    return views | derived | {("service", service.name): service for service in manifest.services}


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


def names(manifest: Manifest) -> list[str]:
    """Every view, derived view and service."""
    return list(dict.fromkeys(name for _, name in objects(manifest)))


def detail(manifest: Manifest, name: str) -> dict[str, Any] | None:
    """All that the manifest says of a view, derived view or service; None where there is none of that name."""
    item = next((item for (_, known), item in objects(manifest).items() if known == name), None)
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
            more = _owned(item) | _seen(item) | _promised(item) | _size(manifest, item)
            return _view_line(item) | more | {"features": _view_fields(item)}


def _service(manifest: Manifest, service: FeatureService) -> dict[str, Any]:
    views = manifest.views | {view.name: view for view in manifest.derived_views}
    features = []
    for taken in (*service.views, *service.derived):
        view = views[taken.view]
        known = {field.name: field for field in view.features}
        features += [_field(known[name]) | {"name": f"{taken.view}__{name}"} for name in taken.features]
    versions = {taken.view: taken.version for taken in service.views}
    head = {"name": service.name, "kind": "service", "views": versions}
    return head | _owned(service) | {"features": features}


def _owned(item: View | DerivedView | FeatureService) -> dict[str, Any]:
    deprecated = getattr(item, "deprecated", "")  # A derived view cannot be.
    return {"description": item.description, "owner": item.owner} | ({"deprecated": deprecated} if deprecated else {})


def _seen(view: View) -> dict[str, Any]:
    """Which events it sees, and what it computes of each, as SQL."""
    where = {"where": to_text(view.where)} if view.where else {}
    columns = [_field(item.field) | {"sql": to_text(item.expression)} for item in view.columns]
    return where | ({"columns": columns} if columns else {})


def _promised(view: View) -> dict[str, Any]:
    sla = view.sla
    stated = {"p99 ms": sla.p99_ms, "availability": sla.availability}
    promised = {name: value for name, value in stated.items() if value}
    return promised | {"tolerated": tolerated(sla), "partitions": view.partitions}


def tolerated(sla: Sla) -> str:
    """How many values may differ from training, in words: late 10%, late 1h 20%, in_flight 1%."""
    said = (
        sla.tolerated if any(item.cause == "late" for item in sla.tolerated) else (sla.budget("late"), *sla.tolerated)
    )
    return ", ".join(
        f"{item.cause}{f' {duration(item.window)}' if item.window else ''} {100 * item.share:.4g}%" for item in said
    )


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
    return {
        "name": field.name,
        "type": str(field.type),
        "pii": field.pii,
        "expected": _expected(field),
        "description": field.description,
    }


def _expected(field: Field) -> str:
    """`0.00 to 10.00`, `at least 0`, `one of a, b`; '' where nothing is said."""
    low, high, allowed = field.expected.low, field.expected.high, field.expected.allowed
    bounds = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""
    return "; ".join(filter(None, (bounds, f"one of {', '.join(allowed)}" if allowed else "")))
