"""What the offline benchmark computes: a row view and a windowed view of payments; seeded events and spines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coeval.aggregations import AGGREGATIONS
from coeval.settings import Settings
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import (
    Aggregate,
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
from coeval.spec.types import INT64, STRING, TIMESTAMP, DataType
from coeval_pipelines.offline.tables import table_path

MONEY = DataType.parse("decimal(12,2)")
WINDOWS = (HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY)
FUNCTIONS = ("count", "sum", "mean", "min", "max", "stddev")
START = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, in microseconds."""
SPAN = 90 * DAY
_SEED = 20261122
_CARD = Field("card_id", INT64, nullable=False)
_PAYMENTS = EventSource(
    "payments", "payments",
    (
        Field("id", STRING, nullable=False), Field("at", TIMESTAMP, nullable=False), _CARD,
        Field("amount", MONEY), Field("points", INT64), Field("country", STRING),
    ),
    "id", "at",
)  # fmt: skip


def manifest() -> Manifest:
    """Services `latest` (three columns of a card's latest payment) and `spend` (six aggregates, five windows)."""
    fields = tuple(_PAYMENTS.field(name) for name in ("amount", "points", "country"))
    row = with_version(RowView("latest", ("card",), (_CARD,), "payments", fields, stream=True), _PAYMENTS)
    aggregates = tuple(
        Aggregate(f"{name}_{duration(window)}", name, "" if name == "count" else "amount", window, hop_of(window))
        for window in WINDOWS
        for name in FUNCTIONS
    )
    results = tuple(
        Field(item.feature, AGGREGATIONS[item.function].result(MONEY if item.column else None)) for item in aggregates
    )
    spend = with_version(WindowedView("spend", ("card",), (_CARD,), "payments", aggregates, results), _PAYMENTS)
    assert isinstance(row, RowView)
    assert isinstance(spend, WindowedView)
    services = tuple(FeatureService(view.name, (_service(view),)) for view in (row, spend))
    return Manifest("bench", "bench", (Entity("card", _CARD),), (_PAYMENTS,), (), (spend,), (row,), services=services)


def _service(view: View) -> ServiceView:
    return ServiceView(view.name, view.version, tuple(field.name for field in view.features))


def write_world(home: Path, events: int, spine: int, *, hot: bool = False) -> None:
    """The event log as a Delta table, the same as Parquet, and a spine, in a home directory.

    A card pays a hundred times in ninety days, a few pay much more; one payment in fifty is late, by up to half a day.
    `hot`: half of all events and of the spine are one card's.
    """
    from deltalake import write_deltalake

    rng = np.random.default_rng(_SEED)
    happened = START + np.sort(rng.integers(0, SPAN, events))
    late = np.where(rng.random(events) < 0.02, rng.integers(0, DAY // 2, events), rng.integers(0, 2_000_000, events))
    cards = _cards(rng, events, events // 100, hot)
    table = pa.table(
        {
            "event_id": pa.array(np.arange(events)).cast(pa.string()),
            "event_ts": happened,
            "available_at": happened + late,
            "topic": pa.repeat(pa.scalar("payments"), events),
            "partition": pa.array(cards % 4, pa.int32()),
            "offset": np.arange(events),
            "declared_ts": happened,
            "batch": np.ones(events, dtype=np.int64),
            "id": pa.array(np.arange(events)).cast(pa.string()),
            "at": pa.array(happened).cast(pa.timestamp("us", "UTC")),
            "card_id": cards,
            "amount": _money(rng.integers(1, 50_000, events)),
            "points": rng.integers(0, 100, events),
            "country": pa.array(np.array(["DE", "FR", "IT", "NL"])[rng.integers(0, 4, events)]),
        }
    )
    home.mkdir(parents=True)
    pq.write_table(table, home / "events.parquet")
    write_deltalake(table_path(Settings(home=home), manifest(), "log", "payments"), table)
    q = START + rng.integers(SPAN // 3, SPAN, spine)
    asked = pa.table({"n": np.arange(spine), "card_id": _cards(rng, spine, events // 100, hot), "event_timestamp": q})
    asked = asked.set_column(2, "event_timestamp", asked.column(2).cast(pa.timestamp("us", "UTC")))
    pq.write_table(asked, home / "spine.parquet")


def _cards(rng: np.random.Generator, count: int, cards: int, hot: bool) -> NDArray[np.int64]:
    found = 1 + (rng.random(count) ** 2 * cards).astype(np.int64)
    return np.where(rng.random(count) < 0.5, 0, found) if hot else found


def _money(cents: NDArray[np.int64]) -> pa.Array:
    limbs = np.zeros((len(cents), 2), dtype=np.int64)
    limbs[:, 0] = cents
    return pa.Array.from_buffers(pa.decimal128(12, 2), len(cents), [None, pa.py_buffer(limbs)])
