"""Flink SQL over a table of physical values, as batch jobs in a process of its own, whose JVM ends with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
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
    answers = [directory / f"answer{number}" for number in range(len(work["queries"]))]
    # By files: a row that PyFlink fetches costs it a thousand times more. In one job: to start one costs a second.
    together = environment.create_statement_set()
    for query, answer in zip(work["queries"], answers, strict=True):
        table = environment.sql_query(query)
        together.add_insert(_sink(table, answer), table)
    together.execute().wait()
    (directory / "found.json").write_text(json.dumps([list(_rows(answer)) for answer in answers]))


def _sink(table: Any, directory: Path) -> Any:
    from pyflink.table import Schema, TableDescriptor

    schema = Schema.new_builder().from_resolved_schema(table.get_resolved_schema()).build()
    files = TableDescriptor.for_connector("filesystem").schema(schema).option("path", str(directory)).format("json")
    return files.option("json.encode.decimal-as-plain-number", "true").build()


def _rows(directory: Path) -> Iterator[list[Any]]:
    for path in sorted(directory.glob("part-*")):
        for line in filter(None, path.read_bytes().split(b"\n")):
            yield list(json.loads(line).values())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
