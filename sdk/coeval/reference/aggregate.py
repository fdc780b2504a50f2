"""What each aggregation is, said once more and as plainly as possible: fractions, no states, no merging. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from coeval.spec.types import DataType, Kind, Physical


class BeyondTypeError(ArithmeticError):
    """The value exists, and its type cannot hold it: OVERFLOW."""


def aggregate(
    function: str, values: Sequence[int | float], events: int, column: DataType | None, result: DataType
) -> Physical:
    """One aggregation over the non-null values of a column, in the total order of their events; None for null.

    `column` is None for a count of events. The value is physical (decimals unscaled) and exact; where the result is a
    float64 it is the exact one, rounded once (stddev: the square root of the rounded variance).

    Raises:
        BeyondTypeError: the result type cannot hold it.
    """
    if function == "count":
        return events if column is None else len(values)
    if not values:
        return None
    assert column is not None
    match function:
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "sum":
            total = sum(map(Fraction, values), Fraction(0))
            return _rounded(total) if column.kind is Kind.FLOAT64 else _whole(int(total), result)
        case "mean":
            return _rounded(_mean(values, column))
        case "variance":
            return _variance(values, column)
        case "stddev":
            return math.sqrt(_variance(values, column))
    raise ValueError(f"{function} is not an aggregation")


def _mean(values: Sequence[int | float], column: DataType) -> Fraction:
    total = sum(map(Fraction, values), Fraction(0)) / Fraction(10**column.scale)
    _rounded(total)  # a mean whose total no float64 holds is beyond its type too
    return total / len(values)


def _variance(values: Sequence[int | float], column: DataType) -> float:
    units = [Fraction(value) / 10**column.scale for value in values]
    mean = sum(units, Fraction(0)) / len(units)
    _rounded(sum((unit**2 for unit in units), Fraction(0)))  # and so is a variance whose squares none holds
    return _rounded(sum(((unit - mean) ** 2 for unit in units), Fraction(0)) / len(units))


def _rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise BeyondTypeError from error


def _whole(value: int, result: DataType) -> int:
    low, high = result.limits
    if not low <= value <= high:
        raise BeyondTypeError
    return value


def tolerance(function: str, values: Sequence[int | float], column: DataType | None) -> float:
    """How far an engine's float64 may be from `aggregate`: 1e-9 of the sum (mean, mean square) of magnitudes.

    0 where the input is exact: engines then agree bit for bit. For a stddev it bounds the difference of the squares.
    """
    if column is None or column.kind is not Kind.FLOAT64 or not values:
        return 0.0
    magnitudes = [abs(float(value)) for value in values]
    try:
        return _tolerance(function, magnitudes)
    except OverflowError:
        return math.inf


def _tolerance(function: str, magnitudes: Sequence[float]) -> float:
    match function:
        case "sum":
            return 1e-9 * math.fsum(magnitudes)
        case "mean":
            return 1e-9 * math.fsum(magnitudes) / len(magnitudes)
        case "variance" | "stddev":
            return 1e-9 * math.fsum(value * value for value in magnitudes) / len(magnitudes)
    return 0.0


def agree(function: str, left: Physical, right: Physical, bound: float) -> bool:
    """Whether two values of a feature are the same, floats within their bound."""
    if not isinstance(left, float) or not isinstance(right, float) or not bound:
        return left == right
    if function == "stddev":
        return abs(left * left - right * right) <= bound
    return abs(left - right) <= bound
