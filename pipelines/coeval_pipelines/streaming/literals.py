"""How Flink SQL is written: names, texts, tables, and the SQL types of physical values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coeval.spec.types import DataType, Kind

VIEW, VIEW_AS = "CREATE TEMPORARY VIEW ", " AS\n"
_BIGINT_DIGITS = 18


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


def view(name: str, query: str) -> str:
    """The statement that gives a query a name: `VIEW`, the quoted name, `VIEW_AS`, the query."""
    return f"{VIEW}{quote(name)}{VIEW_AS}{query}"


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
