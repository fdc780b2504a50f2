"""Feast's own API and command line on the offline engine: historical features, and `feast materialize`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from click.testing import CliRunner, Result

from coeval.client import read_manifest
from coeval.errors import RequestError, UnknownFeatureError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.types import micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.event_log import ingest_history
from coeval_pipelines.offline.training.build import Wanted, build
from coeval_pipelines.streaming.broker import Broker
from tests.support.fast_feast import import_feast
from tests.support.feast_server import ROOT, feast_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
BOUGHT = ((NOON - timedelta(days=40), "5.00"), (NOON - timedelta(days=3), "20.00"), (NOON, "12.50"))
LISTED = ["household_spend:sum_amount_7d", "household_spend:count_1h", "spend_vs_usual:week_pace"]


@dataclass
class World:
    """The example catalog, applied; household 718 has bought three times and said its age, household 5 never did."""

    repository: Path
    settings: Settings
    manifest: Manifest
    store: Any


@pytest.fixture(scope="module")
def world(broker: Settings, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    project = tmp_path_factory.mktemp("feast_offline")
    home = project / "var"
    shutil.copytree(ROOT / "feature_repo", project / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    with feast_server() as feast:
        done = feast.run(project / "feature_repo", home, "apply", project)
    assert done.returncode == 0, done.stderr
    settings = broker.model_copy(update={"home": home})
    manifest = read_manifest(settings.manifest_path)
    _write(home / "demo/history/purchases/1.parquet", _purchases())
    _write(home / "demo/history/coupon_redemptions/1.parquet", _redemptions())
    _write(home / "demo/demographics.parquet", _demographics(manifest))
    with Broker(broker.kafka) as admin:
        for source in manifest.event_sources:
            ingest_history(spark, settings, manifest, source)
            admin.create(source.topic, 2, {"retention.ms": "-1"})
    import_feast()
    import feast as feast_library

    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.variables().items():
            patch.setenv(name, value)
        yield World(
            project / "feature_repo", settings, manifest, feast_library.FeatureStore(str(project / "feature_repo"))
        )


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


_INSTANT, _MONEY = pa.timestamp("us", tz="UTC"), pa.decimal128(9, 2)


def _purchases() -> pa.Table:
    count = len(BOUGHT)
    amounts = pa.array([Decimal(amount) for _, amount in BOUGHT], _MONEY)
    numbers = {name: pa.array([value] * count) for name, value in (("household_id", 718), ("store_id", 367))}
    others = {name: pa.array(range(count)) for name in ("basket_id", "product_id", "quantity")}
    return pa.table(
        {
            "event_id": [f"e{number}" for number in range(count)],
            "purchased_at": pa.array([at for at, _ in BOUGHT], _INSTANT),
            **numbers,
            **others,
            "amount": amounts,
            "retail_discount": pa.array([None] * count, _MONEY),
            "coupon_discount": pa.array([None] * count, _MONEY),
        }
    )


def _redemptions() -> pa.Table:
    row = {"event_id": ["r"], "household_id": [5], "coupon_upc": ["c"], "campaign_id": [1]}
    return pa.table({**row, "redeemed_at": pa.array([NOON - timedelta(days=2)], _INSTANT)})


def _demographics(manifest: Manifest) -> pa.Table:
    texts = [field.name for field in manifest.sources["demographics"].fields if field.type.kind == "string"]
    at = pa.array([NOON - timedelta(days=90)], _INSTANT)
    return pa.table({"household_id": [718], "recorded_at": at, **{name: [f"{name}!"] for name in texts}})


def _entities() -> pd.DataFrame:
    """The instant of the last purchase, which does not see it; a second later; a household that nobody knows."""
    return pd.DataFrame(
        {
            "household_id": [718, 5, 718],
            "store_id": [367, 367, 367],
            "basket_amount": [Decimal("25.00"), Decimal("1.00"), Decimal("25.00")],
            "event_timestamp": pd.to_datetime([NOON + timedelta(seconds=1), NOON, NOON], utc=True),
            "label": ["seen", "never", "not yet"],
        }
    )


def test_a_service_is_had_as_its_training_set_has_it(world: World) -> None:
    service = world.store.get_feature_service("coupon_propensity")
    job = world.store.get_historical_features(_entities(), service, full_feature_names=True)
    table = job.to_arrow()
    assert table.column("label").to_pylist() == ["seen", "never", "not yet"]  # in the order in which they were given
    assert table.column("household_spend__count_1h").to_pylist() == [1, 0, 0]
    assert table.column("household_spend__sum_amount_7d").to_pylist() == [Decimal("32.50"), None, Decimal("20.00")]
    assert table.column("latest_basket__amount").to_pylist() == [Decimal("12.50"), None, Decimal("20.00")]
    assert table.column("household_profile__age").to_pylist() == ["age!", None, "age!"]
    assert table.column("spend_vs_usual__basket_in_usual_lines").to_pylist() == [25 / 16.25, None, 25 / 20.0]
    built = build(world.settings, Wanted(Asked.of(world.manifest, "coupon_propensity"), _entities(), engine="spark"))
    ours = built.to_arrow()
    assert set(ours.column_names) <= {*table.column_names}
    by_label = [("label", "ascending")]
    same = table.select(ours.column_names).sort_by(by_label).to_pylist()
    assert same == ours.sort_by(by_label).to_pylist()
    assert set(job.metadata.keys) == {"household_id", "store_id", "basket_amount", "label"}
    assert job.to_df().shape == (3, table.num_columns)


def test_features_are_had_by_list_with_short_names_and_any_one_time_column(world: World) -> None:
    entities = _entities()[["household_id", "basket_amount", "event_timestamp"]]
    entities = entities.rename(columns={"event_timestamp": "asked_at"})
    found = world.store.get_historical_features(entities, LISTED).to_df()
    assert found["sum_amount_7d"].tolist() == [Decimal("32.50"), None, Decimal("20.00")]
    assert found["count_1h"].tolist() == [1, 0, 0]
    assert found["week_pace"].notna().tolist() == [True, False, True]
    assert found["asked_at"].tolist() == entities["asked_at"].tolist()


def test_entities_may_be_a_query(world: World) -> None:
    query = "SELECT 718L AS household_id, TIMESTAMP '2026-03-20T12:00:01Z' AS event_timestamp"
    found = world.store.get_historical_features(query, LISTED[:1], full_feature_names=True).to_df()
    assert found["household_spend__sum_amount_7d"].tolist() == [Decimal("32.50")]


def test_what_cannot_be_had_is_said(world: World) -> None:
    service, entities = world.store.get_feature_service("coupon_propensity"), _entities()
    with pytest.raises(RequestError, match="Several columns are called store_id"):
        world.store.get_historical_features(entities, ["latest_basket:store_id"])
    with pytest.raises(UsageError, match="no column store_id, a key"):
        world.store.get_historical_features(
            entities.drop(columns="store_id"), service, full_feature_names=True
        ).to_arrow()
    with pytest.raises(UsageError, match="without entities"):
        world.store.get_historical_features(None, LISTED, start_date=NOON, end_date=NOON)
    with pytest.raises(UsageError, match="coeval training-set build"):
        world.store.get_historical_features(entities, LISTED[:1]).persist(None)
    # Feast's registry knows it, the applied manifest does not.
    gone = world.settings.manifest_path.read_text()
    try:
        world.settings.manifest_path.write_text(gone.replace("count_1h", "count_1hour"))
        with pytest.raises(UnknownFeatureError, match="no feature 'household_spend__count_1h'"):
            world.store.get_historical_features(entities, LISTED[1:2]).to_arrow()
    finally:
        world.settings.manifest_path.write_text(gone)


def _feast(world: World, *arguments: str) -> Result:
    from feast.cli.cli import cli

    return CliRunner().invoke(cli, ["-c", str(world.repository), *arguments])


def test_feast_materialize_is_our_backfill(world: World) -> None:
    """What it loads is what readers get; what cannot be filled yet is said, and nothing is half done."""
    with redis.Redis.from_url(world.settings.redis.url) as client:
        client.flushall()
    to = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    view = world.manifest.views["household_profile"]
    refused = _feast(world, "materialize-incremental", to, "-v", view.name)
    assert refused.exit_code != 0
    assert "household_profile is not deployed." in refused.output
    assert "coeval stream deploy" in refused.output
    with closing(ControlPlane.open(world.settings)) as control:
        control.save_manifest(world.manifest, 1)
        control.deploy(view.name, view.version, world.manifest.hash, micros(NOON), micros(NOON))
        control.release(world.manifest.hash, 2)
    world.settings.released_path.write_text(world.manifest.to_json())
    done = _feast(world, "materialize-incremental", to, "-v", view.name)
    assert done.exit_code == 0, done.output
    assert "household_profile: 1 written; the online store is as of now." in done.output
    assert "Registry changed" not in done.output
    again = _feast(world, "materialize", "2026-01-01T00:00:00", to, "-v", view.name)
    assert again.exit_code == 0, again.output
    assert "household_profile: 0 written" in again.output  # it is there
    found = world.store.get_online_features(["household_profile:age"], {"household_id": [718, 5]}).to_dict()
    assert found["age"] == ["age!", None]
    assert read_manifest(world.settings.manifest_path).hash == world.manifest.hash
