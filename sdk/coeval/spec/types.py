"""Data types and the one literal grammar per type that every engine applies. Pure.

A value has two forms. The *logical* form is what users see (int, float, Decimal, str, bool). The *physical* form is
what tiles, partial states and stores hold: decimals as their unscaled integer, timestamps as microseconds since the
epoch UTC, dates as days since the epoch, booleans as 0 or 1; strings and floats as they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

Physical: TypeAlias = int | float | str | None
Logical: TypeAlias = int | float | Decimal | str | bool | datetime | date | None


class Kind(StrEnum):
    """The kinds of type that a field may have."""

    INT64 = "int64"
    FLOAT64 = "float64"
    DECIMAL = "decimal"
    STRING = "string"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class DataType:
    """A field's type. `precision` and `scale` are meant for decimals only (precision at most 38)."""

    kind: Kind
    precision: int = 0
    scale: int = 0

    def __post_init__(self) -> None:
        if self.kind is Kind.DECIMAL and not (0 < self.precision <= 38 and 0 <= self.scale <= self.precision):
            raise ValueError(
                f"decimal({self.precision},{self.scale}) needs 0 < precision <= 38, 0 <= scale <= precision"
            )

    def __str__(self) -> str:
        return f"decimal({self.precision},{self.scale})" if self.kind is Kind.DECIMAL else self.kind.value

    @property
    def is_exact_number(self) -> bool:
        """True for int64 and decimals: arithmetic on them is exact."""
        return self.kind in (Kind.INT64, Kind.DECIMAL)

    @property
    def is_wide(self) -> bool:
        """True for decimals of more than 18 digits: a physical value takes 16 bytes instead of 8."""
        return self.precision > 18

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest physical value of an int64 or decimal."""
        greatest = 10**self.precision - 1 if self.kind is Kind.DECIMAL else INT64_MAX
        return (-greatest if self.kind is Kind.DECIMAL else INT64_MIN), greatest

    @staticmethod
    @lru_cache(maxsize=256)
    def parse(text: str) -> DataType:
        """Read the form that `str` writes.

        Raises:
            ValueError: no such type.
        """
        if match := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", text):
            return DataType(Kind.DECIMAL, int(match[1]), int(match[2]))
        return DataType(Kind(text))


INT64 = DataType(Kind.INT64)
FLOAT64 = DataType(Kind.FLOAT64)
STRING = DataType(Kind.STRING)
BOOL = DataType(Kind.BOOL)
TIMESTAMP = DataType(Kind.TIMESTAMP)
DATE = DataType(Kind.DATE)

_PATTERNS = {
    Kind.INT64: r"-?(0|[1-9][0-9]{0,18})",
    Kind.FLOAT64: r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?",
    Kind.BOOL: r"true|false",
    Kind.TIMESTAMP: r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})",
    Kind.DATE: r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
}


@lru_cache(maxsize=256)
def literal_pattern(data_type: DataType) -> str | None:
    """The regular expression that a literal of this type matches as a whole; None where any text does.

    The syntax is the subset that Python, Java (Flink, Spark) and RE2 read alike. It decides the shape; a range that a
    pattern cannot say (int64, calendar) is checked by the conversion that follows.
    """
    if data_type.kind is not Kind.DECIMAL:
        return _PATTERNS.get(data_type.kind)
    whole = data_type.precision - data_type.scale
    integer = "0" if whole == 0 else f"(0|[1-9][0-9]{{0,{whole - 1}}})"
    return f"-?{integer}" + (rf"(\.[0-9]{{1,{data_type.scale}}})?" if data_type.scale else "")


@lru_cache(maxsize=256)
def _compiled(data_type: DataType) -> re.Pattern[str] | None:
    pattern = literal_pattern(data_type)
    return None if pattern is None else re.compile(pattern, re.ASCII)


def parse_literal(data_type: DataType, text: str) -> Physical:
    """The physical value of a literal.

    Raises:
        ValueError: the text is not a literal of this type.
    """
    pattern = _compiled(data_type)
    if pattern is not None and not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is not a literal of {data_type}")
    match data_type.kind:
        case Kind.INT64:
            return _in_int64(int(text))
        case Kind.FLOAT64:
            return _finite(float(text))
        case Kind.DECIMAL:
            return unscaled(Decimal(text), data_type)
        case Kind.BOOL:
            return int(text == "true")
        case Kind.TIMESTAMP:
            return micros(datetime.fromisoformat(text))
        case Kind.DATE:
            return date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL
        case Kind.STRING:
            return _in_utf8(text)


_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _in_utf8(text: str) -> str:
    # JSON can escape half of a surrogate pair, which no engine can store.
    text.encode()
    return text


def _in_int64(value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError(f"{value} is beyond int64")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a float must be finite")
    return value + 0.0  # there is one zero: -0.0 is the same value, and must not depend on which came first


def micros(instant: datetime) -> int:
    """Microseconds since the epoch of a zoned instant, exactly.

    Raises:
        ValueError: the instant has no time zone.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone; naive datetimes mean nothing here")
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def instant(value: int) -> datetime:
    """The UTC instant of microseconds since the epoch."""
    from datetime import timedelta

    return _EPOCH + timedelta(microseconds=value)


