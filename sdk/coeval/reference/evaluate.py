"""What a row expression is for one event, in plain Python over physical values; slow and obvious. Pure.

NULL is None. A result that its type cannot hold, a division by zero and a float that is not finite are NULL; nothing
raises. The rules are in docs/semantics.md, "Row expressions".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from coeval.spec.expressions import Expression, literal_value
from coeval.spec.operations import operands
from coeval.spec.types import DATE, DataType, Kind, Physical, to_logical

_DAY = 86_400_000_000
_DIVISIONS = {"div", "idiv", "mod"}


def evaluate(expression: Expression, values: Mapping[str, Physical]) -> Physical:
    """The physical value of an expression over the physical values of its columns.

    Raises:
        KeyError: a column that it reads is not among the values.
    """
    match expression.operation:
        case "column":
            return values[expression.value]
        case "literal":
            return literal_value(expression)
        case "null":
            return None
    return applied(expression, [evaluate(item, values) for item in operands(expression)])


def applied(expression: Expression, args: Sequence[Any]) -> Physical:
    """What the operation of a node makes of the physical values of its operands."""
    if expression.operation in _OWN_NULLS:
        return _OWN_NULLS[expression.operation](args)
    if any(item is None for item in args):
        return None
    if expression.operation == "cast":
        return _cast(args[0], expression.args[0].type, expression.type)
    if expression.operation in _CALENDAR:
        days, micros = (args[0], 0) if expression.args[0].type == DATE else divmod(args[0], _DAY)
        return _CALENDAR[expression.operation](days, micros)
    if expression.operation in _DIVISIONS and args[1] == 0:
        return None
    return _held(_RESULTS[expression.operation](*args), expression.type)


def _held(value: Any, data_type: DataType) -> Physical:
    """The value if its type holds it; else NULL."""
    match data_type.kind:
        case Kind.FLOAT64:
            return value + 0.0 if math.isfinite(value) else None
        case Kind.INT64 | Kind.DECIMAL:
            low, high = data_type.limits
            return int(value) if low <= value <= high else None
        case Kind.BOOL:
            return int(value)
    return value  # type: ignore[no-any-return]


def _cast(value: Any, source: DataType, target: DataType) -> Physical:
    match source.kind, target.kind:
        case (Kind.BOOL, Kind.STRING):
            return "true" if value else "false"
        case (Kind.DATE, Kind.STRING):
            first, last = date.min.toordinal(), date.max.toordinal()
            return str(to_logical(DATE, value)) if first <= value + _EPOCH <= last else None
        case (Kind.TIMESTAMP, Kind.DATE):
            return int(value // _DAY)
        case (Kind.DATE, Kind.TIMESTAMP):
            return int(value * _DAY)
        case (_, Kind.STRING):
            return str(value)
        case (Kind.INT64 | Kind.DECIMAL, Kind.FLOAT64):
            return float(value) / float(10**source.scale)
        case (Kind.FLOAT64, Kind.INT64):
            return _held(math.trunc(value), target)
        case (Kind.INT64 | Kind.DECIMAL, Kind.INT64 | Kind.DECIMAL):
            return _held(_rescaled(value, target.scale - source.scale), target)
    return value  # type: ignore[no-any-return]


def _rescaled(value: int, shift: int) -> int:
    """The unscaled integer at another scale; digits that go are rounded half away from zero."""
    if shift >= 0:
        return int(value * 10**shift)
    whole, rest = divmod(abs(value), int(10**-shift))
    rounded = whole + (2 * rest >= 10**-shift)
    return int(-rounded if value < 0 else rounded)


def _quotient(left: int, right: int) -> int:
    """Division of integers towards zero."""
    whole = abs(left) // abs(right)
    return -whole if (left < 0) != (right < 0) else whole


def _case(args: Sequence[Any]) -> Physical:
    for condition, value in zip(args[:-1:2], args[1::2], strict=True):
        if condition:
            return value  # type: ignore[no-any-return]
    return args[-1]  # type: ignore[no-any-return]


def _and(args: Sequence[Any]) -> Physical:
    if any(item == 0 for item in args):
        return 0
    return None if None in args else 1


def _or(args: Sequence[Any]) -> Physical:
    negated = _and([None if item is None else 1 - item for item in args])
    return None if negated is None else 1 - int(negated)


def _between(args: Sequence[Any]) -> Physical:
    value, low, high = args
    above = None if value is None or low is None else int(_key(value) >= _key(low))
    below = None if value is None or high is None else int(_key(value) <= _key(high))
    return _and([above, below])


def _key(value: Any) -> Any:
    """What values are ordered by: strings by the bytes of their UTF-8."""
    return value.encode() if isinstance(value, str) else value


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_UPPER = {lower: upper for upper, lower in _LOWER.items()}


def _matches(text: str, pattern: str) -> bool:
    parts = {"%": ".*", "_": "."}
    return bool(re.fullmatch("".join(parts.get(c, re.escape(c)) for c in pattern), text, re.DOTALL))


_EPOCH = date(1970, 1, 1).toordinal()


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day of the Gregorian calendar, also before it was in use and beyond year 9999."""
    eras, ordinal = divmod(days + _EPOCH - 1, 146_097)
    found = date.fromordinal(ordinal + 1)
    return found.year + 400 * eras, found.month, found.day


_OWN_NULLS: Mapping[str, Callable[[Sequence[Any]], Physical]] = {
    "case": _case,
    "coalesce": lambda args: next((item for item in args if item is not None), None),
    "nullif": lambda args: None if None not in args and args[0] == args[1] else args[0],
    "is_null": lambda args: int(args[0] is None),
    "and": _and,
    "or": _or,
    "between": _between,
}
"""Operations for which NULL is a value like others; all else is NULL where an argument is."""

_CALENDAR: Mapping[str, Callable[[int, int], int]] = {
    "year": lambda days, micros: _civil(days)[0],
    "month": lambda days, micros: _civil(days)[1],
    "day": lambda days, micros: _civil(days)[2],
    "dow": lambda days, micros: (days + 3) % 7 + 1,
    "hour": lambda days, micros: micros // 3_600_000_000,
    "minute": lambda days, micros: micros // 60_000_000 % 60,
    "second": lambda days, micros: micros // 1_000_000 % 60,
}

_RESULTS: Mapping[str, Callable[..., Any]] = {
    "add": lambda left, right: left + right,
    "sub": lambda left, right: left - right,
    "mul": lambda left, right: left * right,
    "div": lambda left, right: left / right,
    "idiv": _quotient,
    "mod": lambda left, right: left - right * _quotient(left, right),
    "neg": lambda value: -value,
    "abs": abs,
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: _key(left) < _key(right),
    "le": lambda left, right: _key(left) <= _key(right),
    "gt": lambda left, right: _key(left) > _key(right),
    "ge": lambda left, right: _key(left) >= _key(right),
    "in": lambda value, *others: value in others,
    "not": lambda value: not value,
    "lower": lambda text: text.translate(_LOWER),
    "upper": lambda text: text.translate(_UPPER),
    "length": len,
    "concat": lambda *texts: "".join(texts),
    "substring": lambda text, start, length: text[start - 1 : start - 1 + length],
    "like": _matches,
}
