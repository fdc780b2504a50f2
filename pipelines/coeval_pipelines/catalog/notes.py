"""What is worth knowing of a catalog that compiles: what nobody described, what was taken by default. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from coeval.spec.manifest import Manifest
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.canaries import canary_notes

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry


def notes_of(registry: Registry, manifest: Manifest) -> tuple[str, ...]:
    """One line per kind of omission, and what to know of canaries; empty where there is nothing to be said."""
    omissions = (_descriptions(manifest), _freshness(registry, manifest), _columns(registry, manifest))
    return (*filter(None, omissions), *canary_notes(manifest))


def _descriptions(manifest: Manifest) -> str:
    views = [*manifest.views.values(), *manifest.derived_views]
    objects: list[Any] = [*manifest.entities, *manifest.sources.values(), *views, *manifest.services]
    bare = [item.name for item in objects if not item.description.strip()]
    fields = sum(not field.description.strip() for view in views for field in view.features)
    parts = [f"{len(bare)} objects ({_some(bare)})"] if bare else []
    parts += [f"{fields} features"] if fields else []
    return f"no description: {' and '.join(parts)}" if parts else ""


def _freshness(registry: Registry, manifest: Manifest) -> str:
    specs = (item.spec for item in (*registry.feature_views, *registry.stream_feature_views))
    silent = [spec.name for spec in specs if spec.name in manifest.views and tags.FRESHNESS not in spec.tags]
    return f"no promised freshness, so 24h: {_some(sorted(silent))}" if silent else ""


def _columns(registry: Registry, manifest: Manifest) -> str:
    plain = {source.name for source in registry.data_sources if tags.SCHEMA not in source.tags}
    taken = [source.name for source in manifest.batch_sources if source.name in plain]
    return f"no declared columns, so those of the views: {_some(taken)}" if taken else ""


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
