"""Feast's own API on Coeval's online store: through the provider, and through Feast's client of a feature server."""

from __future__ import annotations

import shutil
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from coeval.client import FeatureStore, read_manifest
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.records import Event
from tests.support.fast_feast import import_feast
from tests.support.feast_server import ROOT, feast_server
from tests.support.online import updates, write
from tests.support.serving import serving

ENTITIES = {"household_id": [718, 5], "store_id": [367, 367]}
AMOUNTS = {"basket_amount": [Decimal("25.00"), Decimal("1.00")]}


@pytest.fixture(scope="module")
def repository(redis_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """The example catalog, applied; household 718 has bought and redeemed a minute ago, household 5 never."""
    project = tmp_path_factory.mktemp("feast")
    shutil.copytree(ROOT / "feature_repo", project / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    home = project / "var"
    with feast_server() as feast:
        done = feast.run(project / "feature_repo", home, "apply", project)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(home / "manifest.json")
    client = redis.Redis.from_url(redis_server.redis.url)
    client.flushall()
    writer = OnlineWriter(client, manifest.tenant)
    at = time.time_ns() // 1000 - 60_000_000
    values: dict[str, Any] = {
        "event_id": "e",
        "household_id": 718,
        "store_id": 367,
        "basket_id": 1,
        "product_id": 2,
        "quantity": 3,
        "amount": 1250,
        "retail_discount": 100,
        "coupon_discount": 0,
        "coupon_upc": "c",
        "campaign_id": 4,
    }
    for view in manifest.views.values():
        source = manifest.sources[view.source]
        if any(item.name == source.name for item in manifest.event_sources):
            names = {field.name for field in manifest.source_of(view).fields}
            known = {**values, "saved": 100, "purchased_at": at, "redeemed_at": at}
            event = Event("e", at, at, 0, 0, {name: known.get(name) for name in names}, at)
            write(writer, view, updates(view, manifest, [event]))
        writer.mark_ready(view, writer.incarnation(view), "test")
    client.close()
    return project / "feature_repo", redis_server.model_copy(update={"home": home})


@pytest.fixture
def feast_store(repository: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch) -> Any:
    import_feast()
    import feast

    path, settings = repository
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    return feast.FeatureStore(repo_path=str(path))


def test_feasts_own_method_serves_our_values(feast_store: Any, repository: tuple[Path, Settings]) -> None:
    service = feast_store.get_feature_service("coupon_propensity")
    rows = [
        {"household_id": household, "store_id": store, "basket_amount": amount}
        for household, store, amount in zip(*ENTITIES.values(), *AMOUNTS.values(), strict=True)
    ]
    found = feast_store.get_online_features(features=service, entity_rows=rows, full_feature_names=True)
    _, settings = repository
    manifest = read_manifest(settings.manifest_path)
    ours = FeatureStore(manifest, redis.Redis.from_url(settings.redis.url))
    same = ours.get_features("coupon_propensity", ENTITIES, request=AMOUNTS)
    values = found.to_dict()
    assert set(values) == set(same.to_dict())
    for name, expected in same.to_dict().items():
        assert values[name] == expected, name
    assert values["household_spend__sum_amount_1h"] == [Decimal("12.50"), None]
    assert values["household_spend__count_1h"] == [1, 0]
    listed = feast_store.get_online_features(
        features=["household_spend:count_1h", "household_spend:sum_amount_7d"], entity_rows={"household_id": [718, 5]}
    ).to_dict(include_event_timestamps=True)
    assert listed["count_1h"] == [1, 0]
    assert listed["sum_amount_7d"] == [Decimal("12.50"), None]
    assert 60 <= time.time() - listed["count_1h__ts"][0] < 600
    assert found.to_df().shape[0] == 2


def test_feasts_client_of_a_server_reads_from_ours(feast_store: Any, repository: tuple[Path, Settings]) -> None:
    from feast.infra.online_stores.remote import RemoteOnlineStore, RemoteOnlineStoreConfig
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    _, settings = repository
    with serving(settings, open_tenant="grocer") as running:
        config = feast_store.config.model_copy()
        config.online_config = {"type": "remote", "path": f"http://127.0.0.1:{running.port}"}
        config._online_store = RemoteOnlineStoreConfig(path=f"http://127.0.0.1:{running.port}")
        keys = [EntityKey(join_keys=["household_id"], entity_values=[Value(int64_val=key)]) for key in (718, 5)]
        table = feast_store.get_stream_feature_view("household_spend")
        found = RemoteOnlineStore().online_read(config, table, keys, ["count_1h", "sum_amount_7d", "mean_amount_30d"])
    (_, bought), (_, never) = found
    assert bought["count_1h"].int64_val == 1
    assert Decimal(bought["sum_amount_7d"].decimal_val) == Decimal("12.50")
    assert bought["mean_amount_30d"].double_val == 12.5
    assert never["count_1h"].int64_val == 0
    assert never["mean_amount_30d"].WhichOneof("val") is None
