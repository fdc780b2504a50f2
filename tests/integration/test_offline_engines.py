"""The same spine over the same log, through Spark and without it: equal tables, to the last type."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from coeval.errors import NeedsSparkError
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import micros
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.choice import choose
from coeval_pipelines.offline.service_features import service_features
from coeval_pipelines.offline.small import small_features
from coeval_pipelines.offline.spine import staged
from coeval_pipelines.offline.tables import append, latest_version, table_path
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import event_frame, limit_rows, manifest, write_limits

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 35 * DAY
SEED = 20261122
MANIFEST = manifest()
ASKED = Asked.of(MANIFEST, "risk")
ERASED = (Erasure("card_id", 1, START + 20 * DAY), Erasure("merchant_id", "m|2", START + 10 * DAY))


@pytest.fixture(scope="module")
def events() -> list[Event]:
    print(f"seed {SEED}")
    return list(ingest(catalog.PAYMENTS, records(SEED, 1200, START, SPAN)).good)


@pytest.fixture(scope="module")
def limits() -> list[Event]:
    """Rows of the batch source: ties, zeros of both signs, and rows that are refused."""
    rng = random.Random(SEED)
    at = [START + rng.randrange(SPAN) for _ in range(40)]
    rows = [(rng.randrange(6), t, t + rng.choice((-DAY, 0, HOUR)), rng.randrange(999), rng.random(), "é") for t in at]
    rows += [(*row[:3], row[3] + 1, -0.0, "tie") for row in rows[:10]]
    found = limit_rows(rows)
    nan, nobody = ({"score": float("nan")}, {"set_at": None})
    return found + [replace(found[-1], values={**found[-1].values, **wrong}) for wrong in (nan, nobody)]


@pytest.fixture(scope="module")
def world(
    spark: SparkSession, events: list[Event], limits: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """A log of two versions, the first from before its source had notes; erasures; a file."""
    settings = Settings(home=tmp_path_factory.mktemp("engines"))
    write_limits(settings, limits)
    path = table_path(settings, MANIFEST, "log", "payments")
    half = len(events) // 2
    append(event_frame(spark, events[:half]).drop("note"), path, "test", 1)
    append(event_frame(spark, events[half:]), path, "test", 2)
    table = ErasureTable(settings, MANIFEST.tenant)
    for erasure in ERASED:
        table.record(erasure, START + SPAN, lambda: 0)
    return settings


def _spine(events: list[Event], limits: list[Event], count: int = 300) -> pa.Table:
    """Instants at and beside everything that a value depends on; repeats; strangers; columns of other types."""
    rng = random.Random(SEED)
    edges = [at for event in events for at in (event.available_at, event.event_ts, event.event_ts + 2 * DAY)]
    edges += [at for row in limits for at in (row.event_ts, row.available_at)]
    rows = []
    for _ in range(count):
        q = rng.choice(edges) + rng.choice((-1, 0, 1))
        rows.append((rng.randrange(7), str(rng.choice(events).values["merchant_id"]), q - q % (5 * MINUTE) * (q % 2)))
    rows += [*rows[:5], (99, "nowhere", START)]
    return pa.table(
        {
            "label": pa.array([number % 3 for number in range(len(rows))], pa.int8()),
            "card_id": pa.array([row[0] for row in rows], pa.int32()),
            "merchant_id": pa.array([row[1] for row in rows]),
            "event_timestamp": pa.array([row[2] for row in rows], pa.timestamp("us", tz="UTC")),
            "payment_amount": pa.array([10.0 + number for number in range(len(rows))]),
            "day": pa.array([None if number % 7 == 0 else number for number in range(len(rows))], pa.date32()),
            "n": pa.array(range(len(rows)), pa.int64()),
        }
    )


@pytest.mark.parametrize(("knowledge", "log", "erasures"), [("available", 1, 2), ("final", 0, 1)])
def test_both_engines_give_the_same_table(
    spark: SparkSession,
    world: Settings,
    events: list[Event],
    limits: list[Event],
    knowledge: str,
    log: int,
    erasures: int,
) -> None:
    spine = _spine(events, limits)
    inputs = Inputs({"payments": log, "limits": None}, erasures)
    with staged(spark, world, spark.createDataFrame(spine), ASKED.views, ASKED.request) as rows:
        theirs = service_features(spark, world, ASKED, rows, inputs, knowledge).toArrow().sort_by("n")
    ours = small_features(world, ASKED, spine, inputs, knowledge)
    assert ours.schema == theirs.schema
    different = [name for name in ours.column_names if not _equal(ours.column(name), theirs.column(name))]
    assert different == []
    absent = [name for name in ASKED.outputs if ours.column(name).null_count == len(ours)]
    assert absent == ([] if log else ["latest_payment__note"])


def _equal(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> bool:
    """Bit for bit, so that zeros of two signs differ."""
    if pa.types.is_floating(ours.type) and ours.is_valid().equals(theirs.is_valid()):
        bits = [np.nan_to_num(column.to_numpy()).view(np.int64) for column in (ours, theirs)]
        return bool((bits[0] == bits[1]).all())
    return bool(ours.equals(theirs))


def test_a_log_that_only_spark_reads_is_left_to_spark_and_says_why(
    spark: SparkSession, events: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(home=tmp_path_factory.mktemp("widened"))
    write_limits(settings, [])
    path = table_path(settings, MANIFEST, "log", "payments")
    frame = event_frame(spark, events[:50]).where("ABS(amount) < 1000")
    append(frame.withColumn("amount", frame["amount"].cast("decimal(7,2)")), path, "test", 1)
    # What was read before the column was widened can still be read.
    assert choose(settings, ASKED, 5).engine == "local"
    append(frame, path, "test", 2)
    choice = choose(settings, ASKED, 5)
    assert choice.engine == "spark"
    assert "typeWidening" in choice.why
    with pytest.raises(NeedsSparkError, match="typeWidening"):
        choose(settings, ASKED, 5, "local")
    inputs = Inputs({"payments": latest_version(path), "limits": None}, 0)
    with pytest.raises(NeedsSparkError, match="typeWidening"):
        small_features(settings, ASKED, _spine(events, [], 5), inputs)
