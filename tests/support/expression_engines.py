"""SQL texts through real engines: rows of physical values in, one list of physical values per text out.

Flink runs as a batch job in a process of its own (this module's `main`), whose JVM ends with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from coeval.settings import Settings
from coeval.spec.types import Kind, Physical
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
    """Through Flink SQL, in batch mode on a cluster inside a process of its own."""
    lines = (json.dumps({"number": n, **row}, ensure_ascii=False) for n, row in enumerate(rows))
    (directory / "rows.json").write_text("\n".join(lines))
    (directory / "queries.json").write_text(json.dumps(list(_queries(texts, 60))))
    command = [sys.executable, "-m", "tests.support.expression_engines", str(directory)]
    with (directory / "flink.log").open("w") as log:
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=log, stderr=log)
    return json.loads((directory / "found.json").read_text())  # type: ignore[no-any-return]


def main(directory: Path) -> None:
    """Run queries.json over rows.json in Flink; write found.json."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    environment = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    environment.get_config().set("parallelism.default", "1")
    schema = ", ".join(f"`{name}` {kind}" for name, kind in _SCHEMA.items())
    options = f"'connector' = 'filesystem', 'path' = '{directory / 'rows.json'}', 'format' = 'json'"
    environment.execute_sql(f"CREATE TEMPORARY TABLE events ({schema}) WITH ({options})")
    found: Columns = []
    for query in json.loads((directory / "queries.json").read_text()):
        with environment.execute_sql(query).collect() as result:
            found += _columns(result)
    (directory / "found.json").write_text(json.dumps(found))


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
