"""Flink SQL over a table of physical values, as batch jobs in a process of its own, whose JVM ends with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


def run(
    directory: Path, table: str, schema: Mapping[str, str], rows: Sequence[Mapping[str, Any]], queries: Sequence[str]
) -> list[list[Row]]:
    """The rows that each query gives over a table with these columns (SQL types) and rows; decimals as integers."""
    (directory / "rows.json").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    (directory / "work.json").write_text(json.dumps({"table": table, "schema": schema, "queries": queries}))
    command = [sys.executable, "-m", "tests.support.flink_batch", str(directory)]
    with (directory / "flink.log").open("w") as log:
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=log, stderr=log)
    return [[tuple(row) for row in found] for found in json.loads((directory / "found.json").read_text())]


def main(directory: Path) -> None:
    """Do what work.json asks over rows.json; write found.json."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    work = json.loads((directory / "work.json").read_text())
    environment = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    environment.get_config().set("parallelism.default", "1")
    columns = ", ".join(f"`{name}` {kind}" for name, kind in work["schema"].items())
    options = f"'connector' = 'filesystem', 'path' = '{directory / 'rows.json'}', 'format' = 'json'"
    environment.execute_sql(f"CREATE TEMPORARY TABLE `{work['table']}` ({columns}) WITH ({options})")
    found: list[list[Row]] = []
    for query in work["queries"]:
        with environment.execute_sql(query).collect() as result:
            found.append([tuple(_plain(value) for value in row) for row in result])
    (directory / "found.json").write_text(json.dumps(found))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
