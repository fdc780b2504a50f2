"""The columns of a source as a JSON Schema, the form in which Feast's registry carries them. Pure: no Feast, no files.

`{"type": "string", "format": "decimal(9,2)"}` is money, `x-pii` the PII class; a column is required where an event
without it is rejected. Properties keep their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from coeval.spec.model import Field
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.names import check_names
from coeval_pipelines.catalog.tags import PII

_FORMS: dict[tuple[str, str], DataType] = {
    ("integer", "int64"): INT64,
    ("number", "double"): FLOAT64,
    ("string", ""): STRING,
    ("boolean", ""): BOOL,
    ("string", "date-time"): TIMESTAMP,
    ("string", "date"): DATE,
}
_NAMES = {data_type: form for form, data_type in _FORMS.items()}
STORED_DIGITS = 18
"""Decimals up to here fit 8 bytes, which is what stores and engines keep of a column in this release."""


def column(name: str, data_type: str, description: str, *, pii: str, required: bool = False) -> Field:
    """Declare a column of a source.

    `data_type` is int64, float64, decimal(p,s), string, bool, timestamp or date. An event whose required column is null
    or missing is rejected: keys, the event id and the event time are required.
    """
    where = f"column {name}"
    try:
        parsed = DataType.parse(data_type)
    except ValueError as error:
        known = ", ".join(kind for kind in Kind if kind is not Kind.DECIMAL)
        raise DefinitionError(where, f"{data_type!r} is no type", f"Use decimal(p,s), {known}.") from error
    if pii not in PII:
        raise DefinitionError(where, f"{pii!r} is no PII class", f"Use one of {', '.join(PII)}.")
    return Field(name, parsed, nullable=not required, description=description, pii=pii)


def to_json_schema(fields: Iterable[Field]) -> str:
    """The JSON Schema of a source's columns."""
    columns = tuple(fields)
    document = {
        "type": "object",
        "properties": {field.name: _property(field) for field in columns},
        "required": [field.name for field in columns if not field.nullable],
    }
    return json.dumps(document, separators=(",", ":"))


def _property(field: Field) -> dict[str, str]:
    kind, form = ("string", str(field.type)) if field.type.kind is Kind.DECIMAL else _NAMES[field.type]
    stated = {"type": kind, "format": form, "description": field.description, "x-pii": field.pii}
    return {name: text for name, text in stated.items() if text}


def from_json_schema(where: str, text: str) -> tuple[Field, ...]:
    """The columns that a JSON Schema declares, in its order.

    Raises:
        DefinitionError: it is no such schema, or a column has an unknown type or no PII class.
    """
    fix = "Declare the columns with columns(column(...), ...) from coeval_pipelines.catalog.authoring."
    try:
        document = json.loads(text)
        required, properties = set(document.get("required", ())), dict(document["properties"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefinitionError(where, "its schema is not a JSON Schema of an object", fix) from error
    unknown = sorted(required - properties.keys())
    if unknown or not properties:
        raise DefinitionError(where, f"its schema requires unknown columns: {', '.join(unknown) or 'it has none'}", fix)
    check_names(where, properties)
    return tuple(_field(where, name, properties[name], name not in required) for name in properties)


def _field(where: str, name: str, stated: dict[str, Any], nullable: bool) -> Field:
    here = f"{where}, column {name}"
    data_type = _type(here, str(stated.get("type", "")), str(stated.get("format", "")))
    pii = stated.get("x-pii", "")
    if pii not in PII:
        raise DefinitionError(
            here,
            "it has no PII class" if not pii else f"{pii!r} is no PII class",
            f'Add "x-pii": one of {", ".join(PII)}.',
        )
    return Field(name, data_type, nullable, str(stated.get("description", "")), pii)


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
    if data_type.precision > STORED_DIGITS:
        raise DefinitionError(
            where,
            f"{data_type} has more than {STORED_DIGITS} digits, which is not supported yet",
            f"Declare at most decimal({STORED_DIGITS},s), or a string.",
        )
    return data_type
