"""The batch load against the oracle: tiles and rows out of a real log into a real Redis, read as a model reads them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import redis

from coeval.aggregations.tiles import tile_plan
from coeval.client import open_redis
from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.online.writer import OnlineWriter
from coeval.reference import value_at
from coeval.settings import Settings
from coeval.spec.model import ServiceView, View, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import Physical, micros
from coeval_pipelines.control import BatchLoad, ControlPlane
from coeval_pipelines.offline.tables import append, table_path
from tests.support import catalog
from tests.support.events import records
from tests.support.loads import load_view
from tests.support.offline import event_frame, limit_rows, manifest, write_limits

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
END = START + 33 * DAY
MANIFEST = manifest()
LIMITS = limit_rows([(card, START + card * DAY, START + card * DAY, card, 0.5, "gold") for card in range(4)])
FUTURE = limit_rows([(1, END + DAY, END + DAY, 77, 0.5, "not yet")])


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(ingest(catalog.PAYMENTS, records(21, 1200, START, 33 * DAY)).good)


@pytest.fixture(scope="module")
def world(
    spark: SparkSession, redis_server: Settings, events: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    settings = redis_server.model_copy(update={"home": tmp_path_factory.mktemp("load")})
    write_limits(settings, [*LIMITS, *FUTURE])
    append(event_frame(spark, events), table_path(settings, MANIFEST, "log", "payments"), "test", 1)
    return settings


@pytest.fixture
def client(world: Settings) -> Iterator[redis.Redis]:
    with closing(open_redis(world)) as client:
        client.flushall()
        writer = OnlineWriter(client, MANIFEST.tenant)
        for view in MANIFEST.views.values():
            writer.mark_ready(view, writer.incarnation(view), "test")
        yield client


def _load(spark: SparkSession, world: Settings, view: View, cut: int) -> BatchLoad:
    with closing(ControlPlane.open(world)) as control:
        done = load_view(spark, world, MANIFEST, control, view, cut, now=max(cut, END))
        assert control.last_load(view.name, view.version) == done
        return done


def _keys(view: View, events: list[Event]) -> list[tuple[Physical, ...]]:
    known = {tuple(event.values[field.name] for field in view.key) for event in events}
    keys = sorted(known, key=str)
    random.Random(1).shuffle(keys)
    return keys[:40]


def _read(client: redis.Redis, view: View, keys: list[tuple[Physical, ...]], q: int) -> list[dict[str, Physical]]:
    used = ServiceView(view.name, view.version, tuple(field.name for field in view.features))
    entities = {field.name: [key[index] for key in keys] for index, field in enumerate(view.key)}
    columns = OnlineReader(client, lambda: q).read(ReadPlanner(MANIFEST, [used]), entities).columns[view.name]
    return [
        {name: None if column.null[row] else column.values[row] for name, column in columns.items()}
        for row in range(len(keys))
    ]


@pytest.mark.parametrize("name", sorted(MANIFEST.views))
def test_what_was_loaded_is_read_as_the_oracle_says(
    name: str, spark: SparkSession, world: Settings, events: list[Event], client: redis.Redis
) -> None:
    view = MANIFEST.views[name]
    facts = [*LIMITS, *FUTURE] if view.source == "limits" else events
    q = END + 2 * DAY if isinstance(view, WindowedView) else END
    keys = _keys(view, facts)
    done = _load(spark, world, view, q)
    assert done.written > 0
    for key, found in zip(keys, _read(client, view, keys, q), strict=True):
        expected = value_at(view, MANIFEST.sources[view.source], facts, key, q)
        assert found == {feature: value.value for feature, value in expected.items()}, key


def _final_only(view: WindowedView, events: list[Event], cut: int) -> dict[str, list[Event]]:
    """Per feature, the events that a load at the cut knows: available before it, in tiles that are final at it."""
    plan = tile_plan(view, catalog.PAYMENTS)
    lateness = catalog.PAYMENTS.allowed_lateness
    known = [event for event in events if event.available_at < cut]
    return {
        item.feature: [
            e for e in known if e.event_ts // item.hop < plan.granularity(item.hop).final_before(cut, lateness)
        ]
        for item in view.aggregates
    }


def test_a_load_holds_only_tiles_that_are_final_and_a_later_one_corrects_it(
    spark: SparkSession, world: Settings, events: list[Event], client: redis.Redis
) -> None:
    view = MANIFEST.views["card_spend"]
    assert isinstance(view, WindowedView)
    keys = _keys(view, events)
    epochs = []
    for cut in (START + 20 * DAY + 5 * HOUR, START + 21 * DAY):
        epochs.append(_load(spark, world, view, cut).run)
        known = _final_only(view, events, cut)
        for key, found in zip(keys, _read(client, view, keys, cut), strict=True):
            for aggregate, feature in zip(view.aggregates, view.features, strict=True):
                alone = replace(view, aggregates=(aggregate,), features=(feature,))
                expected = value_at(alone, catalog.PAYMENTS, known[aggregate.feature], key, cut)
                assert found[feature.name] == expected[feature.name].value, (key, feature.name)
    assert epochs[1] > epochs[0] > 0


def test_loading_again_changes_no_value(
    spark: SparkSession, world: Settings, events: list[Event], client: redis.Redis
) -> None:
    for name in ("card_merchant", "latest_payment"):
        view = MANIFEST.views[name]
        keys = _keys(view, events)
        _load(spark, world, view, END)
        before = _read(client, view, keys, END)
        again = _load(spark, world, view, END)
        assert _read(client, view, keys, END) == before
        assert (again.written == 0) == (name == "latest_payment")
