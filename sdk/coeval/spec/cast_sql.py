"""Conversions of physical values as SQL, alike in every engine. Pure text; `coeval.reference` says the same slowly."""

from __future__ import annotations

from coeval.spec.engine_sql import Dialect
from coeval.spec.signatures import INT64_DIGITS, NARROW
from coeval.spec.types import INT64, DataType, Kind

_INT64_FLOOR, _INT64_CEILING = "-9.223372036854775808E18", "9.223372036854775808E18"
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The days of the years 1 to 9999."""


def widened(forms: Dialect, text: str) -> str:
    """A whole number as the type of those of up to 38 digits."""
    return f"CAST({text} AS {forms.wide})"


def narrowed(forms: Dialect, text: str, target: DataType) -> str:
    """A whole number as the physical value of an exact type; NULL where the type does not hold it."""
    if target == INT64:
        return forms.to_int64(text)
    return f"CAST({forms.to_digits(text, target.precision)} AS {forms.sql_type(target)})"


def converted(forms: Dialect, text: str, source: DataType, target: DataType) -> str:
    """A physical value of one type as that of another; a float need not be finite."""
    match source.kind, target.kind:
        case (Kind.FLOAT64, Kind.INT64):
            inside = f"{text} >= {_INT64_FLOOR} AND {text} < {_INT64_CEILING}"
            return f"CASE WHEN {inside} THEN TRY_CAST({forms.truncated(text)} AS BIGINT) END"
        case (Kind.INT64 | Kind.DECIMAL, Kind.INT64 | Kind.DECIMAL):
            return _rescaled(forms, text, source, target)
        case (Kind.INT64 | Kind.DECIMAL, Kind.FLOAT64):
            return f"(CAST({text} AS DOUBLE){f' / 1E{source.scale}' if source.scale else ''})"
        case (Kind.INT64, Kind.STRING):
            return f"CAST({text} AS STRING)"
        case (Kind.BOOL, Kind.STRING):
            return f"CASE {text} WHEN 1 THEN {forms.literal('true')} WHEN 0 THEN {forms.literal('false')} END"
        case (Kind.TIMESTAMP, Kind.DATE):
            return forms.days(text)
        case (Kind.DATE, Kind.TIMESTAMP):
            return forms.midnight(text)
        case (Kind.DATE, Kind.STRING):
            date = f"CAST({forms.date(text)} AS STRING)"
            return f"CASE WHEN {text} BETWEEN {_FIRST_DAY} AND {_LAST_DAY} THEN {date} END"
    return text


def _rescaled(forms: Dialect, text: str, source: DataType, target: DataType) -> str:
    if source == target:
        return text
    shift = target.scale - source.scale
    if shift < 0:
        # The product keeps every digit, also in Flink (37 of 38); the cast rounds half away from zero.
        product = f"{forms.to_digits(text, NARROW)} * 0.{'1':0>{-shift}}"
        return narrowed(forms, f"CAST({product} AS DECIMAL({INT64_DIGITS}, 0))", target)
    factor = f" * {10**shift}" if shift else ""
    fits = target.kind is Kind.DECIMAL and _whole_digits(target) >= _whole_digits(source)
    if fits and not target.is_wide:
        return f"({text}{factor})"
    wide = f"({widened(forms, text)}{factor})"
    return wide if fits else narrowed(forms, wide, target)


def _whole_digits(data_type: DataType) -> int:
    return (data_type.precision or INT64_DIGITS) - data_type.scale
