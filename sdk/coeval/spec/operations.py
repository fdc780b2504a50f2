"""The operations of row expressions: what each takes, gives and computes on. Pure.

`typed` makes the nodes of a tree; `operands` says what a node computes on: its arguments, brought to the types that
the operation works in. The reference and the SQL of every engine start from the same operands, so that only the
operation itself is written more than once. The meaning of each is in docs/semantics.md, "Row expressions".
"""

from __future__ import annotations

from collections.abc import Mapping

from coeval.spec.expressions import CHAINS, Expression, constant, literal_value, null
from coeval.spec.signatures import (
    CASTS,
    INT64_DIGITS,
    NARROW,
    RULES,
    WIDEST,
    ExpressionError,
    shown,
    signature_of,
)
from coeval.spec.types import FLOAT64, INT64_MIN, DataType, Kind


def typed(operation: str, *args: Expression) -> Expression:
    """The node of an operation over these arguments; a NULL among them takes the type that is needed there.

    Raises:
        ExpressionError: there is no such operation, or it does not take such arguments.
    """
    if operation not in RULES:
        raise ExpressionError(f"there is no operation {operation}", f"Use one of: {', '.join(sorted(RULES))}.")
    if operation in CHAINS:
        args = tuple(part for item in args for part in (item.args if item.operation == operation else (item,)))
    signature = signature_of(operation, args)
    if operation == "neg" and args[0].operation == "literal":
        value = literal_value(args[0])
        if isinstance(value, float) or value != INT64_MIN:
            return constant(args[0].type, -value)  # type: ignore[operator]
    filled = (
        null(data_type) if item.operation == "null" else item
        for item, data_type in zip(args, signature.operands, strict=True)
    )
    return Expression(operation, signature.result, tuple(filled))


def cast(argument: Expression, target: DataType) -> Expression:
    """The node that converts a value. What does not fit the target is NULL; a lost digit rounds half away from zero.

    Raises:
        ExpressionError: no engine may make this conversion, or the engines do not agree on it.
    """
    if argument.operation == "null":
        return Expression("cast", target, (null(target),))
    source = argument.type
    if source != target and not _castable(source, target):
        fix = _CAST_FIXES.get((source.kind, target.kind)) or _CAST_FIXES.get((source.kind, None)) or CASTS
        if source.is_exact_number and target.is_exact_number:
            fix = f"Over {NARROW} digits only a wider type of at least the same scale, or the same scale, is possible."
        raise ExpressionError(f"{source} cannot be cast to {target}: {shown(argument)}", fix)
    return Expression("cast", target, (argument,))


def substituted(expression: Expression, columns: Mapping[str, Expression]) -> Expression:
    """The expression with these put in the place of columns, typed anew: a constant may need a narrower type.

    Raises:
        ExpressionError: it has no meaning with them.
    """
    if expression.operation == "column":
        return columns.get(expression.value, expression)
    if not expression.args:
        return expression
    args = [substituted(item, columns) for item in expression.args]
    return cast(args[0], expression.type) if expression.operation == "cast" else typed(expression.operation, *args)


def operands(expression: Expression) -> tuple[Expression, ...]:
    """What a node computes on: its arguments, converted to the types in which the operation works."""
    if expression.operation == "cast":
        return expression.args
    wanted = signature_of(expression.operation, expression.args).operands
    return tuple(_converted(item, target) for item, target in zip(expression.args, wanted, strict=True))


def _converted(argument: Expression, target: DataType) -> Expression:
    """The argument in a type that holds it; constants are converted here and now."""
    if argument.type == target:
        return argument
    if argument.operation == "null":
        return null(target)
    if argument.operation == "literal":
        value, scale = literal_value(argument), argument.type.scale
        assert isinstance(value, int)
        exact = target.is_exact_number
        return constant(target, value * 10 ** (target.scale - scale) if exact else float(value) / float(10**scale))
    return cast(argument, target)


_CAST_PAIRS = frozenset(
    {
        (Kind.FLOAT64, Kind.INT64),
        (Kind.INT64, Kind.FLOAT64),
        (Kind.INT64, Kind.STRING),
        (Kind.BOOL, Kind.STRING),
        (Kind.BOOL, Kind.INT64),
        (Kind.DATE, Kind.STRING),
        (Kind.TIMESTAMP, Kind.DATE),
        (Kind.DATE, Kind.TIMESTAMP),
    }
)


def _castable(source: DataType, target: DataType) -> bool:
    if source.is_exact_number and target.is_exact_number:
        digits, shift = source.precision or INT64_DIGITS, target.scale - source.scale
        return digits + shift <= WIDEST if shift >= 0 else digits <= NARROW
    if source.kind is Kind.DECIMAL:
        return target == FLOAT64 and source.precision <= NARROW
    return (source.kind, target.kind) in _CAST_PAIRS


_CAST_FIXES: Mapping[tuple[Kind, Kind | None], str] = {
    (Kind.STRING, None): "Declare the column with that type in its source: there one grammar holds in every engine.",
    (Kind.FLOAT64, Kind.DECIMAL): "Engines round it differently: declare the column as decimal in its source.",
    (Kind.FLOAT64, Kind.STRING): "Engines write floats differently: CAST it to int64 first.",
    (Kind.DECIMAL, Kind.STRING): "Engines write decimals differently: CAST it to int64 first.",
    (Kind.TIMESTAMP, Kind.STRING): "Engines write instants differently: CAST it to date first.",
    **{(kind, Kind.BOOL): "Compare it: x <> 0." for kind in (Kind.INT64, Kind.DECIMAL, Kind.FLOAT64)},
}
