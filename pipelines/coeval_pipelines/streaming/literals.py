"""Flink SQL of the literal grammar: text columns to physical values. Pure; it knows Flink's functions, no cluster.

Each expression is NULL where the text is absent or not a literal of the type, so that one test tells both. Calendar and
range rules that a pattern cannot say follow `coeval.spec.types.parse_literal` to the letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coeval.spec.model import Field
from coeval.spec.types import DataType, Kind, literal_pattern

_BIGINT_DIGITS = 18
_GREATEST_DOUBLE = "1.7976931348623157E308"
_DAY_MICROS = 86_400_000_000
_DAY_MINUTES = 1440


def quote(name: str) -> str:
    """An identifier, quoted."""
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def physical_column(name: str) -> str:
    """The physical column of a field: prefixed, so that no field can be taken for the envelope."""
    return quote(f"f:{name}")


def table(name: str, columns: Sequence[str], options: Mapping[str, str]) -> str:
    """The statement that makes a table known."""
    settings = lines([f"{text(key)} = {text(value)}" for key, value in options.items()])
    return f"CREATE TEMPORARY TABLE {quote(name)} (\n    {lines(columns)}\n) WITH (\n    {settings}\n)"


def lines(items: Sequence[str], separator: str = ",\n    ") -> str:
    """Items, one a line."""
    return separator.join(items)


def sql_type(data_type: DataType) -> str:
    """The SQL type of a physical value."""
    match data_type.kind:
        case Kind.STRING:
            return "STRING"
        case Kind.FLOAT64:
            return "DOUBLE"
        case Kind.DECIMAL if data_type.precision > _BIGINT_DIGITS:
            return "DECIMAL(38, 0)"
        case _:
            return "BIGINT"


def physical(field: Field) -> str:
    """The physical value of a field's text column; NULL where it is absent or no literal of the type."""
    column = quote(field.name)
    pattern = literal_pattern(field.type)
    if pattern is None:
        return column
    # \A and \z: a dollar sign would let a final line feed pass.
    whole = text(rf"\A(?:{pattern})\z")
    return f"CASE WHEN REGEXP({column}, {whole}) THEN {_converted(field.type, column)} END"


def is_valid(field: Field) -> str:
    """Whether a field may stand in a good event: a literal of its type, or absent where that is allowed."""
    if field.nullable:
        return f"({quote(field.name)} IS NULL OR {physical(field)} IS NOT NULL)"
    return f"{physical(field)} IS NOT NULL"


def _converted(data_type: DataType, column: str) -> str:
    match data_type.kind:
        case Kind.INT64:
            return f"TRY_CAST({column} AS BIGINT)"
        case Kind.FLOAT64:
            value = f"TRY_CAST({column} AS DOUBLE)"
            return f"CASE WHEN ABS({value}) <= {_GREATEST_DOUBLE} THEN {value} END"
        case Kind.DECIMAL:
            return _unscaled(data_type, column)
        case Kind.BOOL:
            return f"CASE WHEN {column} = 'true' THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END"
        case Kind.DATE:
            return f"CASE WHEN {column} >= '0001' THEN {_days(column)} END"
        case Kind.TIMESTAMP:
            return _micros(column)
        case _:
            return column


def _unscaled(data_type: DataType, column: str) -> str:
    """The digits without the point, zeros appended up to the scale: exact, and no decimal arithmetic."""
    digits = column
    if data_type.scale:
        point = f"POSITION('.' IN {column})"
        zeros = text("0" * data_type.scale)
        missing = f"{data_type.scale} - (CHAR_LENGTH({column}) - {point})"
        padding = f"CASE WHEN {point} = 0 THEN {zeros} ELSE SUBSTRING({zeros}, 1, {missing}) END"
        digits = f"CONCAT(REPLACE({column}, '.', ''), {padding})"
    return f"TRY_CAST({digits} AS {sql_type(data_type)})"


def _days(column: str) -> str:
    # Days fit an INT in any year; no finer difference does.
    return f"CAST(TIMESTAMPDIFF(DAY, DATE '1970-01-01', TRY_CAST(SUBSTRING({column}, 1, 10) AS DATE)) AS BIGINT)"


def _part(column: str, start: int, length: int) -> str:
    return f"CAST(SUBSTRING({column}, {start}, {length}) AS BIGINT)"


def _micros(column: str) -> str:
    """RFC 3339 text that passed the pattern, to microseconds since the epoch; NULL off the calendar or the clock."""
    seconds = f"{_part(column, 12, 2)} * 3600 + {_part(column, 15, 2)} * 60 + {_part(column, 18, 2)}"
    in_range = " AND ".join(
        [
            f"{column} >= '0001'",
            f"SUBSTRING({column}, 12, 2) <= '23'",
            f"SUBSTRING({column}, 15, 2) <= '59'",
            f"SUBSTRING({column}, 18, 2) <= '59'",
            f"{_offset_minutes(column, signed=False)} < {_DAY_MINUTES}",
        ]
    )
    total = (
        f"{_days(column)} * {_DAY_MICROS} + ({seconds}) * 1000000 + {_fraction(column)}"
        f" - {_offset_minutes(column, signed=True)} * 60000000"
    )
    return f"CASE WHEN {in_range} THEN {total} END"


def _fraction(column: str) -> str:
    digits = f"REGEXP_EXTRACT({column}, '[.]([0-9]+)', 1)"
    return f"CASE WHEN SUBSTRING({column}, 20, 1) = '.' THEN CAST(RPAD({digits}, 6, '0') AS BIGINT) ELSE 0 END"


def _offset_minutes(column: str, *, signed: bool) -> str:
    last = f"CHAR_LENGTH({column})"
    minutes = (
        f"CAST(SUBSTRING({column}, {last} - 4, 2) AS BIGINT) * 60 + CAST(SUBSTRING({column}, {last} - 1, 2) AS BIGINT)"
    )
    value = f"(CASE WHEN SUBSTRING({column}, {last} - 5, 1) = '-' THEN -1 ELSE 1 END) * ({minutes})"
    chosen = value if signed else minutes
    return f"(CASE WHEN SUBSTRING({column}, {last}, 1) = 'Z' THEN 0 ELSE {chosen} END)"
