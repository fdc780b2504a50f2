"""Feast fields to the manifest's: type, PII class, expected values. Pure over protos; Feast is not imported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coeval.spec.model import PII_CLASSES, Expected, Field
from coeval.spec.types import FLOAT64, INT64, TIMESTAMP, DataType, Kind, parse_literal
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import DefinitionError

if TYPE_CHECKING:
    from feast.protos.feast.core.Feature_pb2 import FeatureSpecV2

FEAST_TYPES = {
    "INT64": INT64,
    "INT32": INT64,
    "DOUBLE": FLOAT64,
    "FLOAT": FLOAT64,
    "STRING": DataType(Kind.STRING),
    "BOOL": DataType(Kind.BOOL),
    "UNIX_TIMESTAMP": TIMESTAMP,
}
"""Narrow numbers are kept wide: no value changes, and every engine has the wide type."""
_REFINED = {"DECIMAL": Kind.DECIMAL, "UNIX_TIMESTAMP": Kind.DATE}
"""Feast types that a `coeval.io/type` tag makes precise."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the project says for all of its objects that do not say it themselves; '' where it does not either."""

    owner: str = ""
    pii: str = ""


def micros(length: Any) -> int:
    """Microseconds of a protobuf Duration."""
    return int(length.seconds) * 1_000_000 + int(length.nanos) // 1_000


def enum_name(message: Any, name: str) -> str:
    """The name of an enum field's value: INT64, DECIMAL."""
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    return str(enum.values_by_number[getattr(message, name)].name)


def compile_field(where: str, spec: FeatureSpecV2, defaults: Defaults) -> Field:
    """A Feast field with its type, PII class and expected values.

    Raises:
        BrokenCatalogError: its type is not supported, or its tags say nothing of PII, or something unreadable.
    """
    here = f"{where}, field {spec.name}"
    tags.check_tags("field", here, spec.tags)
    if tags.REFUSED in spec.tags:
        refused = tags.json_object(spec.tags[tags.REFUSED])
        raise DefinitionError(here, refused["what"], refused["fix"], refused["location"])
    data_type = _data_type(here, enum_name(spec, "value_type"), spec.tags.get(tags.TYPE, ""))
    pii = spec.tags.get(tags.PII_CLASS, defaults.pii)
    if not pii:
        raise DefinitionError(here, "it has no PII class", pii_fix(f'Field(name="{spec.name}", ..., ', ")"))
    stated = tags.json_object(spec.tags[tags.EXPECTED]) if tags.EXPECTED in spec.tags else {}
    return Field(spec.name, data_type, True, spec.description, pii, expected_values(here, data_type, stated))


def pii_fix(before: str, after: str) -> str:
    """What to write where a PII class is missing."""
    example = f'{before}tags={{"{tags.PII_CLASS}": "personal"}}{after}'
    whole = f'for all of the project Project(..., tags={{"{tags.DEFAULT_PII}": "pseudonymous"}})'
    return f"{example}, one of {', '.join(PII_CLASSES)}; or {whole}."


def _data_type(where: str, feast_type: str, refined: str) -> DataType:
    if refined:
        stated = DataType.parse(refined)
        if stated not in (FEAST_TYPES.get(feast_type), None) and _REFINED.get(feast_type) is not stated.kind:
            raise DefinitionError(
                where,
                f"its Feast type {feast_type} and its tag {tags.TYPE}: {refined} disagree",
                "Use dtype=Decimal with decimal(p,s), UnixTimestamp with date, else leave the tag out.",
            )
        return stated
    if feast_type == "DECIMAL":
        fix = f'Add tags={{"{tags.TYPE}": "decimal(9,2)"}}: Feast\'s Decimal says neither digits nor scale.'
        raise DefinitionError(where, "it is a decimal of unknown size", fix)
    if feast_type not in FEAST_TYPES:
        raise DefinitionError(
            where,
            f"the type {feast_type} is not supported",
            "Use Int64, Float64, Decimal, String, Bool or UnixTimestamp, or leave the field out.",
        )
    return FEAST_TYPES[feast_type]


def expected_values(where: str, data_type: DataType, stated: dict[str, Any]) -> Expected:
    """What a column should hold: `low` and `high` as literals of its type, `allowed` as a list of them.

    Raises:
        DefinitionError: a text is no literal of the type, or the bounds are in the wrong order.
    """
    expected = Expected(str(stated.get("low", "")), str(stated.get("high", "")), _texts(stated.get("allowed", ())))
    bounds = [_literal(where, data_type, text) for text in (expected.low, expected.high) if text]
    for text in expected.allowed:
        _literal(where, data_type, text)
    if len(bounds) == 2 and bounds[0] > bounds[1]:
        what = f"the least value expected, {expected.low}, is greater than the greatest, {expected.high}"
        raise DefinitionError(where, what, "Exchange low= and high=.")
    return expected


def _texts(items: Iterable[object]) -> tuple[str, ...]:
    return tuple(str(item) for item in items)


def _literal(where: str, data_type: DataType, text: str) -> Any:
    try:
        return parse_literal(data_type, text)
    except ValueError as error:
        what = f"an expected value cannot be read: {error}"
        raise DefinitionError(
            where, what, f"Write low=, high= and allowed= as texts of the type {data_type}."
        ) from error
