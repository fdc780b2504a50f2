"""Derived views: an on-demand view whose function is named by its import path, never pickled. It knows Feast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from feast import Field as FeastField
from feast.data_source import RequestSource
from feast.feature_view import FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.protos.feast.core.Transformation_pb2 import UserDefinedFunctionV2
from feast.transformation.pandas_transformation import PandasTransformation

from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.trust import stub


class _Imported(PandasTransformation):
    """Feast's slot for a function, holding its import path: nothing is pickled, and nothing runs when it is applied."""

    def __new__(cls, path: str, outputs: Sequence[FeastField]) -> Self:
        return object.__new__(cls)

    def __init__(self, path: str, outputs: Sequence[FeastField]) -> None:
        name, text = path.rpartition(":")[2], stub(path)
        scope: dict[str, Any] = {}
        exec(text, scope)  # noqa: S102  a stub of two lines, built above: Feast wants a function object
        super().__init__(udf=scope[name], udf_string=text)
        self._outputs = list(outputs)

    def infer_features(self, *args: object, **kwargs: object) -> list[FeastField]:
        return list(self._outputs)

    def to_proto(self) -> UserDefinedFunctionV2:
        return UserDefinedFunctionV2(name=self.udf.__name__, body=b"", body_text=self.udf_string, mode="pandas")


def derived_view(
    *,
    name: str,
    function: str,
    inputs: Sequence[FeatureView],
    request: RequestSource,
    schema: Sequence[FeastField],
    description: str,
    owner: str,
) -> OnDemandFeatureView:
    """An on-demand view computed by an importable, pure, vectorised function named `package.module:function`.

    It takes columns by name (`view__feature`, and request inputs plainly; numbers as float64 with NaN for null) and
    returns one array per field of the schema. `inputs` are views cut to the features it reads: `view[["a", "b"]]`.
    """
    return OnDemandFeatureView(
        name=name,
        sources=[*inputs, request],
        schema=list(schema),
        mode="pandas",
        feature_transformation=_Imported(function, schema),
        description=description,
        owner=owner,
        tags={tags.FUNCTION: function},
    )
