"""Lets Feast read on where it would stop, so that the compiler reports all mistakes at once. It knows Feast.

`view[["sum_amont_7d"]]` raises in Feast, without a word on which view, file or names are near. And Feast runs the
function of an on-demand view on random rows, to compare what comes out with the schema: it fails on decimals, and
nobody asked for it. It also forgets descriptions and tags of an on-demand view's features when it reads the registry,
and then refuses the services that took those features with them.
"""

from __future__ import annotations

from typing import Any

from feast import Field, OnDemandFeatureView
from feast.base_feature_view import BaseFeatureView
from feast.types import String

_strict = BaseFeatureView.__getitem__


def read_on() -> None:
    """Make `view[[...]]` keep names that the view does not have, run no function, and read features whole."""
    BaseFeatureView.__getitem__ = _chosen
    OnDemandFeatureView.infer_features = _as_declared
    OnDemandFeatureView._parse_features_from_proto = classmethod(_whole)  # noqa: SLF001 - its own way to read them


def _chosen(view: Any, names: list[str]) -> Any:
    known = {feature.name for feature in view.features}
    unknown = [name for name in names if known and name not in known]
    chosen = _strict(view, [name for name in names if name not in unknown])
    if unknown:
        chosen.projection.features = [
            *chosen.projection.features,
            *(Field(name=name, dtype=String) for name in unknown),
        ]
    return chosen


def _as_declared(view: Any) -> None:
    """The features of an on-demand view are those of its schema."""


def _whole(_: type[OnDemandFeatureView], proto: Any) -> list[Field]:
    return [Field.from_proto(feature) for feature in proto.spec.features]
