"""Row expressions as SQL over physical columns, for Flink, Spark and DuckDB. Pure text; `engine_sql` has the forms.

A node's text has the SQL type of its physical value (booleans: BIGINT 1, 0 or NULL). Two other forms exist inside:
a *condition* is a SQL BOOLEAN, and a *raw* float may still be infinite or NaN. Addition, subtraction, multiplication,
the dividend and CASE's values let such a float through as it is, so that one test at the end makes it NULL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coeval.spec.cast_sql import converted, narrowed, widened
from coeval.spec.engine_sql import DIALECTS, WIDE, Dialect
from coeval.spec.expressions import Expression, literal_value
from coeval.spec.operations import operands
from coeval.spec.signatures import PARTS, ExpressionError
from coeval.spec.types import BOOL, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind

LONGEST = 20_000
"""Characters of SQL that one expression may become; Flink compiles each into one method."""

_GREATEST = "1.7976931348623157E308"
_COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "mod": "%"}
_CLOCK = {"hour": (3_600_000_000, 24), "minute": (60_000_000, 60), "second": (1_000_000, 60)}
_CONDITIONS = frozenset({*_COMPARISONS, "and", "or", "not", "is_null", "in", "between", "like"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "mod", "idiv", "neg", "abs"})
_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"


def render(expression: Expression, dialect: str, column: Callable[[str], str]) -> str:
    """The SQL of an expression's physical value; `column` gives the SQL that reads a column's physical value.

    `dialect` is flink, spark or duckdb. Wide decimals are DECIMAL(38, 0).

    Raises:
        ExpressionError: it becomes too long.
        KeyError: no such dialect.
    """
    forms = DIALECTS[dialect]
    text = _Writer(forms, column).value(expression)
    return f"CAST({text} AS {WIDE})" if expression.type.is_wide and forms.wide != WIDE else text


def render_condition(expression: Expression, dialect: str, column: Callable[[str], str]) -> str:
    """The SQL of a boolean expression as a condition that is TRUE or FALSE, never NULL; else as `render`."""
    assert expression.type == BOOL
    return f"({_Writer(DIALECTS[dialect], column).condition(expression)}) IS TRUE"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes one expression in one dialect."""

    forms: Dialect
    column: Callable[[str], str]

    def value(self, node: Expression) -> str:
        """The physical value."""
        if node.operation in _CONDITIONS:
            return f"CAST({self.condition(node)} AS BIGINT)"
        text = self.raw(node)
        if _may_be_infinite(node):
            # Twice subtracted from zero, -0.0 becomes 0.0; Flink would drop an addition of zero.
            text = f"CASE WHEN ABS({text}) <= {_GREATEST} THEN 0E0 - (0E0 - {text}) END"
        return _short(text)

    def condition(self, node: Expression) -> str:
        """A SQL BOOLEAN; NULL where the value is."""
        if node.operation in _COMPARISONS:
            return _short(f"({f' {_COMPARISONS[node.operation]} '.join(self.ordered(node))})")
        match node.operation:
            case "and" | "or":
                return _short("(" + f" {node.operation.upper()} ".join(map(self.condition, operands(node))) + ")")
            case "not":
                return f"(NOT {self.condition(operands(node)[0])})"
            case "is_null":
                return f"({self.value(node.args[0])} IS NULL)"
            case "in":
                value, *others = map(self.value, operands(node))
                return f"({value} IN ({', '.join(others)}))"
            case "between":
                value, low, high = self.ordered(node)
                return _short(f"({value} BETWEEN {low} AND {high})")
            case "like":
                return f"({self.forms.like(self.value(node.args[0]), node.args[1].value)})"
        return f"({self.value(node)} = 1)"

    def ordered(self, node: Expression) -> list[str]:
        """The operands of a comparison, as what the engine compares."""
        parts = operands(node)
        by_bytes = parts[0].type == STRING and node.operation not in ("eq", "ne")
        return [self.forms.order_key(self.value(item)) if by_bytes else self.value(item) for item in parts]

    def raw(self, node: Expression) -> str:
        """The value, where a float need not be finite."""
        match node.operation:
            case "column":
                return self.read(node)
            case "literal":
                return self.literal(node)
            case "null":
                return f"CAST(NULL AS {self.forms.sql_type(node.type)})"
            case "cast":
                (source,) = node.args
                return converted(self.forms, self.raw_or_value(source), source.type, node.type)
            case _ if node.operation in _ARITHMETIC:
                return self.floats(node) if node.type == FLOAT64 else self.exact(node)
            case "case":
                return self.case(node)
            case _ if node.operation in PARTS:
                return self.part(node)
        return self.call(node)

    def read(self, node: Expression) -> str:
        text = self.column(node.value)
        return widened(self.forms, text) if node.type.is_wide and self.forms.wide != WIDE else text

    def literal(self, node: Expression) -> str:
        value = literal_value(node)
        if isinstance(value, str):
            return self.forms.literal(value)
        if isinstance(value, float):
            text = repr(value).upper().replace("+", "")
            return f"({text if 'E' in text else text + 'E0'})"
        return f"CAST('{value}' AS {self.forms.sql_type(node.type)})"

    def floats(self, node: Expression) -> str:
        if node.operation == "div":
            dividend, divisor = operands(node)
            return f"({self.forms.quotient(self.raw(dividend), self.value(divisor))})"
        parts = [self.raw(item) for item in operands(node)]
        if node.operation == "neg":
            return f"(- {parts[0]})"
        if node.operation == "abs":
            return f"ABS({parts[0]})"
        return f"({f' {_SIGNS[node.operation]} '.join(parts)})"

    def exact(self, node: Expression) -> str:
        parts = operands(node)
        texts = [self.value(item) for item in parts]
        if node.operation in ("mod", "idiv"):
            return self.divided(node, texts, parts[0].type)
        if node.type == INT64 or node.operation == "mul" or parts[0].type.is_wide:
            texts = [widened(self.forms, text) for text in texts]
        if node.operation in ("neg", "abs"):
            text = f"(- {texts[0]})" if node.operation == "neg" else f"ABS({texts[0]})"
            return narrowed(self.forms, text, node.type) if node.type == INT64 else text
        return narrowed(self.forms, f"({texts[0]} {_SIGNS[node.operation]} {texts[1]})", node.type)

    def divided(self, node: Expression, texts: list[str], shared: DataType) -> str:
        left, right = texts[0], f"NULLIF({texts[1]}, {self.zero(shared)})"
        if node.operation == "mod":
            wide = shared.is_wide
            return narrowed(self.forms, f"({left} % {right})", node.type) if wide else self.forms.remainder(left, right)
        if shared.kind is Kind.DECIMAL and not shared.is_wide:
            return f"({self.forms.whole_quotient(left, right)})"
        # The least int64 divided by -1 is beyond int64.
        return self.forms.to_int64(
            f"({self.forms.wide_quotient(widened(self.forms, left), widened(self.forms, right))})"
        )

    def zero(self, data_type: DataType) -> str:
        return f"CAST(0 AS {self.forms.sql_type(data_type)})"

    def case(self, node: Expression) -> str:
        parts = operands(node)
        branches = zip(parts[:-1:2], parts[1::2], strict=True)
        whens = " ".join(f"WHEN {self.condition(test)} THEN {self.raw_or_value(item)}" for test, item in branches)
        return f"CASE {whens} ELSE {self.raw_or_value(parts[-1])} END"

    def raw_or_value(self, node: Expression) -> str:
        return self.raw(node) if node.type == FLOAT64 else self.value(node)

    def part(self, node: Expression) -> str:
        text = self.value(node.args[0])
        if node.operation in _CLOCK:
            return self.forms.clock(text, *_CLOCK[node.operation])
        days = self.forms.days(text) if node.args[0].type == TIMESTAMP else text
        return self.forms.weekday(days) if node.operation == "dow" else self.forms.part(node.operation, days)

    def call(self, node: Expression) -> str:
        texts = [self.value(item) for item in operands(node)]
        match node.operation:
            case "lower":
                return f"TRANSLATE({texts[0]}, '{_UPPER}', '{_LOWER}')"
            case "upper":
                return f"TRANSLATE({texts[0]}, '{_LOWER}', '{_UPPER}')"
            case "length":
                return self.forms.length(texts[0])
            case "coalesce":
                return self.forms.coalesce(texts)
            case "concat":
                return f"({' || '.join(texts)})"
            case "substring":
                return f"SUBSTRING({texts[0]}, {node.args[1].value}, {node.args[2].value})"
        return f"{node.operation.upper()}({', '.join(texts)})"


def _may_be_infinite(node: Expression) -> bool:
    """Whether its raw float may be infinite or NaN, or a negative zero."""
    if node.type != FLOAT64:
        return False
    if node.operation == "case":
        return any(map(_may_be_infinite, [*node.args[1::2], node.args[-1]]))
    return node.operation in _ARITHMETIC


def _short(text: str) -> str:
    """The text, if it is not too long. Tested on the way up, as what is used twice in each step grows without bound."""
    if len(text) > LONGEST:
        raise ExpressionError(
            f"the expression becomes more than {LONGEST} characters of SQL", "Split it, or compute it in the producer."
        )
    return text
