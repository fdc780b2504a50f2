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
    directory: Path,
    table: str,
    schema: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    queries: Sequence[str],
    options: Mapping[str, str] | None = None,
    setup: Sequence[str] = (),
) -> list[list[Row]]:
    """The rows that each query gives over a table with these columns (SQL types) and rows; decimals as integers.

    `options` are Flink's; `setup` are statements that come first.
    """
    (directory / "rows.json").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    work = {"table": table, "schema": schema, "queries": queries, "options": options or {}, "setup": setup}
    (directory / "work.json").write_text(json.dumps(work))
    command = [sys.executable, "-m", "tests.support.flink_batch", str(directory)]
    with (directory / "flink.log").open("w") as log:
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True, stdout=log, stderr=log)
    return [[tuple(row) for row in found] for found in json.loads((directory / "found.json").read_text())]


def main(directory: Path) -> None:
    """Do what work.json asks over rows.json; write found.json."""
    from pyflink.table import EnvironmentSettings, TableEnvironment

    work = json.loads((directory / "work.json").read_text())
    environment = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    for name, value in ({"parallelism.default": "1"} | work["options"]).items():
        environment.get_config().set(name, value)
    for statement in work["setup"]:
        environment.execute_sql(statement)
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
