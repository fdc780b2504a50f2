"""What the online benchmark reads: five views of ten features, a windowed view; ours and Feast's of the same values."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations import AGGREGATIONS
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.online.layout import TileColumns, Update, encode_tiles
from coeval.online.rows import RowColumns, encode_rows
from coeval.online.writer import OnlineWriter
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import (
    Aggregate,
    BatchSource,
    Entity,
    EventSource,
    FeatureService,
    Field,
    RowView,
    ServiceView,
    View,
    WindowedView,
)
from coeval.spec.time import DAY, HOUR, duration, hop_of
from coeval.spec.types import FLOAT64, INT64, STRING, TIMESTAMP
from tests.support.online import write

if TYPE_CHECKING:
    import redis

VIEWS, FEATURES = 5, 10
WINDOWS = (HOUR, DAY, 30 * DAY)
FUNCTIONS = ("count", "sum", "mean", "max")
_CARD = Field("card_id", INT64, nullable=False)
_AMOUNT = Field("amount", FLOAT64)
_PAYMENTS = EventSource(
    "payments", "payments",
    (Field("id", STRING, nullable=False), Field("at", TIMESTAMP, nullable=False), _CARD, _AMOUNT), "id", "at",
)  # fmt: skip
_SEED = 20261121


def _service(view: View) -> ServiceView:
    return ServiceView(view.name, view.version, tuple(field.name for field in view.features))


def manifest(tenant: str = "bench") -> Manifest:
    """Services `rows` (five views of ten float64 features) and `windows` (four aggregates over three windows)."""
    names = [f"f{number}" for number in range(FEATURES)]
    fields = tuple(Field(name, FLOAT64) for name in names)
    sources, rows = [], []
    for number in range(VIEWS):
        source = BatchSource(f"table{number}", "rows", "parquet", (_CARD, *fields, Field("at", TIMESTAMP)), "at")
        view = with_version(RowView(f"view{number}", ("card",), (_CARD,), source.name, fields, stream=False), source)
        assert isinstance(view, RowView)
        sources.append(source)
        rows.append(view)
    aggregates = tuple(
        Aggregate(f"{name}_{duration(window)}", name, "" if name == "count" else "amount", window, hop_of(window))
        for window in WINDOWS
        for name in FUNCTIONS
    )
    results = tuple(
        Field(item.feature, AGGREGATIONS[item.function].result(FLOAT64 if item.column else None)) for item in aggregates
    )
    spend = with_version(
        WindowedView("card_spend", ("card",), (_CARD,), _PAYMENTS.name, aggregates, results), _PAYMENTS
    )
    assert isinstance(spend, WindowedView)
    services = (
        FeatureService("rows", tuple(_service(view) for view in rows)),
        FeatureService("windows", (_service(spend),)),
    )
    return Manifest(
        "bench", tenant, (Entity("card", _CARD),), (_PAYMENTS,), tuple(sources), (spend,), tuple(rows),
        services=services,
    )  # fmt: skip


def values(cards: int) -> list[NDArray[np.float64]]:
    """Per view, (cards, features)."""
    rng = np.random.default_rng(_SEED)
    return [rng.random((cards, FEATURES)) for _ in range(VIEWS)]


def fill_rows(client: redis.Redis, made: Manifest, cards: int) -> None:
    """Every card has a row in every view."""
    writer = OnlineWriter(client, made.tenant)
    keys, numbers = _keys(cards), np.arange(cards, dtype=np.int64)
    for view, table in zip(made.row_views, values(cards), strict=True):
        columns = {field.name: table[:, at].tolist() for at, field in enumerate(view.features)}
        rows = RowColumns(keys, numbers + 1, numbers + 1, numbers * 0, numbers, columns)
        _write(writer, view, encode_rows(view, rows))


def fill_windows(client: redis.Redis, made: Manifest, cards: int, now: int, *, dense: bool) -> None:
    """Tiles of every card: all that a window may hold, or, where not dense, three of each granularity."""
    writer, (view,) = OnlineWriter(client, made.tenant), made.windowed_views
    plan, rng = tile_plan(view, _PAYMENTS), np.random.default_rng(_SEED)
    for granularity in plan.granularities:
        ages = np.arange(granularity.slots - 2) if dense else rng.choice(granularity.slots - 2, 3, replace=False)
        for start in range(0, cards, 500):
            keys = _keys(min(start + 500, cards))[start:]
            _write(writer, view, encode_tiles(plan, granularity.hop, _tiles(keys, granularity, ages, now, rng), 0))


def _tiles(
    keys: list[str], granularity: Granularity, ages: NDArray[Any], now: int, rng: np.random.Generator
) -> TileColumns:
    tiles = np.tile(now // granularity.hop - ages, len(keys)).astype(np.int64)
    events = np.full(len(tiles), 5, dtype=np.int64)
    times = tiles * granularity.hop + 1
    states = {
        item.name: events if item.dtype == np.dtype("<i8") else rng.random(len(tiles))
        for item in granularity.components
    }
    return TileColumns([key for key in keys for _ in ages], tiles, events, times, times, states)


def _keys(cards: int) -> list[str]:
    return [encode_key((_CARD,), (card,)) for card in range(cards)]


def _write(writer: OnlineWriter, view: View, updates: list[Update]) -> None:
    write(writer, view, updates)
    assert writer.mark_ready(view, writer.incarnation(view), "bench")


def feast_store(directory: Path, redis: str, cards: int) -> Any:
    """Feast with the same five views and values; services `rows` and `rows_ready`, the latter precomputed."""
    import pandas as pd
    from feast import Entity as FeastEntity
    from feast import FeatureService as FeastService
    from feast import FeatureStore, FeatureView, FileSource, ValueType
    from feast import Field as FeastField
    from feast.types import Float64

    (directory / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: {directory}/registry.db\n"
        f'online_store: {{type: redis, connection_string: "{redis}"}}\n'
        "offline_store: {type: file}\nentity_key_serialization_version: 3\n"
    )
    at = datetime.now(UTC)
    card = FeastEntity(name="card", join_keys=["card_id"], value_type=ValueType.INT64)
    views, frames = [], []
    for number, table in enumerate(values(cards)):
        frame = pd.DataFrame(table, columns=[f"f{index}" for index in range(FEATURES)])
        frame.insert(0, "card_id", range(cards))
        frame["at"] = at
        path = directory / f"table{number}.parquet"
        frame.head(1).to_parquet(path)
        schema = [FeastField(name=f"f{index}", dtype=Float64) for index in range(FEATURES)]
        source = FileSource(name=f"table{number}", path=str(path), timestamp_field="at")
        views.append(FeatureView(name=f"view{number}", entities=[card], schema=schema, source=source))
        frames.append(frame)
    store = FeatureStore(repo_path=str(directory))
    services = [FeastService(name="rows", features=views)]
    services.append(FeastService(name="rows_ready", features=views, precompute_online=True))
    store.apply([card, *views, *services])
    for view, frame in zip(views, frames, strict=True):
        store.write_to_online_store(view.name, frame)
    store.precompute_feature_service("rows_ready")
    return store
