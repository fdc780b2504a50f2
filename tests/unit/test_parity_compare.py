"""Comparison: exact types bit for bit, floats within their tolerance, UNAVAILABLE never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.online.result import Column, Status
from coeval.spec.types import FLOAT64, INT64, STRING, DataType
from coeval_parity.compare import Outcome, Values, compare

MONEY = DataType.parse("decimal(38,2)")


def _column(data_type: DataType, values: list[Any], status: int = Status.PRESENT) -> Column:
    expected = _values(data_type, values)
    codes = np.where(expected.null, Status.NULL, status).astype(np.int8)
    return Column(data_type, expected.values, expected.null, codes)


def _values(data_type: DataType, values: list[Any]) -> Values:
    null = np.array([value is None for value in values], dtype=bool)
    if data_type == STRING:
        return Values(np.array(values, dtype=object), null)
    filled = np.array([0 if value is None else value for value in values])
    return Values(filled.astype(np.float64) if data_type == FLOAT64 else filled, null)


def _outcomes(data_type: DataType, served: list[Any], expected: list[Any]) -> list[int]:
    return [int(code) for code in compare(_column(data_type, served), _values(data_type, expected)).outcome]


def test_integers_match_only_when_equal_also_beyond_doubles() -> None:
    assert _outcomes(INT64, [2**53, 2**63 - 1, 5], [2**53 + 1, 2**63 - 1, 5]) == [2, 0, 0]


def test_decimals_beyond_int64_are_compared_exactly() -> None:
    found = compare(_column(MONEY, [10**30, 7]), _values(MONEY, [10**30 + 1, 7]))
    assert found.outcome.tolist() == [Outcome.MISMATCH, Outcome.MATCH]
    assert found.difference.tolist() == [0.01, 0.0]


def test_extreme_integers_differ_by_what_they_differ() -> None:
    found = compare(_column(INT64, [2**63 - 1]), _values(INT64, [-(2**63)]))
    assert found.difference.tolist() == [2.0**64]


def test_null_matches_null_and_nothing_else() -> None:
    assert _outcomes(INT64, [None, None, 0], [None, 0, None]) == [0, 2, 2]
    assert _outcomes(STRING, [None, "", "a"], [None, None, "b"]) == [0, 2, 2]


def test_what_stands_under_a_null_does_not_matter() -> None:
    served = Column(INT64, np.array([17]), np.array([True]), np.array([Status.NULL], dtype=np.int8))
    assert compare(served, Values(np.array([99]), np.array([True]))).outcome.tolist() == [Outcome.MATCH]


def test_an_unavailable_value_never_matches() -> None:
    null = np.array([True])
    served = Column(INT64, np.array([0]), null, np.array([Status.UNAVAILABLE], dtype=np.int8))
    assert compare(served, Values(np.array([0]), null)).outcome.tolist() == [Outcome.MISMATCH]


def test_floats_are_within_tolerance_and_said_to_be() -> None:
    served, expected = [1.0, 1.0, 1.0, 1e12], [1.0, 1.0 + 1e-12, 1.0 + 1e-6, 1e12 + 1]
    assert _outcomes(FLOAT64, served, expected) == [0, 1, 2, 1]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 served values for 2 expected"):
        compare(_column(INT64, [1]), _values(INT64, [1, 2]))


def test_no_keys_compare_to_nothing() -> None:
    found = compare(_column(INT64, []), _values(INT64, []))
    assert (found.outcome.size, found.smape) == (0, 0.0)


_EXACT = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))


@given(st.lists(st.tuples(_EXACT, _EXACT), min_size=1, max_size=30))
def test_exact_comparison_is_pythons_equality(pairs: list[tuple[int | None, int | None]]) -> None:
    served, expected = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    wanted = [Outcome.MATCH if left == right else Outcome.MISMATCH for left, right in pairs]
    left = Column(INT64, *_typed(served), np.zeros(len(pairs), dtype=np.int8))
    assert compare(left, Values(*_typed(expected))).outcome.tolist() == wanted


def _typed(values: list[int | None]) -> tuple[Any, Any]:
    null = np.array([value is None for value in values], dtype=bool)
    return np.array([0 if value is None else value for value in values], dtype=np.int64), null
