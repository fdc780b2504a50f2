"""The SQL of every component, run by Spark, stores what its scalar form stores: every function over every type."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.aggregations.ops import Additive, OrderColumns
from coeval.aggregations.partial import Component, fold
from coeval.aggregations.states import Storage, from_limbs
from coeval.spec.model import Field
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, TIMESTAMP, DataType
from coeval_pipelines.arrow import stored_states
from coeval_pipelines.offline.columns import logical_array, physical_sql, quoted

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


def test_what_spark_aggregates_is_what_a_tile_stores(spark: SparkSession) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    rows = [_row(rng, number) for number in range(600)]
    table = pa.table(
        {
            **{name: [row[name] for row in rows] for name in ("g", "event_ts", "available_at", "partition", "offset")},
            **{field.name: logical_array(field.type, [row[field.name] for row in rows]) for field in COLUMNS},
        }
    )
    physical = [f"{physical_sql(field, quoted(field.name))} AS v_{field.name}" for field in COLUMNS]
    known = components()
    aggregates = ", ".join(f"{item.sql('v_' + field.name, ORDER)} AS `{item.name}`" for item, field in known)
    frame = spark.createDataFrame(table).selectExpr("g", *ORDER, *physical)
    frame.createOrReplaceTempView("component_input")
    found = spark.sql(f"SELECT g, {aggregates} FROM component_input GROUP BY g ORDER BY g").toArrow()
    assert len(known) > 40
    groups = found.column("g").to_pylist()
    for component, field in known:
        stored = _plain(component, stored_states(component.storage, found.column(component.name)))
        for group, value in zip(groups, stored, strict=True):
            pairs = [
                (_order(row), row[field.name]) for row in rows if row["g"] == group and row[field.name] is not None
            ]
            assert _equal(component, value, fold(component, pairs), pairs), (component.name, group)


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