@lru_cache(maxsize=10_000)
def iso(value: int, *, seconds: bool = False) -> str:
    """Microseconds since the epoch as RFC 3339, UTC, as commands take it: 2026-11-20T23:58:01.250000Z.

    Without the fraction where it is 0; `seconds` leaves it out everywhere.
    """
    text = instant(value).isoformat(timespec="seconds" if seconds else "auto")
    return text.removesuffix("+00:00") + "Z"


def unscaled(value: Decimal, data_type: DataType) -> int:
    """The unscaled integer of a decimal.

    Raises:
        ValueError: it has more digits, before or after the point, than the type holds, or is not finite.
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("a decimal must be finite")
    number = int("".join(map(str, digits))) if digits else 0
    shift = exponent + data_type.scale
    whole, rest = (number * 10**shift, 0) if shift >= 0 else divmod(number, int(10**-shift))
    if rest or whole >= 10**data_type.precision:
        raise ValueError(f"{value} does not fit {data_type}")
    return int(-whole if sign else whole)


def to_logical(data_type: DataType, value: Physical) -> Logical:
    """The form that users see of a physical value."""
    if value is None:
        return None
    match data_type.kind:
        case Kind.DECIMAL:
            # From text: arithmetic would round to the 28 digits of the default context.
            return Decimal(f"{int(value)}e-{data_type.scale}")
        case Kind.BOOL:
            return bool(value)
        case Kind.TIMESTAMP:
            return instant(int(value))
        case Kind.DATE:
            return date.fromordinal(int(value) + _EPOCH_ORDINAL)
        case _:
            return value


def to_physical(data_type: DataType, value: object) -> Physical:
    """The physical form of a value that a user or a file gave.

    Raises:
        ValueError: the value is not of this type.
    """
    if value is None:
        return None
    match data_type.kind, value:
        case (Kind.BOOL, bool()):
            return int(value)
        case (Kind.INT64, int()) if not isinstance(value, bool):
            return _in_int64(value)
        case (Kind.FLOAT64, int() | float()) if not isinstance(value, bool):
            return _finite(float(value))
        case (Kind.DECIMAL, Decimal()):
            return unscaled(value, data_type)
        case (Kind.DECIMAL, int()) if not isinstance(value, bool):
            return unscaled(Decimal(value), data_type)
        case (Kind.STRING, str()):
            return value
        case (Kind.TIMESTAMP, datetime()):
            return micros(value)
        case (Kind.DATE, date()) if not isinstance(value, datetime):
            return value.toordinal() - _EPOCH_ORDINAL
        case _:
            raise ValueError(f"{value!r} ({type(value).__name__}) is not a {data_type}")
