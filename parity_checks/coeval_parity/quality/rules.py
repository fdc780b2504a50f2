"""The rules that tables are held to: those that follow from the manifest, and a repository's own. It reads JSON files.

A rule is an expectation of Great Expectations: its type and its arguments. This module does not import it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coeval.errors import UsageError
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field
from coeval.spec.time import DAY
from coeval.spec.types import Kind, parse_literal
from coeval_parity.served_features import UNREADABLE
from coeval_pipelines.offline.tables import payload

CRITICAL, WARNING = "critical", "warning"
"""A broken critical rule fails the check, and quarantines a batch; a warning is only shown."""
AHEAD = "__declared_ahead"
"""A computed column of logs: by how many microseconds an event's declared time is after the moment it came."""
POSITION = ("topic", "partition", "offset")
_TYPES = {
    Kind.INT64: ["Int64Dtype", "LongType"],
    Kind.FLOAT64: ["float64", "DoubleType"],
    Kind.DECIMAL: ["Decimal", "DecimalType"],
    Kind.STRING: ["str", "StringType"],
    Kind.BOOL: ["BooleanDtype", "BooleanType"],
    Kind.TIMESTAMP: ["datetime64[us]", "TimestampType"],
    Kind.DATE: ["date", "DateType"],
}
"""What pandas and Spark call each type."""
_NUMBERS = (Kind.INT64, Kind.FLOAT64, Kind.DECIMAL)


@dataclass(frozen=True, slots=True)
class Rule:
    """An expectation: its type, its arguments, and whether it fails the check."""

    type: str
    kwargs: Mapping[str, Any]
    severity: str = CRITICAL

    @property
    def column(self) -> str:
        """The column that it is about; '' where it is about several."""
        return str(self.kwargs.get("column", ""))

    def to_document(self) -> dict[str, Any]:
        """As Great Expectations writes it."""
        return {"type": self.type, "kwargs": dict(self.kwargs), "severity": self.severity}


def log_rules(manifest: Manifest, source: EventSource, now: int, newest: bool) -> list[Rule]:
    """What follows from the manifest for a batch of a source's log.

    `now` is the clock (microseconds UTC), `newest` whether the batch is the newest, which has to be fresh.
    """
    rules = [
        _rule("not_be_null", "event_id"),
        _rule("be_unique", "event_id"),
        Rule("expect_compound_columns_to_be_unique", {"column_list": list(POSITION)}),
        Rule(
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "available_at", "column_B": "event_ts", "or_equal": True},
        ),
        _rule("be_between", AHEAD, max_value=source.max_future_skew),
    ]
    for field in payload(source):
        rules += field_rules(field)
    if newest:
        oldest = now - max(
            [DAY, *(view.sla.freshness for view in manifest.views.values() if view.source == source.name)]
        )
        fresh = {"column": "available_at", "min_value": oldest}
        rules.append(Rule("expect_column_max_to_be_between", fresh, WARNING))
    return rules


def table_rules(manifest: Manifest, columns: Iterable[str], time: str) -> list[Rule]:
    """What follows from the manifest for a table of features: of its columns view__feature, keys, and instant."""
    there = set(columns)
    views = (*manifest.views.values(), *manifest.derived_views)
    fields = {f"{view.name}__{item.name}": item for view in views for item in view.features}
    keys = {entity.key.name for entity in manifest.entities}
    rules = [_rule("not_be_null", name) for name in sorted({*keys, time} & there)]
    for name, field in fields.items():
        if name in there:
            rules += field_rules(field, name, required=False)
    if UNREADABLE in there:
        rules.append(_rule("be_null", UNREADABLE))
    return rules


def field_rules(field: Field, column: str = "", *, required: bool | None = None) -> list[Rule]:
    """What a field's declaration says of a column's values: type, null or not, bounds, values allowed."""
    name, expected = column or field.name, field.expected
    rules = [_rule("be_in_type_list", name, type_list=_TYPES[field.type.kind])]
    if required if required is not None else not field.nullable:
        rules.append(_rule("not_be_null", name))
    bounds = {
        end: _number(field, text) for end, text in (("min_value", expected.low), ("max_value", expected.high)) if text
    }
    if bounds and field.type.kind in _NUMBERS:
        rules.append(_rule("be_between", name, **bounds))
    if expected.allowed:
        allowed = [_number(field, text) for text in expected.allowed]
        rules.append(_rule("be_in_set", name, value_set=allowed))
    return rules


def own_rules(directory: Path, name: str) -> list[Rule]:
    """The rules of a repository's own for a source, a training set or a table: quality/NAME.json.

    The file is a suite as Great Expectations writes one: {"expectations": [{"type": ..., "kwargs": {...}}]}.

    Raises:
        UsageError: the file is no such suite.
    """
    path = directory / f"{name}.json"
    if not path.exists():
        return []
    try:
        stated = json.loads(path.read_text())["expectations"]
        return [Rule(item["type"], dict(item["kwargs"]), item.get("severity", CRITICAL)) for item in stated]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a suite: {error}.", "Begin with: coeval quality suggest") from error


def check_columns(name: str, rules: Iterable[Rule], columns: Collection[str]) -> None:
    """Refuse rules about columns that a table does not have, but for those that ask whether it has them.

    Raises:
        UsageError: it names the rule and the column.
    """
    for rule in rules:
        named = [rule.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        for column in (*named, *(rule.kwargs.get("column_list") or ())):
            if column is not None and column not in columns and rule.type != "expect_column_to_exist":
                raise UsageError(
                    f"{rule.type} of the suite {name} is about a column {column}, which is not there.",
                    f"There are: {', '.join(columns)}.",
                )


def _rule(what: str, column: str, **kwargs: Any) -> Rule:
    return Rule(f"expect_column_values_to_{what}", {"column": column, **kwargs})


def _number(field: Field, text: str) -> Any:
    match field.type.kind:
        case Kind.INT64:
            return int(text)
        case Kind.FLOAT64 | Kind.DECIMAL:
            return float(text)
        case Kind.BOOL:
            return bool(parse_literal(field.type, text))
        case _:
            return text
