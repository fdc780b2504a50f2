"""Which events a view sees, and what it computes of each: SQL text in tags to typed expressions. Pure.

A computed column may read the columns of the source and those computed before it, and the condition all of them: what
they compute is put in their place, so that every engine sees expressions over the source's columns only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coeval.spec.expressions import Expression
from coeval.spec.model import PII_CLASSES, RESERVED, Computed, Field
from coeval.spec.operations import substituted
from coeval.spec.signatures import ExpressionError
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.errors import BrokenCatalogError, DefinitionError, gather, marked
from coeval_pipelines.catalog.expressions import check_size, parse_condition, parse_value
from coeval_pipelines.catalog.fields import Defaults, expected_values
from coeval_pipelines.catalog.names import check_name

_MEMBERS = ("sql", "pii", "description", "expected")


@dataclass(frozen=True, slots=True)
class Selection:
    """The condition on a view's events (None: all of them) and the columns that it computes, by name."""

    where: Expression | None = None
    columns: tuple[Computed, ...] = ()

    @property
    def fields(self) -> tuple[Field, ...]:
        """The computed columns as fields."""
        return tuple(item.field for item in self.columns)


def compile_selection(
    where: str, stated: Mapping[str, str], source: tuple[Field, ...], defaults: Defaults
) -> Selection:
    """Read the tags `coeval.io/where` and `coeval.io/columns` of a view over a source with these columns.

    Raises:
        BrokenCatalogError: an expression cannot be read or has the wrong type, or a column says too little.
    """
    columns: list[Computed] = []
    declared = tags.json_object(stated[tags.COLUMNS]) if tags.COLUMNS in stated else {}

    def add(name: str) -> None:
        known = source + tuple(item.field for item in columns)
        columns.append(_computed(f"{where}, column {name}", declared[name], known, columns, defaults))

    gather(add, declared)
    condition = _condition(where, stated, source, columns) if tags.WHERE in stated else None
    return Selection(condition, tuple(sorted(columns, key=lambda item: item.field.name)))


def _condition(where: str, stated: Mapping[str, str], source: tuple[Field, ...], columns: list[Computed]) -> Expression:
    known = source + tuple(item.field for item in columns)
    return _parsed(parse_condition, f"{where}, where", stated[tags.WHERE], known, columns)


def _computed(
    where: str, stated: Any, known: tuple[Field, ...], columns: list[Computed], defaults: Defaults
) -> Computed:
    name = where.rpartition(" ")[2]
    _check_declaration(where, name, stated, known)
    expression = _parsed(parse_value, where, str(stated["sql"]), known, columns)
    pii = str(stated.get("pii", defaults.pii))
    if pii not in PII_CLASSES:
        raise DefinitionError(where, "it has no PII class", f'Add "pii": one of {", ".join(PII_CLASSES)}.')
    expected = expected_values(where, expression.type, dict(stated.get("expected", {})))
    return Computed(Field(name, expression.type, True, str(stated.get("description", "")), pii, expected), expression)


def _parsed(
    parse: Callable[[str, str, tuple[Field, ...]], Expression],
    where: str,
    text: str,
    known: tuple[Field, ...],
    columns: list[Computed],
) -> Expression:
    by_name = {item.field.name: item.expression for item in columns}
    try:
        expression = substituted(parse(where, text, known), by_name)
        check_size(expression)
    except BrokenCatalogError as error:
        raise marked(error, text) from error
    except ExpressionError as error:
        raise marked(DefinitionError(where, error.what, error.fix), text) from error
    return expression


def _check_declaration(where: str, name: str, stated: Any, known: tuple[Field, ...]) -> None:
    check_name(where, name)
    if not isinstance(stated, dict) or not stated.get("sql") or stated.keys() - set(_MEMBERS):
        fix = 'Use columns=[computed("name", "SQL", "What it is.", pii=...)].'
        raise DefinitionError(where, f"it is not an object of {', '.join(_MEMBERS)}", fix)
    if name in RESERVED:
        raise DefinitionError(where, "every event has a column of that name", "Call it something else.")
    if any(field.name == name for field in known):
        raise DefinitionError(where, "the source has a column of that name", "Call it something else.")
