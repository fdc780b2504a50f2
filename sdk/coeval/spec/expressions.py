"""Row expressions: a typed tree of operations over an event's columns, and its text. Pure; the catalog parses it.

A tree holds what its author wrote; `coeval.spec.operations` knows the operations and what they compute on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from coeval.spec.types import DataType, Kind, Physical, iso, parse_literal, to_logical


@dataclass(frozen=True, slots=True)
class Expression:
    """One node: an operation, the type of its result, its arguments.

    `value` is the name of a `column`, or the text of a `literal` in the grammar of its type.
    """

    operation: str
    type: DataType
    args: tuple[Expression, ...] = ()
    value: str = ""

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        if self.operation == "column":
            return frozenset({self.value})
        return frozenset[str]().union(*(item.columns for item in self.args))

    @property
    def size(self) -> int:
        """How many nodes it has."""
        return 1 + sum(item.size for item in self.args)


def column(name: str, data_type: DataType) -> Expression:
    """A column of the event."""
    return Expression("column", data_type, value=name)


def null(data_type: DataType) -> Expression:
    """NULL, of a type."""
    return Expression("null", data_type)


def literal(data_type: DataType, text: str) -> Expression:
    """A constant, from its text in the grammar of its type.

    Raises:
        ValueError: the text is not a literal of this type, or an instant outside the years 1 to 9999 UTC.
    """
    return constant(data_type, parse_literal(data_type, text))


def constant(data_type: DataType, value: Physical) -> Expression:
    """A constant, from its physical value; the same value always gives the same text.

    Raises:
        ValueError: an instant or day outside the years 1 to 9999.
    """
    match data_type.kind:
        case Kind.BOOL:
            text = "true" if value else "false"
        case Kind.DECIMAL:
            text = f"{to_logical(data_type, value):f}"
        case Kind.TIMESTAMP | Kind.DATE:
            text = _calendar_text(data_type, value)
        case Kind.FLOAT64:
            # There is one zero.
            text = repr(float(value or 0) + 0.0)
        case _:
            text = str(value)
    return Expression("literal", data_type, value=text)


def _calendar_text(data_type: DataType, value: Physical) -> str:
    assert isinstance(value, int)
    try:
        if data_type.kind is Kind.TIMESTAMP:
            return iso(value)
        return str(to_logical(data_type, value))
    except OverflowError as error:
        raise ValueError(f"a {data_type} must be in the years 1 to 9999 UTC") from error


def literal_value(expression: Expression) -> Physical:
    """The physical value of a literal."""
    return parse_literal(expression.type, expression.value)


_INFIX = {
    "or": (1, " OR "),
    "and": (2, " AND "),
    "eq": (4, " = "),
    "ne": (4, " <> "),
    "lt": (4, " < "),
    "le": (4, " <= "),
    "gt": (4, " > "),
    "ge": (4, " >= "),
    "concat": (5, " || "),
    "add": (6, " + "),
    "sub": (6, " - "),
    "mul": (7, " * "),
    "div": (7, " / "),
    "mod": (7, " % "),
}
"""How tightly an operator binds, and its text. NOT is 3, a sign 8, all else 9."""

CHAINS = frozenset({"or", "and", "concat"})
"""Operators that take any number of arguments."""

_TESTS = frozenset({"is_null", "in", "between", "like"})
_PARTS = frozenset({"year", "month", "day", "hour", "minute", "second", "dow"})
_FUNCTIONS = {"idiv": "DIV"}


RESERVED = frozenset(
    {"and", "as", "between", "case", "distinct", "else", "end", "escape", "false", "for", "from", "ilike", "in"}
    | {"interval", "is", "like", "not", "null", "or", "over", "select", "then", "true", "when", "with"}
)
"""Words that name a column in double quotes only."""


def to_text(expression: Expression) -> str:
    """The expression as SQL that the catalog's parser reads back as the same tree."""
    return _text(expression)[1]


def _text(expression: Expression) -> tuple[int, str]:
    """How tightly its text binds, and the text."""
    operation, args = expression.operation, expression.args
    if operation in _INFIX:
        return _infix(operation, args)
    if operation in _TESTS:
        return 4, _test(operation, args, "")
    match operation:
        case "column":
            return 9, _name(expression.value)
        case "null":
            return 9, "NULL"
        case "literal":
            return _literal(expression)
        case "not" if args[0].operation in _TESTS:
            return 4, _test(args[0].operation, args[0].args, "NOT ")
        case "not":
            return 3, f"NOT {_within(args[0], 4)}"
        case "neg":
            return 8, f"-{_within(args[0], 9)}"
        case "cast":
            return 9, f"CAST({to_text(args[0])} AS {expression.type})"
        case "case":
            return 9, _case(args)
        case _ if operation in _PARTS:
            return 9, f"EXTRACT({operation.upper()} FROM {to_text(args[0])})"
    return 9, f"{_FUNCTIONS.get(operation, operation.upper())}({', '.join(map(to_text, args))})"


def _name(name: str) -> str:
    if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) and name.lower() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def _within(expression: Expression, level: int) -> str:
    """Its text as an operand of something that binds as tightly as `level`."""
    own, text = _text(expression)
    return text if own >= level else f"({text})"


def _infix(operation: str, args: tuple[Expression, ...]) -> tuple[int, str]:
    level, sign = _INFIX[operation]
    first = level + 1 if level == 4 or operation in CHAINS else level
    return level, sign.join([_within(args[0], first), *(_within(item, level + 1) for item in args[1:])])


def _test(operation: str, args: tuple[Expression, ...], negation: str) -> str:
    left, *others = (_within(item, 5) for item in args)
    match operation:
        case "is_null":
            return f"{left} IS {negation}NULL"
        case "in":
            return f"{left} {negation}IN ({', '.join(others)})"
        case "between":
            return f"{left} {negation}BETWEEN {others[0]} AND {others[1]}"
    return f"{left} {negation}LIKE {others[0]}"


def _case(args: tuple[Expression, ...]) -> str:
    branches = zip(args[:-1:2], args[1::2], strict=True)
    whens = " ".join(f"WHEN {to_text(condition)} THEN {to_text(value)}" for condition, value in branches)
    otherwise = "" if args[-1].operation == "null" else f" ELSE {to_text(args[-1])}"
    return f"CASE {whens}{otherwise} END"


def _literal(expression: Expression) -> tuple[int, str]:
    text = expression.value
    match expression.type.kind:
        case Kind.STRING:
            return 9, "'" + text.replace("'", "''") + "'"
        case Kind.BOOL:
            return 9, text.upper()
        case Kind.TIMESTAMP | Kind.DATE:
            return 9, f"{expression.type.kind.upper()} '{text}'"
        case Kind.FLOAT64 if "e" not in text:
            # Without an exponent it would be a decimal.
            text += "e0"
    return (8 if text.startswith("-") else 9), text
