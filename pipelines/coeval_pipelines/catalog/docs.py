"""The registered catalog as one self-contained page: to browse, search, print. It knows jinja2, and writes files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coeval.aggregations.tiles import tile_plan
from coeval.online.layout import blob_size
from coeval.spec.expressions import to_text
from coeval.spec.manifest import Manifest
from coeval.spec.model import (
    BatchSource,
    DerivedView,
    Entity,
    EventSource,
    Expected,
    FeatureService,
    Field,
    Sla,
    View,
    WindowedView,
)
from coeval.spec.time import duration
from coeval_pipelines.catalog.lineage import Lineage, Node, lineage
from coeval_pipelines.catalog.picture import svg
from coeval_pipelines.catalog.summary import tolerated


def write_docs(manifest: Manifest, directory: Path) -> list[Path]:
    """Write index.html, lineage.svg and manifest.json; the page needs neither of the others."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "index.html": page(manifest),
        "lineage.svg": svg(lineage(manifest), old=deprecated(manifest)),
        "manifest.json": manifest.to_json(),
    }
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in files]


def page(manifest: Manifest) -> str:
    """The whole catalog as one HTML page that loads nothing."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coeval_pipelines.catalog", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    graph = lineage(manifest)
    picture = Markup(svg(graph, links=True, old=deprecated(manifest)))  # noqa: S704  it escapes every text itself
    template = environment.get_template("catalog.html.j2")
    return template.render(manifest=manifest, sections=sections(manifest, graph), picture=picture)


def deprecated(manifest: Manifest) -> frozenset[str]:
    """The views and services that should not be used any more."""
    return frozenset(item.name for item in (*manifest.views.values(), *manifest.services) if item.deprecated)


def sections(manifest: Manifest, graph: Lineage) -> list[dict[str, Any]]:
    """What the page shows, kind by kind; every object is a dict of the same shape."""
    views = [_view(manifest, graph, view) for view in sorted(manifest.views.values(), key=lambda item: item.name)]
    return [
        {"title": "Services", "objects": [_service(manifest, graph, item) for item in manifest.services]},
        {"title": "Views", "objects": views},
        {"title": "Derived views", "objects": [_derived(graph, item) for item in manifest.derived_views]},
        {"title": "Sources", "objects": [_source(graph, item) for item in manifest.sources.values()]},
        {"title": "Entities", "objects": [_entity(manifest, item) for item in manifest.entities]},
    ]


def _object(kind: str, item: Any, fields: Iterable[Field], **more: Any) -> dict[str, Any]:
    rows = [field_row(field) for field in fields]
    return {
        "id": Node(kind, item.name).id,
        "kind": kind,
        "name": item.name,
        "description": item.description,
        "owner": getattr(item, "owner", ""),
        "deprecated": getattr(item, "deprecated", ""),
        "version": getattr(item, "version", ""),
        "pii": sorted({row["pii"] for row in rows} - {"none"}),
        "facts": [],
        "sql": [],
        "tiles": [],
        "reads": [],
        "readers": [],
        "fields": rows,
        "columns": [name for name in ("computes", "expected") if any(row[name] for row in rows)],
    } | more


def field_row(field: Field, computes: str = "") -> dict[str, Any]:
    """A field as the row of a table."""
    return {
        "name": field.name,
        "type": str(field.type) + ("" if field.nullable else ", required"),
        "pii": field.pii,
        "computes": computes,
        "expected": expected_text(field.expected),
        "description": field.description,
    }


def expected_text(expected: Expected) -> str:
    """`0 to 100`, `at least 0`, `one of a, b`; '' where nothing is said."""
    low, high = expected.low, expected.high
    bounds = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""
    allowed = f"one of {', '.join(expected.allowed)}" if expected.allowed else ""
    return "; ".join(part for part in (bounds, allowed) if part)


def _around(graph: Lineage, kind: str, name: str) -> dict[str, list[dict[str, str]]]:
    node = Node(kind, name)
    return {
        "reads": [_link(item) for item in graph.reads(node)],
        "readers": [_link(item) for item in graph.readers(node)],
    }


def _link(node: Node) -> dict[str, str]:
    return {"id": node.id if node.kind not in ("topic", "files") else "", "name": node.name, "kind": node.kind}


def _view(manifest: Manifest, graph: Lineage, view: View) -> dict[str, Any]:
    shown = _object("view", view, view.features, **_around(graph, "view", view.name))
    key = ", ".join(f"{field.name} ({field.type})" for field in view.key)
    shown["facts"] = [("key", key), *_shape(view), *_promises(view.sla), ("buckets", str(view.partitions))]
    shown["sql"] = _selection(view)
    if isinstance(view, WindowedView):
        pairs = zip(view.features, view.aggregates, strict=True)
        shown["fields"] = [field_row(field, aggregate.label) for field, aggregate in pairs]
        shown["columns"] = ["computes", *(name for name in shown["columns"] if name != "computes")]
        plan = tile_plan(view, manifest.event_source(view))
        shown["tiles"] = [(item.name, item.slots, item.dtype.itemsize) for item in plan.granularities]
        shown["facts"].append(("state of a key", f"at most {blob_size(plan):,} bytes"))
    return shown


def _shape(view: View) -> list[tuple[str, str]]:
    if isinstance(view, WindowedView):
        windows = sorted({item.window for item in view.aggregates})
        return [("windows", ", ".join(duration(window) for window in windows))]
    what = "the latest event" if view.stream else "the latest row"
    return [("holds", what), ("expires after", duration(view.ttl) if view.ttl else "never")]


def _promises(sla: Sla) -> list[tuple[str, str]]:
    facts = [("freshness", f"within {duration(sla.freshness)}"), ("may differ", tolerated(sla))]
    facts += [("latency", f"p99 {sla.p99_ms} ms")] if sla.p99_ms else []
    return facts + ([("availability", f"{sla.availability:.3%}")] if sla.availability else [])


def _selection(view: View) -> list[tuple[str, str]]:
    where = [("where", to_text(view.where))] if view.where else []
    return where + [(item.field.name, to_text(item.expression)) for item in view.columns]


def _derived(graph: Lineage, view: DerivedView) -> dict[str, Any]:
    shown = _object("derived view", view, view.features, **_around(graph, "derived view", view.name))
    inputs = ", ".join(ref.full_name for ref in view.inputs)
    request = ", ".join(f"{field.name} ({field.type})" for field in view.request)
    shown["facts"] = [("function", view.function), ("inputs", inputs), ("asked for", request or "nothing")]
    return shown


def _service(manifest: Manifest, graph: Lineage, service: FeatureService) -> dict[str, Any]:
    derived = {view.name: view for view in manifest.derived_views}
    fields = []
    for part in (*service.views, *service.derived):
        view = manifest.views[part.view] if part.version else derived[part.view]
        known = {field.name: field for field in view.features}
        fields += [field_row(known[name]) | {"name": f"{part.view}__{name}"} for name in part.features]
    shown = _object("service", service, (), **_around(graph, "service", service.name))
    versions = ", ".join(f"{part.view} {part.version}" for part in service.views)
    keys = {field.name: str(field.type) for part in service.views for field in manifest.views[part.view].key}
    asked = {field.name: str(field.type) for part in service.derived for field in derived[part.view].request}
    inputs = ", ".join(f"{name} ({kind})" for name, kind in (keys | asked).items())
    shown["facts"] = [("takes", inputs), ("features", str(len(fields))), ("view versions", versions)]
    shown["columns"] = ["expected"] if any(row["expected"] for row in fields) else []
    return shown | {"fields": fields, "pii": sorted({row["pii"] for row in fields} - {"none"})}


def _source(graph: Lineage, source: EventSource | BatchSource) -> dict[str, Any]:
    shown = _object("source", source, source.fields, **_around(graph, "source", source.name))
    if isinstance(source, EventSource):
        lengths = f"late after {duration(source.allowed_lateness)}, ahead by at most {duration(source.max_future_skew)}"
        facts = [("topic", source.topic), ("identity", f"{source.event_id}, {source.event_ts}"), ("time", lengths)]
        facts += [("history", source.history)] if source.history else []
    else:
        facts = [("files", f"{source.path} ({source.format})"), ("time", source.event_ts)]
        facts += [("known since", source.available_at)] if source.available_at else []
    return shown | {"facts": facts}


def _entity(manifest: Manifest, entity: Entity) -> dict[str, Any]:
    shown = _object("entity", entity, (entity.key,))
    views = [view for view in manifest.views.values() if entity.name in view.entities]
    return shown | {"readers": [_link(Node("view", view.name)) for view in views]}
