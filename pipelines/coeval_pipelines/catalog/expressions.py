"""Row expressions from SQL text: parsed, type-checked, small enough for every engine. It knows sqlglot's tree.

The language and its meaning are in docs/semantics.md, "Row expressions".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlglot import exp

from coeval.spec.dialects import render
from coeval.spec.engine_sql import DIALECTS
from coeval.spec.expressions import Expression, column, constant, literal, null
from coeval.spec.model import Field
from coeval.spec.operations import cast, typed
from coeval.spec.signatures import NARROW, PARTS, ExpressionError
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.grammar import read_sql
from coeval_pipelines.catalog.names import nearest
from coeval_pipelines.catalog.refusals import CLOCKS, NO_CLOCK, refused, unknown_function

MOST_NODES = 300
"""Nodes that an expression may have."""


def parse_condition(where: str, text: str, fields: Sequence[Field]) -> Expression:
    """A condition over these columns; an event counts where it is true, neither false nor NULL.

    `where` names what it belongs to, for messages.

    Raises:
        DefinitionError: it cannot be read, is no condition, or has no meaning over these columns.
    """
    expression = parse_value(where, text, fields)
    if expression.type != BOOL:
        raise DefinitionError(where, f"it is {expression.type}, not a condition: {text}", "Compare it: amount <> 0.")
    return expression


def parse_value(where: str, text: str, fields: Sequence[Field]) -> Expression:
    """An expression of any type over these columns.

    Raises:
        DefinitionError: it cannot be read, or has no meaning over these columns.
    """
    try:
        expression = _Reader({item.name: item.type for item in fields}).read(read_sql(where, text))
        check_size(expression)
    except ExpressionError as error:
        raise DefinitionError(where, error.what, error.fix) from error
    except RecursionError as error:
        raise DefinitionError(where, "it is nested too deeply", _SPLIT) from error
    if expression.operation == "null":
        raise DefinitionError(where, "it is always NULL, of no type", "Name one: CAST(NULL AS int64).")
    return expression


def check_size(expression: Expression) -> None:
    """Check that every engine can take it.

    Raises:
        ExpressionError: it is too large.
    """
    if expression.size > MOST_NODES:
        raise ExpressionError(f"it has {expression.size} parts, and {MOST_NODES} are allowed", _SPLIT)
    for dialect in DIALECTS:
        render(expression, dialect, str)


_SPLIT = "Say it in fewer words, or compute a part of it in the producer."

_BINARY: Mapping[type[exp.Expression], str] = {
    exp.Add: "add", exp.Sub: "sub", exp.Mul: "mul", exp.Div: "div", exp.Mod: "mod", exp.DPipe: "concat",
    exp.EQ: "eq", exp.NEQ: "ne", exp.LT: "lt", exp.LTE: "le", exp.GT: "gt", exp.GTE: "ge", exp.And: "and", exp.Or: "or",
}  # fmt: skip
_FUNCTIONS: Mapping[str, str] = {
    "ABS": "abs", "COALESCE": "coalesce", "CONCAT": "concat", "DIV": "idiv", "LENGTH": "length", "LOWER": "lower",
    "MOD": "mod", "NULLIF": "nullif", "UPPER": "upper",
}  # fmt: skip
_TYPES: Mapping[str, DataType] = {
    "BIGINT": INT64, "DOUBLE": FLOAT64, "TEXT": STRING, "VARCHAR": STRING, "BOOLEAN": BOOL, "TIMESTAMP": TIMESTAMP,
    "DATE": DATE,
}  # fmt: skip
_TYPE_NAMES = "The types are int64, float64, decimal(p,s), string, bool, timestamp and date."


class _Reader:
    """Reads a syntax tree over columns of these types."""

    def __init__(self, columns: Mapping[str, DataType]) -> None:
        self._columns = columns
        self._forms: Mapping[type[exp.Expression], Callable[[Any], Expression]] = {
            exp.Paren: lambda node: self.read(node.this),
            exp.Column: self._column,
            exp.Literal: _literal,
            exp.Boolean: lambda node: constant(BOOL, int(node.this)),
            exp.Null: lambda _: null(BOOL),
            exp.Neg: self._negative,
            exp.Not: lambda node: typed("not", self.read(node.this)),
            exp.Is: self._is,
            exp.In: self._in,
            exp.Between: lambda node: self._of(node, "between", node.this, node.args["low"], node.args["high"]),
            exp.Like: lambda node: self._of(node, "like", node.this, node.expression),
            exp.Case: self._case,
            exp.Cast: self._cast,
            exp.Extract: self._extract,
            exp.Substring: self._substring,
            exp.Anonymous: self._function,
        }

    def read(self, node: exp.Expression) -> Expression:
        """The typed tree.

        Raises:
            ExpressionError: something in it has no meaning.
        """
        if type(node) in _BINARY:
            return typed(_BINARY[type(node)], self.read(node.this), self.read(node.expression))
        if type(node) not in self._forms:
            raise refused(node)
        return self._forms[type(node)](node)

    def _of(self, node: exp.Expression, operation: str, *args: exp.Expression) -> Expression:
        found = typed(operation, *map(self.read, args))
        return typed("not", found) if node.args.get("negate") else found

    def _column(self, node: exp.Column) -> Expression:
        name = node.name
        if node.args.get("table"):
            raise ExpressionError(f"{_sql(node)} names a table", f"Write {name} only.")
        if isinstance(node.this, exp.Star):
            raise refused(node.this)
        if name not in self._columns:
            clock = not node.this.args.get("quoted") and name.upper() in CLOCKS
            raise ExpressionError(f"there is no column {name}", NO_CLOCK if clock else nearest(name, self._columns))
        return column(name, self._columns[name])

    def _negative(self, node: exp.Neg) -> Expression:
        inner = node.this
        if isinstance(inner, exp.Literal) and not inner.is_string:
            return _number("-" + inner.name)
        return typed("neg", self.read(inner))

    def _is(self, node: exp.Is) -> Expression:
        if not isinstance(node.expression, exp.Null):
            raise ExpressionError(f"IS takes NULL only: {_sql(node)}", "Compare with =: is_fraud = TRUE.")
        return self._of(node, "is_null", node.this)

    def _in(self, node: exp.In) -> Expression:
        if node.args.get("query"):
            raise refused(node.args["query"])
        return self._of(node, "in", node.this, *node.expressions)

    def _case(self, node: exp.Case) -> Expression:
        parts: list[Expression] = []
        for branch in node.args["ifs"]:
            test = self.read(branch.this)
            parts += [typed("eq", self.read(node.this), test) if node.this else test, self.read(branch.args["true"])]
        default = node.args.get("default")
        return typed("case", *parts, self.read(default) if default else null(BOOL))

    def _cast(self, node: exp.Cast) -> Expression:
        target, inner = _data_type(node.to), node.this
        if isinstance(inner, exp.Literal) and inner.is_string and target in (TIMESTAMP, DATE):
            return _instant(target, inner.name)
        return cast(self.read(inner), target)

    def _extract(self, node: exp.Extract) -> Expression:
        part = node.this.name.lower()
        if part not in PARTS:
            raise ExpressionError(f"EXTRACT has no part {part.upper()}", nearest(part.upper(), map(str.upper, PARTS)))
        return self._of(node, part, node.expression)

    def _substring(self, node: exp.Substring) -> Expression:
        given = [node.this, node.args.get("start"), node.args.get("length")]
        return self._of(node, "substring", *[item for item in given if item is not None])

    def _function(self, node: exp.Anonymous) -> Expression:
        name = node.name.upper()
        if name not in _FUNCTIONS:
            raise unknown_function(name)
        return self._of(node, _FUNCTIONS[name], *node.expressions)


def _sql(node: exp.Expression) -> str:
    return node.sql()


def _literal(node: exp.Literal) -> Expression:
    if not node.is_string:
        return _number(node.name)
    if "\0" in node.name:
        raise ExpressionError("a string holds the character of code 0", "Leave it out: SQL text cannot carry it.")
    return _checked(STRING, node.name, "Write half of a surrogate pair with its other half.")


def _number(text: str) -> Expression:
    """A number: int64 without a point, a decimal with one, a float64 with an exponent."""
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.IGNORECASE):
        raise ExpressionError(f"{text} is not a number", "Write 1, 1.50 or 1.5e0.")
    if "e" in text.lower():
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ExpressionError(f"{text} is beyond float64", "The greatest is 1.7976931348623157e308.")
        return constant(FLOAT64, value)
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    del sign
    if not exponent:
        return _checked(INT64, str(int(Decimal(text))), "Write it with an exponent for a float64: 1e20.")
    precision = max(len(digits), -exponent)
    if precision > NARROW:
        fix = "Leave digits out, or write it with an exponent for a float64: 0.1e0."
        raise ExpressionError(f"{text} has more than {NARROW} digits", fix)
    return literal(DataType(Kind.DECIMAL, precision, -exponent), f"{Decimal(text):f}")


def _instant(data_type: DataType, text: str) -> Expression:
    example = "TIMESTAMP '2026-03-20T10:00:00Z'" if data_type == TIMESTAMP else "DATE '2026-03-20'"
    return _checked(data_type, text, f"Write {example}.")


def _checked(data_type: DataType, text: str, fix: str) -> Expression:
    try:
        return literal(data_type, text)
    except ValueError as error:
        raise ExpressionError(f"{text!r} is not {_ARTICLES.get(data_type.kind, 'a')} {data_type}", fix) from error


_ARTICLES = {Kind.INT64: "an"}


def _data_type(node: exp.DataType) -> DataType:
    name = str(getattr(node.this, "name", node.this)).upper()
    numbers = [int(item.name) for item in node.expressions if item.name.isdigit()]
    if name == "DECIMAL" and len(numbers) == 2:
        try:
            return DataType(Kind.DECIMAL, *numbers)
        except ValueError as error:
            raise ExpressionError(str(error), _TYPE_NAMES) from error
    if name not in _TYPES or node.expressions:
        raise ExpressionError(f"CAST does not know the type {_sql(node)}", _TYPE_NAMES)
    return _TYPES[name]
