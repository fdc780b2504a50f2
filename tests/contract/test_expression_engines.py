"""Row expressions mean the same in the reference, DuckDB, Spark and Flink: generated ones, compared bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from coeval.reference.evaluate import evaluate
from coeval.spec import cast_sql, dialects, engine_sql
from coeval.spec.dialects import render, render_condition
from coeval.spec.expressions import Expression, to_text
from coeval.spec.signatures import RULES
from coeval.spec.types import BOOL, Physical
from coeval_pipelines.local.artefacts import ensure_jars
from coeval_pipelines.local.prepare import free_settings
from tests.support.expression_engines import Columns, Rows, run_columns, run_duckdb, run_flink, run_spark
from tests.support.expressions import CASTS, Generator, differences, operations, rows

SEED = 20260320
EXPRESSIONS = 360
ROWS = 220


@dataclass(frozen=True)
class World:
    """Expressions, rows, and what the reference makes of them; a bool is looked at as a value and as a condition."""

    expressions: list[Expression]
    rows: Rows
    expected: Columns

    @property
    def conditions(self) -> list[Expression]:
        return [item for item in self.expressions if item.type == BOOL]

    def texts(self, dialect: str) -> list[str]:
        """What an engine is asked, in the order of `expected`."""
        quote: Callable[[str], str] = str if dialect == "duckdb" else "`{}`".format
        conditions = (render_condition(item, dialect, quote) for item in self.conditions)
        return [
            *(render(item, dialect, quote) for item in self.expressions),
            *(f"CASE WHEN {text} THEN 1 ELSE 0 END" for text in conditions),
        ]

    def wrong(self, found: Columns) -> list[tuple[str, dict[str, Physical], Physical, Physical]]:
        """What differs, first per expression: its text, the values that it read, expected, found."""
        asked = self.expressions + self.conditions
        firsts = {
            number: (row, left, right) for number, row, left, right in reversed(differences(self.expected, found))
        }
        return [
            (to_text(asked[number]), {name: self.rows[row][name] for name in asked[number].columns}, left, right)
            for number, (row, left, right) in firsts.items()
        ]


@pytest.fixture(scope="module")
def world() -> World:
    print(f"seed {SEED}")
    drawn, over = Generator(SEED).expressions(EXPRESSIONS), rows(SEED, ROWS)
    values = [[evaluate(item, row) for row in over] for item in drawn]
    known = [
        [int(value == 1) for value in column] for item, column in zip(drawn, values, strict=True) if item.type == BOOL
    ]
    return World(drawn, over, values + known)  # type: ignore[operator]


def test_every_operation_and_every_cast_is_among_them(world: World) -> None:
    used = Counter(name for item in world.expressions for name in operations(item))
    wanted = set(RULES) | CASTS
    assert {name: used[name] for name in wanted if used[name] < 3} == {}
    values = [value for column in world.expected for value in column]
    assert sum(value is not None for value in values) > len(values) / 2


def test_duckdb_gives_what_the_reference_gives(world: World) -> None:
    assert world.wrong(run_duckdb(world.texts("duckdb"), world.rows)) == []


def test_columns_without_an_engine_give_what_the_reference_gives(world: World) -> None:
    assert world.wrong(run_columns(world.expressions, world.rows)) == []


def test_spark_gives_what_the_reference_gives(world: World, tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    ensure_jars(settings)
    assert world.wrong(run_spark(settings, world.texts("spark"), world.rows)) == []


def test_flink_gives_what_the_reference_gives(world: World, tmp_path: Path) -> None:
    assert world.wrong(run_flink(tmp_path, world.texts("flink"), world.rows)) == []


MUTATIONS: dict[str, tuple[object, str, object]] = {
    "comparison is strict where it should not be": (dialects, "_COMPARISONS", {**dialects._COMPARISONS, "le": "<"}),
    "infinite floats are kept": (dialects, "_may_be_infinite", lambda node: False),
    "numbers beyond int64 wrap": (
        engine_sql.DuckDB, "to_int64", lambda self, wide: f"CAST(({wide}) % 9223372036854775807 AS BIGINT)",
    ),
    "division rounds": (engine_sql.DuckDB, "whole_quotient", lambda self, a, b: f"CAST({a} / {b} AS BIGINT)"),
    "the remainder is never negative": (
        engine_sql.DuckDB, "remainder", lambda self, a, b: f"CAST(ABS(CAST({a} AS HUGEINT) % {b}) AS BIGINT)",
    ),
    "casts of floats round": (engine_sql.DuckDB, "truncated", lambda self, text: text),
    "a cast to fewer digits cuts": (cast_sql, "NARROW", 17),
    "length counts bytes": (engine_sql.DuckDB, "length", lambda self, text: f"STRLEN({text})"),
    "letters beyond ASCII change": (dialects, "_UPPER", dialects._UPPER[:-1] + "ä"),
    "the week begins on Sunday": (engine_sql, "_DOW_SHIFT", engine_sql._DOW_SHIFT + 1),
    "days begin an hour late": (
        engine_sql.DuckDB, "shifted", lambda self, micros: f"({micros} + {10**6 * 86_400_000_000 - 3_600_000_000})",
    ),
    "like ignores case": (
        engine_sql.DuckDB, "like", lambda self, text, pattern: f"{text} ILIKE {self.literal(pattern)}",
    ),
    "the last of COALESCE wins": (
        engine_sql.DuckDB, "coalesce", lambda self, values: f"COALESCE({', '.join(reversed(values))})",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_rule_is_noticed(world: World, mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, broken = MUTATIONS[mutation]
    monkeypatch.setattr(place, name, broken)
    assert world.wrong(run_duckdb(world.texts("duckdb"), world.rows)) != []
