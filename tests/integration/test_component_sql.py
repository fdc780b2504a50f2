"""The SQL of every component, run by Spark and by Flink, stores what its scalar form does: each function and type."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.aggregations.ops import Additive, OrderColumns
from coeval.aggregations.partial import Component, fold
from coeval.aggregations.states import Storage, from_limbs
from coeval.spec.model import Field
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, TIMESTAMP, DataType
from coeval_pipelines.arrow import stored_states
from coeval_pipelines.offline.columns import logical_array, physical_sql, quoted
from coeval_pipelines.streaming.literals import sql_type
from tests.support import flink_batch

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEED = 20261121
GROUPS = 60
COLUMNS = [
    Field("n", INT64),
    Field("f", FLOAT64),
    Field("b", BOOL),
    Field("t", TIMESTAMP),
    Field("d", DATE),
    *(Field(f"d{p}_{s}", DataType.parse(f"decimal({p},{s})")) for p, s in ((4, 1), (9, 2), (18, 3), (19, 0), (38, 8))),
]
ORDER = OrderColumns("event_ts", "available_at", "`partition`", "`offset`")


def components() -> list[tuple[Component, Field]]:
    """Every component that a function may need of each column, once."""
    found: dict[str, tuple[Component, Field]] = {}
    for name, aggregation in AGGREGATIONS.items():
        for field in COLUMNS:
            try:
                check_aggregation(name, field)
            except ValueError:
                continue
            found |= {item.name: (item, field) for item in aggregation.components(field)}
    return list(found.values())


def _value(rng: random.Random, field: Field) -> Any:
    if rng.random() < 0.2:
        return None
    if field.type == FLOAT64:
        return rng.choice((0.1, -2.5e-7, 1e9, rng.uniform(-1e6, 1e6), 123456789.125))
    low, high = {BOOL: (0, 1), TIMESTAMP: (-(10**15), 10**15), DATE: (-30_000, 30_000)}.get(
        field.type, field.type.limits
    )
    return rng.choice((low, high, 0, rng.randint(low, high), rng.randint(max(low, -99), min(high, 99))))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    return [_row(rng, number) for number in range(600)]


def test_what_spark_aggregates_is_what_a_tile_stores(spark: SparkSession, rows: list[dict[str, Any]]) -> None:
    table = pa.table(
        {
            **{name: [row[name] for row in rows] for name in ("g", "event_ts", "available_at", "partition", "offset")},
            **{field.name: logical_array(field.type, [row[field.name] for row in rows]) for field in COLUMNS},
        }
    )
    physical = [f"{physical_sql(field, quoted(field.name))} AS v_{field.name}" for field in COLUMNS]
    frame = spark.createDataFrame(table).selectExpr("g", *ORDER, *physical)
    frame.createOrReplaceTempView("component_input")
    known = components()
    found = spark.sql(_query(known, ORDER)).toArrow()
    stored = {item.name: _plain(item, stored_states(item.storage, found.column(item.name))) for item, _ in known}
    _check(known, rows, found.column("g").to_pylist(), stored)


def test_what_flink_aggregates_is_what_a_tile_stores(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    order = OrderColumns("event_ts", "available_at", "log_partition", "log_offset")
    schema = {"g": "BIGINT", "event_ts": "BIGINT", "available_at": "BIGINT", "log_partition": "INT"}
    schema |= {"log_offset": "BIGINT"} | {f"v_{field.name}": sql_type(field.type) for field in COLUMNS}
    renamed = {"partition": "log_partition", "offset": "log_offset"} | {f.name: f"v_{f.name}" for f in COLUMNS}
    table = [{renamed.get(name, name): value for name, value in row.items()} for row in rows]
    parts = [components()[start : start + 16] for start in range(0, len(components()), 16)]
    results = flink_batch.run(tmp_path, "component_input", schema, table, [_query(part, order) for part in parts])
    for part, result in zip(parts, results, strict=True):
        groups, *columns = zip(*result, strict=True)
        _check(part, rows, groups, {item.name: column for (item, _), column in zip(part, columns, strict=True)})


def _query(known: Sequence[tuple[Component, Field]], order: OrderColumns) -> str:
    aggregates = ", ".join(f"{item.sql('v_' + field.name, order)} AS `{item.name}`" for item, field in known)
    return f"SELECT g, {aggregates} FROM component_input GROUP BY g"


def _check(
    known: Sequence[tuple[Component, Field]],
    rows: Sequence[dict[str, Any]],
    groups: Sequence[int],
    stored: dict[str, Sequence[int | float]],
) -> None:
    assert len(set(groups)) == len(groups) == len({row["g"] for row in rows})
    for component, field in known:
        for group, value in zip(groups, stored[component.name], strict=True):
            pairs = [(_order(row), row[field.name]) for row in rows if row["g"] == group]
            pairs = [pair for pair in pairs if pair[1] is not None]
            assert _equal(component, value, fold(component, pairs), pairs), (component.name, group)


def test_every_function_over_every_type_has_its_components() -> None:
    assert len(components()) > 60
    operations = {item.op.name for item, _ in components()}
    assert operations >= {"count", "sum", "sum_high", "squares", "squares_low", "min", "max", "first", "last"}


def _row(rng: random.Random, number: int) -> dict[str, Any]:
    at = rng.choice((-(10**12), 0, 5, 10**15))
    place = {"event_ts": at, "available_at": at + rng.randrange(2), "partition": rng.choice((-1, 0, 11))}
    return {"g": rng.randrange(GROUPS), **place, "offset": number} | {f.name: _value(rng, f) for f in COLUMNS}


def _order(row: dict[str, Any]) -> tuple[int, int, int, int]:
    return row["event_ts"], row["available_at"], row["partition"], row["offset"]


def _plain(component: Component, states: Any) -> Sequence[int | float]:
    if component.storage is Storage.WIDE:
        states = from_limbs(states["low"], states["high"])
    return states.tolist()  # type: ignore[no-any-return]


def _equal(component: Component, stored: float, folded: float, pairs: Sequence[tuple[Any, Any]]) -> bool:
    if isinstance(component.op, Additive) and component.storage is Storage.FLOAT:
        return abs(stored - folded) <= 1e-12 * sum(abs(component.op.lift(value)) for _, value in pairs)
    return stored == folded
