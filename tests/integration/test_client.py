"""The SDK against a real Redis: what a model gets, and what it is told when it asks wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
import redis

from coeval.client import FeatureStore, open_redis
from coeval.errors import EntityKeyError, RequestError, StoreError, UnknownFeatureError
from coeval.online.result import Status
from coeval.online.writer import OnlineWriter
from coeval.settings import RedisSettings, Settings
from coeval.spec.records import Event
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import Physical, micros
from tests.support import catalog
from tests.support.online import updates, write

NOW = micros(datetime(2026, 3, 20, 12, 34, tzinfo=UTC))
ASK = {"card_id": [7, 8], "merchant_id": ["m-1", "m-1"]}
AMOUNT = {"payment_amount": [Decimal("30.00"), Decimal("1.00")]}


def _event(number: int, at: int, amount: int | None, note: str | None = None) -> Event:
    values: dict[str, Physical] = {
        "card_id": 7, "merchant_id": "m-1", "amount": amount, "fee": None, "points": 2**62, "note": note,
    }  # fmt: skip
    return Event(f"e{number}", at, at, 0, number, values, at)


@pytest.fixture
def store(redis_server: Settings) -> Iterator[FeatureStore]:
    client = redis.Redis.from_url(redis_server.redis.url)
    client.flushall()
    manifest = catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    events = [_event(0, NOW - 2 * HOUR, 1000), _event(1, NOW - MINUTE, 2000, "späti"), _event(2, NOW - 50, None)]
    for view in manifest.views.values():
        write(writer, view, updates(view, manifest, events))
        writer.mark_ready(view, writer.incarnation(view), "test")
    yield FeatureStore(manifest, client, clock=lambda: NOW)
    client.close()


def test_values_statuses_and_ages(store: FeatureStore) -> None:
    result = store.get_features("risk", ASK, request=AMOUNT)
    values, status = result.to_dict(), result.status
    assert values["card_spend__sum_amount_24h"] == [Decimal("30.00"), None]
    assert values["card_spend__count_1h"] == [2, 0]
    assert values["card_spend__count_amount_1h"] == [1, 0]
    assert values["card_spend__mean_amount_24h"] == [15.0, None]
    assert status["card_spend__count_1h"] == [Status.PRESENT, Status.NOT_FOUND]
    assert status["card_spend__sum_fee_1h"] == [Status.NULL, Status.NOT_FOUND]
    assert status["card_spend__sum_points_24h"] == [Status.OVERFLOW, Status.NOT_FOUND]
    assert status["latest_payment__amount"] == [Status.NULL, Status.NOT_FOUND]
    assert values["latest_payment__merchant_id"] == ["m-1", None]
    assert values["against_usual__ratio"] == [2.0, None]
    assert result.age["card_spend"][0] == pytest.approx(50e-6)
    assert np.isnan(result.age["card_spend"][1])
    assert result.manifest_hash == store.manifest.hash


def test_columns_are_stable_and_numeric_ones_stack(store: FeatureStore) -> None:
    as_columns = store.get_features("risk", ASK, request=AMOUNT)
    as_rows = store.get_features(
        "risk", [{"card_id": 7, "merchant_id": "m-1"}, {"card_id": 8, "merchant_id": "m-1"}], request=AMOUNT
    )
    assert as_columns.names == as_rows.names
    assert as_columns.to_numpy().shape == (2, len(as_columns.names) - 2)
    np.testing.assert_array_equal(as_columns.to_numpy(), as_rows.to_numpy())
    assert as_columns.to_pandas().shape[0] == 2


def test_an_old_row_expires_when_it_is_read(store: FeatureStore, redis_server: Settings) -> None:
    later = FeatureStore(store.manifest, redis.Redis.from_url(redis_server.redis.url), clock=lambda: NOW + 2 * DAY)
    result = later.get_features("risk", ASK, request=AMOUNT)
    assert result.status["latest_payment__note"] == [Status.EXPIRED, Status.NOT_FOUND]
    later.close()


def test_a_view_that_is_not_ready_has_no_values(store: FeatureStore, redis_server: Settings) -> None:
    client = redis.Redis.from_url(redis_server.redis.url)
    view = store.manifest.views["card_spend"]
    OnlineWriter(client, "bank").unmark(view)
    result = store.get_features("risk", ASK, request=AMOUNT)
    assert set(result.status["card_spend__count_1h"]) == {Status.UNAVAILABLE}
    assert set(result.status["against_usual__ratio"]) == {Status.UNAVAILABLE}
    assert result.to_dict()["card_spend__count_1h"] == [None, None]
    assert result.status["latest_payment__merchant_id"][0] == Status.PRESENT
    client.close()


def test_no_entities_give_no_rows(store: FeatureStore) -> None:
    empty = store.get_features("risk", {"card_id": [], "merchant_id": []}, request={"payment_amount": []})
    assert len(empty) == 0
    assert all(len(column.status) == 0 for column in empty.columns.values())


@pytest.mark.parametrize(
    ("service", "entities", "request_inputs", "error", "words"),
    [
        ("rsik", ASK, AMOUNT, UnknownFeatureError, "risk"),
        ("risk", {"card_id": [7]}, {"payment_amount": [Decimal(1)]}, EntityKeyError, "merchant_id"),
        ("risk", ASK | {"card_id": ["7", "8"]}, AMOUNT, EntityKeyError, "int64"),
        ("risk", ASK | {"card_id": [None, 8]}, AMOUNT, EntityKeyError, "null"),
        ("risk", ASK | {"card_id": [7]}, AMOUNT, EntityKeyError, "length"),
        ("risk", ASK, {}, RequestError, "payment_amount"),
        ("risk", ASK, {"payment_amount": ["x", "y"]}, RequestError, "decimal"),
        ("risk", ASK, AMOUNT | {"wrong": [1, 2]}, RequestError, "wrong"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(
    store: FeatureStore,
    service: str,
    entities: dict,
    request_inputs: dict,
    error: type,
    words: str,  # type: ignore[type-arg]
) -> None:
    with pytest.raises(error, match=words):
        store.get_features(service, entities, request=request_inputs)


def test_a_store_that_does_not_answer_or_forgets_is_refused(redis_server: Settings) -> None:
    with pytest.raises(StoreError, match="does not answer"):
        open_redis(Settings(redis=RedisSettings(url="redis://127.0.0.1:1/0")))
    client = redis.Redis.from_url(redis_server.redis.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreError, match="allkeys-lru"):
            open_redis(redis_server)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.close()
