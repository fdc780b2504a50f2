"""What catalog files import beside Feast: typed helpers for what Feast has no field for. It knows Feast, no engine.

They return Feast's own values (fields, aggregations, formats, tags), so that a catalog stays a plain Feast repository.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from feast import Field as FeastField
from feast import KafkaSource
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.data_source import DataSource, RequestSource
from feast.feature_view import FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.protos.feast.core.Transformation_pb2 import UserDefinedFunctionV2
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Bool, Decimal, Float64, Int64, PrimitiveFeastType, String, UnixTimestamp

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.spec.model import Field
from coeval.spec.time import duration, parse_duration
from coeval.spec.types import INT64, Kind
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.schema import column, from_json_schema, to_json_schema
from coeval_pipelines.catalog.tags import sla

__all__ = [
    "batch_tags", "column", "count", "derived_view", "entity_tags", "event_tags", "feature", "json_events", "of", "sla",
    "take", "windowed",
]  # fmt: skip

# Feast says of stream and on-demand views that they are experimental: its engines for them are, and none is used here.
warnings.filterwarnings("ignore", message=".*is an experimental feature|.*are experimental features", module="feast")

_DTYPES: dict[Kind, PrimitiveFeastType] = {
    Kind.INT64: Int64,
    Kind.FLOAT64: Float64,
    Kind.DECIMAL: Decimal,
    Kind.STRING: String,
    Kind.BOOL: Bool,
    Kind.TIMESTAMP: UnixTimestamp,
    Kind.DATE: UnixTimestamp,
}


def json_events(*columns: Field) -> JsonFormat:
    """The format of a topic of flat JSON objects with these columns."""
    return JsonFormat(to_json_schema(columns))


def event_tags(event_id: str, max_future_skew: str = "5m") -> dict[str, str]:
    """The tags of an event source: the column that identifies an event, and how far a clock may run ahead."""
    return {tags.EVENT_ID: event_id, tags.SKEW: duration(parse_duration(max_future_skew))}


def batch_tags(*columns: Field) -> dict[str, str]:
    """The tags of a batch source with these columns."""
    return {tags.SCHEMA: to_json_schema(columns)}


def entity_tags(pii: str) -> dict[str, str]:
    """The tags of an entity: the PII class of its key."""
    return {tags.PII_CLASS: pii}


def feature(name: str, data_type: str, description: str, *, pii: str) -> FeastField:
    """A typed Feast field with its PII class."""
    return _feast_field(column(name, data_type, description, pii=pii))


def take(source: DataSource, *names: str) -> list[FeastField]:
    """The fields of a row view: these columns of its source, with type, description and PII class as declared there."""
    return [_feast_field(_column(source, name)) for name in names]


def _feast_field(field: Field) -> FeastField:
    stated = {tags.PII_CLASS: field.pii}
    if field.type.kind in (Kind.DECIMAL, Kind.DATE):
        stated[tags.TYPE] = str(field.type)
    return FeastField(name=field.name, dtype=_DTYPES[field.type.kind], description=field.description, tags=stated)


def columns_of(source: DataSource) -> tuple[Field, ...]:
    """The columns that a source declares."""
    where = f"source {source.name}"
    if isinstance(source, KafkaSource):
        message = source.kafka_options.message_format
        return from_json_schema(where, message.schema_json if isinstance(message, JsonFormat) else "")
    return from_json_schema(where, source.tags.get(tags.SCHEMA, ""))


def _column(source: DataSource, name: str) -> Field:
    columns = {field.name: field for field in columns_of(source)}
    if name not in columns:
        raise DefinitionError(f"source {source.name}", f"it has no column {name}", f"Use one of {', '.join(columns)}.")
    return columns[name]


@dataclass(frozen=True, slots=True)
class Ask:
    """Some functions of one column (empty: of events) over some windows."""

    column: str
    functions: tuple[str, ...]
    per: tuple[str, ...]
    pii: str


@dataclass(frozen=True, slots=True)
class Windowed:
    """What a windowed view passes to Feast: the aggregations, and a field for each output."""

    aggregations: list[Aggregation]
    schema: list[FeastField]


def count(*, per: Sequence[str], pii: str) -> Ask:
    """The number of events in each of these windows."""
    return Ask("", ("count",), tuple(per), pii)


def of(name: str, *functions: str, per: Sequence[str], pii: str = "") -> Ask:
    """These functions of a column, in each of these windows. The PII class is the column's, unless told."""
    return Ask(name, functions, tuple(per), pii)


def windowed(source: KafkaSource, *asked: Ask) -> Windowed:
    """Spell out aggregations over a source: `sum_amount_24h` is the sum of amount over the last 24 hours."""
    triples = [(ask, function, window) for ask in asked for function in ask.functions for window in ask.per]
    return Windowed(
        [_aggregation(ask.column, function, window) for ask, function, window in triples],
        [_output(source, ask, function, window) for ask, function, window in triples],
    )


def _aggregation(name: str, function: str, window: str) -> Aggregation:
    length = timedelta(microseconds=parse_duration(window))
    return Aggregation(column=name, function=function, time_window=length, name=output_name(function, name, length))


def output_name(function: str, name: str, window: timedelta) -> str:
    """The feature of an aggregation: count_24h, sum_amount_7d."""
    return "_".join(part for part in (function, name, duration(window // timedelta(microseconds=1))) if part)


def _output(source: KafkaSource, ask: Ask, function: str, window: str) -> FeastField:
    read = _column(source, ask.column) if ask.column else None
    name = output_name(function, ask.column, timedelta(microseconds=parse_duration(window)))
    try:
        result = AGGREGATIONS[check_aggregation(function, read)].result(read.type if read else None)
    except ValueError as error:
        raise DefinitionError(
            f"source {source.name}, feature {name}", str(error), "Ask for another function."
        ) from error
    what = f"{function} of {ask.column or 'events'} over the last {window}"
    return _feast_field(
        Field(name, result if read else INT64, description=what, pii=ask.pii or (read.pii if read else ""))
    )


class _Imported(PandasTransformation):
    """Feast's slot for a function, holding its import path: nothing is pickled, and nothing runs when it is applied."""

    def __new__(cls, path: str, outputs: Sequence[FeastField]) -> Self:
        return object.__new__(cls)

    def __init__(self, path: str, outputs: Sequence[FeastField]) -> None:
        name = path.rpartition(":")[2]
        text = f'def {name}(inputs):\n    raise NotImplementedError("Coeval runs {path}")\n'
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
