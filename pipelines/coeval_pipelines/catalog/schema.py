"""The columns of a source as a JSON Schema, the form in which Feast's registry carries them. Pure: no Feast, no files.

`{"type": "string", "format": "decimal(9,2)"}` is money, `x-pii` the PII class, `x-origin` the place in a record; a
column is required where an event without it is rejected. Properties keep their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coeval.spec.model import HEADER, KEY, PII_CLASSES, Expected, Field
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind
from coeval_pipelines.catalog.errors import DefinitionError, Problem, gather
from coeval_pipelines.catalog.fields import expected_values
from coeval_pipelines.catalog.names import check_names

_FORMS: dict[tuple[str, str], DataType] = {
    ("integer", "int64"): INT64,
    ("number", "double"): FLOAT64,
    ("string", ""): STRING,
    ("boolean", ""): BOOL,
    ("string", "date-time"): TIMESTAMP,
    ("string", "date"): DATE,
}
_NAMES = {data_type: form for form, data_type in _FORMS.items()}


@dataclass(frozen=True, slots=True)
class Refused(Field):
    """A column that was declared wrongly: the schema carries why, so that all mistakes are reported at once."""

    because: Problem | None = None


def column(
    name: str,
    data_type: str,
    description: str,
    *,
    pii: str,
    required: bool = False,
    low: object = "",
    high: object = "",
    allowed: Iterable[object] = (),
    origin: str = "",
) -> Field:
    """Declare a column of a source.

    `data_type` is int64, float64, decimal(p,s), string, bool, timestamp or date. An event whose required column is null
    or missing is rejected: keys, the event id and the event time are required. `low`, `high` (both included) and
    `allowed` say what the column should hold, as texts in the grammar of the type: data quality watches it. A column of
    a topic stands in the JSON property of its name, unless `origin` says `key`, the record's key, or `header:NAME`, the
    last header of that name.
    """
    try:
        where, expected = f"column {name}", {"low": low, "high": high, "allowed": allowed}
        return _column(where, data_type, description, pii, required, expected, origin)
    except DefinitionError as error:
        (problem,) = error.problems
        return Refused(name, STRING, description=description, because=problem)


def _column(
    where: str, data_type: str, description: str, pii: str, required: bool, values: dict[str, Any], origin: str
) -> Field:
    try:
        parsed = DataType.parse(data_type)
    except ValueError as error:
        known = ", ".join(kind for kind in Kind if kind is not Kind.DECIMAL)
        raise DefinitionError(where, f"{data_type!r} is no type", f"Use decimal(p,s), {known}.") from error
    if pii not in PII_CLASSES:
        raise DefinitionError(where, f"{pii!r} is no PII class", f"Use one of {', '.join(PII_CLASSES)}.")
    expected = expected_values(where, parsed, values)
    _check_origin(where, origin)
    return Field(where.rpartition(" ")[2], parsed, not required, description, pii, expected, origin)


def _check_origin(where: str, origin: str) -> None:
    if not re.fullmatch(rf"|{KEY}|{HEADER}[A-Za-z0-9_.:-]+", origin):
        raise DefinitionError(where, f"{origin!r} is no place in a record", 'Use "key" or "header:NAME".')


def to_json_schema(fields: Iterable[Field]) -> str:
    """The JSON Schema of a source's columns."""
    columns = tuple(fields)
    document = {
        "type": "object",
        "properties": {field.name: _property(field) for field in columns},
        "required": [field.name for field in columns if not field.nullable],
    }
    return json.dumps(document, separators=(",", ":"))


def _property(field: Field) -> dict[str, Any]:
    if isinstance(field, Refused) and field.because:
        return {"x-refused": field.because.document()}
    kind, form = ("string", str(field.type)) if field.type.kind is Kind.DECIMAL else _NAMES[field.type]
    stated: dict[str, Any] = {"type": kind, "format": form, "description": field.description, "x-pii": field.pii}
    stated |= {"x-expected": expected_document(field.expected), "x-origin": field.origin}
    return {name: item for name, item in stated.items() if item}


def expected_document(expected: Expected) -> dict[str, Any]:
    """What a column should hold, as JSON-ready values; empty where nothing is said."""
    stated = {"low": expected.low, "high": expected.high, "allowed": list(expected.allowed)}
    return {name: item for name, item in stated.items() if item}


def from_json_schema(where: str, text: str, default_pii: str = "") -> tuple[Field, ...]:
    """The columns that a JSON Schema declares, in its order.

    Raises:
        BrokenCatalogError: it is no such schema, or columns have an unknown type or no PII class.
    """
    fix = "Declare the columns with json_events(column(...), ...) or batch_tags(column(...), ...)."
    try:
        document = json.loads(text)
        required, properties = set(document.get("required", ())), dict(document["properties"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefinitionError(where, "its schema is not a JSON Schema of an object", fix) from error
    unknown = sorted(required - properties.keys())
    if unknown or not properties:
        raise DefinitionError(where, f"its schema requires unknown columns: {', '.join(unknown) or 'it has none'}", fix)
    check_names(where, properties)
    return tuple(
        gather(lambda name: _field(where, name, properties[name], name not in required, default_pii), properties)
    )


def _field(where: str, name: str, stated: Mapping[str, Any], nullable: bool, default_pii: str) -> Field:
    here = f"{where}, column {name}"
    if "x-refused" in stated:
        because = Problem.of(stated["x-refused"])
        raise DefinitionError(here, because.what, because.fix, because.location)
    data_type = _type(here, str(stated.get("type", "")), str(stated.get("format", "")))
    pii = str(stated.get("x-pii", default_pii))
    if pii not in PII_CLASSES:
        raise DefinitionError(
            here,
            "it has no PII class" if not pii else f"{pii!r} is no PII class",
            f'Add "x-pii": one of {", ".join(PII_CLASSES)}.',
        )
    expected = expected_values(here, data_type, dict(stated.get("x-expected", {})))
    origin = str(stated.get("x-origin", ""))
    _check_origin(here, origin)
    return Field(name, data_type, nullable, str(stated.get("description", "")), pii, expected, origin)


def _type(where: str, kind: str, form: str) -> DataType:
    data_type = _FORMS.get((kind, form))
    if data_type is None and kind == "string" and form.startswith("decimal"):
        try:
            data_type = DataType.parse(form)
        except ValueError as error:
            raise DefinitionError(where, str(error), 'Write "format": "decimal(9,2)".') from error
    if data_type is None:
        known = ", ".join(f"{k}/{f}" if f else k for k, f in _FORMS)
        raise DefinitionError(
            where, f"the type {kind!r} with format {form!r} is not known", f"Use {known}, string/decimal(p,s)."
        )
    return data_type
