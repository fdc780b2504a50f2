"""Expressions through real engines: rows of physical values in, one list of physical values per expression out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from coeval.settings import Settings
from coeval.spec.expressions import Expression
from coeval.spec.model import Computed, Field, RowView
from coeval.spec.types import BOOL, Kind, Physical, to_physical
from coeval_pipelines.offline.columns import logical_array, physical_array
from coeval_pipelines.offline.evaluated import SEEN, seen_rows
from tests.support import flink_batch
from tests.support.expressions import COLUMNS

Rows = Sequence[Mapping[str, Physical]]
Columns = list[list[Physical]]

_TYPES = {Kind.STRING: "STRING", Kind.FLOAT64: "DOUBLE"}
_SCHEMA = {"number": "BIGINT"} | {
    name: "DECIMAL(38, 0)" if data_type.is_wide else _TYPES.get(data_type.kind, "BIGINT")
    for name, data_type in COLUMNS.items()
}


def run_duckdb(texts: Sequence[str], rows: Rows) -> Columns:
    """Through DuckDB, one query each."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE events ({', '.join(f'{name} {kind}' for name, kind in _SCHEMA.items())})")
        places = ", ".join("?" * len(_SCHEMA))
        connection.executemany(
            f"INSERT INTO events VALUES ({places})", [[n, *row.values()] for n, row in enumerate(rows)]
        )
        found = [connection.execute(f"SELECT {text} FROM events ORDER BY number").fetchall() for text in texts]
    return [[_plain(row[0]) for row in column] for column in found]


def run_columns(expressions: Sequence[Expression], rows: Rows) -> Columns:
    """Without an engine: each as a column that a view computes, then those of type bool as its condition."""
    logical = {name: logical_array(kind, [row[name] for row in rows]) for name, kind in COLUMNS.items()}
    inputs = {name: physical_array(COLUMNS[name], column) for name, column in logical.items()}
    view = RowView("asked", (), (), "events", (), stream=True)
    found: Columns = []
    for item in expressions:
        columns = (Computed(Field("r", item.type), item),)
        computed = seen_rows(replace(view, columns=columns), _read(inputs, item), len(rows)).column("r")
        values = physical_array(item.type, computed).to_pylist()
        found.append([to_physical(item.type, value) if isinstance(value, Decimal) else value for value in values])
    for item in expressions:
        if item.type == BOOL:
            seen = seen_rows(replace(view, where=item), _read(inputs, item), len(rows)).column(SEEN)
            found.append([int(value) for value in seen.to_pylist()])
    return found


def _read(inputs: Mapping[str, pa.Array], expression: Expression) -> dict[str, pa.Array]:
    return {name: inputs[name] for name in sorted(expression.columns)}


def run_spark(settings: Settings, texts: Sequence[str], rows: Rows) -> Columns:
    """Through Spark SQL, in the session that production uses."""
    from coeval_pipelines.offline.session import spark_session

    schema = ", ".join(f"{name} {kind}" for name, kind in _SCHEMA.items())
    data = [[n, *map(_spark_value, row, row.values())] for n, row in enumerate(rows)]
    found: Columns = []
    with spark_session(settings) as session:
        session.createDataFrame(data, schema).createOrReplaceTempView("events")
        for query in _queries(texts, 50):
            found += _columns(session.sql(query).collect())
    return found


def run_flink(directory: Path, texts: Sequence[str], rows: Rows) -> Columns:
    """Through Flink SQL, in batch mode."""
    numbered = [{"number": n, **row} for n, row in enumerate(rows)]
    results = flink_batch.run(directory, "events", _SCHEMA, numbered, list(_queries(texts, 60)))
    return [column for result in results for column in _columns(result)]


def _queries(texts: Sequence[str], size: int) -> Iterator[str]:
    """Several expressions per query: the more, the fewer plans, and the longer each takes to compile."""
    for start in range(0, len(texts), size):
        named = ", ".join(f"{text} AS r{n}" for n, text in enumerate(texts[start : start + size]))
        yield f"SELECT `number`, {named} FROM events"


def _columns(rows: Iterable[Iterable[Any]]) -> Columns:
    ordered = sorted((tuple(row) for row in rows), key=lambda row: row[0])
    return [[_plain(value) for value in column] for column in list(zip(*ordered, strict=True))[1:]]


def _spark_value(name: str, value: Physical) -> object:
    return Decimal(value) if COLUMNS[name].is_wide and isinstance(value, int) else value


def _plain(value: Any) -> Physical:
    return int(value) if isinstance(value, Decimal) else value  # type: ignore[no-any-return]
