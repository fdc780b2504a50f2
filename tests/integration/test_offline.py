"""The offline path against the oracle: windows, rows and training sets out of real Spark and Delta."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyspark.sql.functions import expr

from coeval.errors import UnknownFeatureError, UsageError
from coeval.reference import value_at
from coeval.settings import Settings
from coeval.spec.model import RowView, View
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import instant, micros
from coeval.training import TrainingSet
from coeval_pipelines.offline import asked as services
from coeval_pipelines.offline import groups, windows
from coeval_pipelines.offline.groups import grouping
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.tables import append, table_path
from coeval_pipelines.offline.training.build import Wanted, build
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import answers, event_frame, limit_rows, manifest, spine_path, write_limits

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 35 * DAY
SEED = 20261120
MANIFEST = manifest()
Asked = tuple[int, str, int]
"""A spine row: card, merchant, instant."""


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(ingest(catalog.PAYMENTS, records(SEED, 1500, START, SPAN)).good)


@pytest.fixture(scope="module")
def limits() -> list[Event]:
    rng = random.Random(SEED)
    at = [START + rng.randrange(SPAN) for _ in range(40)]
    rows = [(rng.randrange(6), t, t + rng.choice((-DAY, 0, HOUR)), rng.randrange(999), rng.random(), "a|é") for t in at]
    # Of the same card, time and availability, the greater row counts.
    return limit_rows([*rows, *((*row[:3], row[3] + 1, 0.5, "tie") for row in rows[:10])])


@pytest.fixture(scope="module")
def world(
    spark: SparkSession, events: list[Event], limits: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("offline"))
    write_limits(settings, limits)
    append(event_frame(spark, events), table_path(settings, MANIFEST, "log", "payments"), "test", 1)
    return settings


def _spine(events: Sequence[Event], limits: Sequence[Event], count: int = 240) -> list[Asked]:
    """Instants at, just before and just after everything that a value depends on; repeats; a card nobody knows."""
    rng = random.Random(SEED)
    edges = [event.available_at for event in events] + [event.event_ts for event in events]
    edges += [event.event_ts + width for event in events for width in (HOUR, 2 * DAY, 7 * DAY)]
    edges += [at for row in limits for at in (row.event_ts, row.available_at)]
    rows = []
    for _ in range(count):
        q = rng.choice(edges) + rng.choice((-1, 0, 0, 1))
        if rng.random() < 0.3:
            q -= q % (5 * MINUTE)
        rows.append((rng.randrange(7), str(rng.choice(events).values["merchant_id"]), q))
    return [*rows, *rows[:5], (99, "nowhere", START)]


def _frame(spark: SparkSession, rows: Sequence[Asked]) -> DataFrame:
    table = pa.table(
        {
            "n": pa.array(range(len(rows))),
            "card_id": pa.array([row[0] for row in rows]),
            "merchant_id": pa.array([row[1] for row in rows]),
            "event_timestamp": pa.array([row[2] for row in rows], pa.timestamp("us", tz="UTC")),
        }
    )
    return spark.createDataFrame(table)


def _key(view: View, row: Asked) -> tuple[int | str, ...]:
    given: dict[str, int | str] = {"card_id": row[0], "merchant_id": row[1]}
    return tuple(given[field.name] for field in view.key)


@pytest.mark.parametrize("name", sorted(MANIFEST.views))
def test_every_value_equals_the_oracle(
    name: str, spark: SparkSession, world: Settings, events: list[Event], limits: list[Event]
) -> None:
    view = MANIFEST.views[name]
    rows = _spine(events, limits)
    found = answers(view, point_in_time(spark, world, MANIFEST, view, _frame(spark, rows)))
    source, facts = MANIFEST.sources[view.source], limits if view.source == "limits" else events
    assert len(found) == len(rows)
    for number, row in enumerate(rows):
        expected = {n: v.value for n, v in value_at(view, source, facts, _key(view, row), row[2]).items()}
        assert found[number] == expected, (SEED, row, instant(row[2]))


def test_keys_that_are_cut_by_time_give_the_same_values(
    spark: SparkSession, world: Settings, events: list[Event], limits: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = MANIFEST.views["card_merchant"]
    rows = _spine(events, limits)
    whole = answers(view, point_in_time(spark, world, MANIFEST, view, _frame(spark, rows)))
    brackets = []
    monkeypatch.setattr(groups, "ROWS", 50)
    monkeypatch.setattr(groups, "_SMALL", 0)
    monkeypatch.setattr(windows, "grouping", lambda *args: brackets.append(grouping(*args)) or brackets[-1])
    assert answers(view, point_in_time(spark, world, MANIFEST, view, _frame(spark, rows))) == whole
    assert brackets[0].brackets


def test_a_value_can_be_asked_for_without_some_events(
    spark: SparkSession, world: Settings, events: list[Event]
) -> None:
    view = MANIFEST.views["card_spend"]
    row = (0, "", START + SPAN)
    left = [event for event in events if event.offset % 2]
    found = point_in_time(spark, world, MANIFEST, view, _frame(spark, [row]), event_frame(spark, left))
    expected = value_at(view, catalog.PAYMENTS, left, (0,), row[2])
    assert answers(view, found)[0] == {name: value.value for name, value in expected.items()}


def _training_spine(rows: Sequence[Asked]) -> pa.Table:
    return pa.table(
        {
            "card_id": pa.array([row[0] for row in rows]),
            "merchant_id": pa.array([row[1] for row in rows]),
            "event_timestamp": pa.array([row[2] for row in rows], pa.timestamp("us", tz="UTC")),
            "payment_amount": pa.array([10.0 + number for number in range(len(rows))]),
            "label": pa.array([number % 3 for number in range(len(rows))], pa.int8()),
        }
    )


def _built(settings: Settings, spine: object, name: str, service: str = "risk") -> TrainingSet:
    return build(settings, Wanted(services.Asked.of(MANIFEST, service), spine, engine="spark"), name)


def test_a_training_set_has_every_spine_row_once_and_says_what_it_is_made_of(
    spark: SparkSession, world: Settings, events: list[Event], limits: list[Event], tmp_path: Path
) -> None:
    spine = _training_spine(_spine(events, limits, 60))
    built = _built(world, spine_path(tmp_path, spine), "one")
    assert built.path
    frame = spark.read.format("delta").load(str(built.path))
    assert built.rows == frame.count() == spine.num_rows
    assert frame.columns[:5] == spine.column_names
    assert frame.columns[-1] == "against_usual__ratio"
    assert sorted(map(str, frame.select(spine.column_names).toArrow().to_pylist())) == sorted(
        map(str, spine.to_pylist())
    )
    for row in frame.where("card_spend__mean_amount_30d > 0").limit(5).collect():
        usual = row["card_spend__mean_amount_30d"]
        assert row["against_usual__ratio"] == row["payment_amount"] / usual
    (part,) = built.lineage["parts"]
    assert built.lineage["manifest"] == MANIFEST.hash
    assert part["sources"]["payments"]["version"] == 0
    assert part["engine"]["name"] == "spark"
    assert 0 < built.report["late_share"]["card_spend__count_1h"] < 0.2


def test_the_content_hash_does_not_depend_on_order_or_partitioning(
    spark: SparkSession, world: Settings, events: list[Event], limits: list[Event], tmp_path: Path
) -> None:
    rows = _spine(events, limits, 60)
    spine = spark.createDataFrame(_training_spine(rows))
    hashes = [
        _built(world, frame, "two").lineage["content_hash"]
        for frame in (spine, spine.repartition(7, "card_id"), spine.where("label <> 1"))
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_final_knowledge_sees_what_came_late(spark: SparkSession, world: Settings, events: list[Event]) -> None:
    view = MANIFEST.views["latest_payment"]
    late = next(event for event in events if event.available_at - event.event_ts > HOUR)
    row = (int(str(late.values["card_id"])), "", late.event_ts + 1)
    frame = _frame(spark, [row])
    known, final = (
        answers(view, point_in_time(spark, world, MANIFEST, view, frame, knowledge=knowledge))[0]
        for knowledge in ("available", "final")
    )
    assert isinstance(view, RowView)
    assert final["points"] == late.values["points"]
    expected = [replace(event, available_at=event.event_ts) for event in events]
    assert final == {n: v.value for n, v in value_at(view, catalog.PAYMENTS, expected, row[:1], row[2]).items()}
    assert known == {n: v.value for n, v in value_at(view, catalog.PAYMENTS, events, row[:1], row[2]).items()}


@pytest.mark.parametrize(
    ("column", "becomes", "says"),
    [
        ("card_id", None, "no column card_id"),
        ("payment_amount", None, "no column payment_amount"),
        ("event_timestamp", None, "no column event_timestamp"),
        ("event_timestamp", "CAST(event_timestamp AS TIMESTAMP_NTZ)", "no time zone"),
        ("card_id", "CAST(card_id AS STRING)", "card_id is a string"),
        ("card_id", "CAST(NULL AS BIGINT)", "no card_id"),
        ("event_timestamp", "CAST(NULL AS TIMESTAMP)", "no event_timestamp"),
        ("card_spend__count_1h", "1", "already has columns"),
    ],
)
def test_a_wrong_spine_is_refused_with_its_reason(
    spark: SparkSession, world: Settings, column: str, becomes: str | None, says: str
) -> None:
    spine = spark.createDataFrame(_training_spine([(1, "m-1", START)]))
    wrong = spine.drop(column) if becomes is None else spine.withColumn(column, expr(becomes))
    with pytest.raises(UsageError, match=says):
        _built(world, wrong, "wrong")


def test_a_naive_pandas_spine_is_refused(spark: SparkSession, world: Settings) -> None:
    spine = _training_spine([(1, "m-1", START)]).to_pandas()
    spine["event_timestamp"] = spine["event_timestamp"].dt.tz_localize(None)
    with pytest.raises(UsageError, match="no time zone"):
        _built(world, spine, "wrong")


def test_an_unknown_service_is_refused(spark: SparkSession, world: Settings) -> None:
    with pytest.raises(UnknownFeatureError, match="no feature service 'rsik'"):
        _built(world, "nowhere", "wrong", "rsik")
