"""The views that a check is asked for. Pure."""

from __future__ import annotations

from collections.abc import Collection

from coeval.errors import UnknownFeatureError
from coeval.spec.manifest import Manifest
from coeval.spec.model import View


def chosen_views(manifest: Manifest, names: Collection[str] | None) -> list[View]:
    """The views of those names, in their order; all where none is named.

    Raises:
        UnknownFeatureError: there is no such view.
    """
    unknown = sorted(set(names or ()) - manifest.views.keys())
    if unknown:
        raise UnknownFeatureError(f"There is no view {', '.join(unknown)}.", f"Known: {', '.join(manifest.views)}.")
    return [manifest.views[name] for name in names or manifest.views]
