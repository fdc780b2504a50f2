"""What a view can read of its source, as Feast's fields: columns as declared or computed, or what is wrong with them.

A mistake does not end the reading of a file: the field carries it in a tag, with its line, and the compiler reports it
with all others. It knows Feast's fields and sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from feast import Field as FeastField
from feast import KafkaSource
from feast.data_format import JsonFormat
from feast.data_source import DataSource
from feast.types import Bool, Decimal, Float64, Int64, PrimitiveFeastType, String, UnixTimestamp

from coeval.spec.model import Expected, Field
from coeval.spec.types import INT64, Kind
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import BrokenCatalogError, DefinitionError, asking_line
from coeval_pipelines.catalog.fields import Defaults
from coeval_pipelines.catalog.names import nearest
from coeval_pipelines.catalog.schema import Refused, expected_document, from_json_schema
from coeval_pipelines.catalog.selection import compile_selection

_DTYPES: dict[Kind, PrimitiveFeastType] = {
    Kind.INT64: Int64,
    Kind.FLOAT64: Float64,
    Kind.DECIMAL: Decimal,
    Kind.STRING: String,
    Kind.BOOL: Bool,
    Kind.TIMESTAMP: UnixTimestamp,
    Kind.DATE: UnixTimestamp,
}


@dataclass(frozen=True, slots=True)
class ComputedColumn:
    """A column that a view computes of each event, in SQL."""

    name: str
    sql: str
    description: str
    pii: str
    expected: Expected

    def document(self) -> dict[str, Any]:
        """As the tag holds it."""
        stated = {"sql": self.sql, "description": self.description, "pii": self.pii}
        return {name: item for name, item in (stated | {"expected": expected_document(self.expected)}).items() if item}


def computed(
    name: str,
    sql: str,
    description: str,
    *,
    pii: str,
    low: object = "",
    high: object = "",
    allowed: Iterable[object] = (),
) -> ComputedColumn:
    """A column computed of each event: `computed("saved", "retail_discount + coupon_discount", ...)`.

    It may read the source's columns and those computed before it. Its type follows from the expression.
    """
    expected = Expected(str(low), str(high), tuple(str(item) for item in allowed))
    return ComputedColumn(name, sql, description, pii, expected)


def selection(where: str = "", columns: Sequence[ComputedColumn] = ()) -> dict[str, str]:
    """The tags of a view that looks only at events for which `where` holds, and computes columns of them."""
    declared = json.dumps({item.name: item.document() for item in columns})
    return ({tags.WHERE: where} if where else {}) | ({tags.COLUMNS: declared} if columns else {})


def feast_field(field: Field) -> FeastField:
    """The field as Feast's: what Feast has no place for stands in tags."""
    if isinstance(field, Refused) and field.because:
        problem = field.because
        because = {"what": problem.what, "fix": problem.fix, "location": problem.location}
        return FeastField(name=field.name, dtype=String, tags={tags.REFUSED: json.dumps(because)})
    stated = {tags.PII_CLASS: field.pii}
    if field.type.kind in (Kind.DECIMAL, Kind.DATE):
        stated[tags.TYPE] = str(field.type)
    if field.expected != Expected():
        stated[tags.EXPECTED] = json.dumps(expected_document(field.expected))
    return FeastField(name=field.name, dtype=_DTYPES[field.type.kind], description=field.description, tags=stated)


@dataclass(frozen=True, slots=True)
class KnownColumns:
    """The columns that a view may read, and the names of those whose declaration is broken and reported as such."""

    source: str
    fields: dict[str, Field]
    refused: frozenset[str] = frozenset()

    def is_refused(self, name: str) -> bool:
        """Whether its declaration is broken: what reads it waits for that to be mended."""
        return name in self.refused

    def column(self, name: str) -> Field:
        """The column of that name, or one that carries what is wrong with it."""
        if name in self.fields:
            return self.fields[name]
        fix = f"{nearest(name, self.fields)} Or declare it."
        return refused(name, DefinitionError(f"field {name}", f"source {self.source} has no column {name!r}", fix))


def refused(name: str, error: DefinitionError) -> Refused:
    """A field that carries what is wrong with it, and the line of the catalog that asked for it."""
    (problem,) = error.problems
    return Refused(name, INT64, because=replace(problem, location=asking_line()))


def known_columns(source: DataSource, columns: Sequence[ComputedColumn]) -> KnownColumns:
    """The columns of a source, and those computed of them."""
    try:
        declared = columns_of(source)
    except BrokenCatalogError:  # The source is reported where it is compiled; everything that reads it waits for it.
        return KnownColumns(source.name, {}, _Everything())
    try:
        extra = compile_selection(f"source {source.name}", selection(columns=columns), declared, Defaults()).fields
    except BrokenCatalogError:  # The view is reported where it is compiled.
        return KnownColumns(source.name, _by_name(declared), frozenset(item.name for item in columns))
    return KnownColumns(source.name, _by_name(declared + extra))


class _Everything(frozenset[str]):
    """Holds every name."""

    def __contains__(self, name: object) -> bool:
        return True


def _by_name(fields: Iterable[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def columns_of(source: DataSource) -> tuple[Field, ...]:
    """The columns that a source declares.

    Raises:
        BrokenCatalogError: it declares some wrongly.
    """
    text = source.tags.get(tags.SCHEMA, "")
    if isinstance(source, KafkaSource):
        message = source.kafka_options.message_format
        text = message.schema_json if isinstance(message, JsonFormat) else ""
    return from_json_schema(f"source {source.name}", text) if text else ()
