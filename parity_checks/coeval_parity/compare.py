"""Compare two columns of values, one served and one expected, value by value. Pure, vectorised; it knows numpy.

Exact types (integers, decimals, text, instants) match only when they are equal bit for bit. A float64 may differ by
1e-9 of the greater magnitude: that is `within_tolerance`. An UNAVAILABLE value never matches anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.online.result import Column, Status
from coeval.spec.types import DataType, Kind, Physical

TOLERANCE = 1e-9
"""Relative, and of float64 only."""


class Outcome(IntEnum):
    """What became of one comparison."""

    MATCH = 0
    WITHIN_TOLERANCE = 1
    MISMATCH = 2


@dataclass(frozen=True, slots=True)
class Values:
    """Expected values of one feature: physical values, and where they are null (the entry then means nothing)."""

    values: NDArray[Any]
    null: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One feature compared: an `Outcome` per key (int8), and the differences of numbers (0 where there is none).

    Differences are in the feature's own unit (decimals scaled), for display; `outcome` alone decides.
    """

    outcome: NDArray[np.int8]
    difference: NDArray[np.float64]
    smape: float
    """Symmetric mean absolute percentage error over keys with a number on both sides: 0 is equal, 2 the worst."""

    def count(self, outcome: Outcome) -> int:
        """How many comparisons came out so."""
        return int((self.outcome == outcome).sum())

    @property
    def mismatches(self) -> NDArray[np.int64]:
        """The indices of the keys that differ."""
        return np.flatnonzero(self.outcome == Outcome.MISMATCH).astype(np.int64)


def compare(served: Column, expected: Values) -> Comparison:
    """Compare what the online store serves with what the log says, key by key.

    Raises:
        ValueError: the columns differ in length.
    """
    if len(served.values) != len(expected.values):
        raise ValueError(f"{len(served.values)} served values for {len(expected.values)} expected ones")
    both = ~served.null & ~expected.null
    equal = _equal(served.values, expected.values, both)
    same = np.where(both, equal, served.null & expected.null)
    difference, scale = _difference(served.type, served.values, expected.values, both)
    outcome = np.where(same, Outcome.MATCH, Outcome.MISMATCH).astype(np.int8)
    if served.type.kind is Kind.FLOAT64:
        near = both & ~same & (difference <= TOLERANCE * scale)
        outcome[near] = Outcome.WITHIN_TOLERANCE
    outcome[served.status == Status.UNAVAILABLE] = Outcome.MISMATCH
    return Comparison(outcome, difference, _smape(served.type, served.values, expected.values, both, difference))


def _equal(served: NDArray[Any], expected: NDArray[Any], both: NDArray[np.bool_]) -> NDArray[np.bool_]:
    result = np.zeros(len(both), dtype=bool)
    if both.any():
        result[both] = served[both] == expected[both]
    return result


def _difference(
    data_type: DataType, served: NDArray[Any], expected: NDArray[Any], both: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    zeros = np.zeros(len(both), dtype=np.float64)
    if data_type.kind is Kind.STRING or not both.any():
        return zeros, zeros
    unit = 10.0**data_type.scale
    difference, scale = zeros.copy(), zeros.copy()
    # Subtracted as Python integers where int64 could wrap.
    left, right = (_wide(side[both]) for side in (served, expected))
    difference[both] = np.abs(left - right).astype(np.float64) / unit
    scale[both] = np.maximum(np.abs(left), np.abs(right)).astype(np.float64) / unit
    return difference, scale


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == object or values.dtype.kind == "f":
        return values
    small = len(values) == 0 or (int(values.max()) < 2**62 and int(values.min()) > -(2**62))
    return values if small else values.astype(object)


def _smape(
    data_type: DataType,
    served: NDArray[Any],
    expected: NDArray[Any],
    both: NDArray[np.bool_],
    difference: NDArray[np.float64],
) -> float:
    if data_type.kind is Kind.STRING or not both.any():
        return 0.0
    unit = 10.0**data_type.scale
    magnitude = (np.abs(served[both].astype(np.float64)) + np.abs(expected[both].astype(np.float64))) / unit
    parts = np.divide(2 * difference[both], magnitude, out=np.zeros(len(magnitude)), where=magnitude > 0)
    return float(parts.mean())


def value_in(column: Column | Values, row: int) -> Physical:
    """The physical value in a row of a column, as Python has it; None for null."""
    if column.null[row]:
        return None
    value = column.values[row]
    return value.item() if hasattr(value, "item") else value  # type: ignore[no-any-return]
