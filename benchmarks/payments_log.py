"""Payments written straight to the Delta log, as an ingest would have left them: millions of events in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.offline.columns import sql_type
from coeval_pipelines.offline.tables import payload, table_path
from tests.support.payments import catalog
from tests.support.payments.drawing import merchant_names

COUNTRIES = ("US", "DE", "FR", "PL", "JP", "BR", "IN", "NG")


@dataclass(frozen=True, slots=True)
class Payments:
    """An entry per payment: when it happened and became available (microseconds UTC); numbers of who, where, whence."""

    at: NDArray[np.int64]
    available_at: NDArray[np.int64]
    card: NDArray[np.int64]
    merchant: NDArray[np.int64]
    country: NDArray[np.int64]


def write_payments(settings: Settings, made: Manifest, rng: np.random.Generator, payments: Payments) -> None:
    """The log of the only source of a manifest; amounts and all else are drawn."""
    from deltalake import write_deltalake

    (source,), count = made.event_sources, len(payments.at)
    cents = np.clip(rng.lognormal(8.0, 1.2, count), 1, 1e9).astype(np.int64)
    numbers, names = np.arange(count), np.array(merchant_names(int(payments.merchant.max()) + 1))
    columns: dict[str, pa.Array] = {
        "event_id": pa.array([f"hist_{number:012}" for number in numbers.tolist()]),
        **{name: pa.array(payments.at) for name in ("event_ts", "declared_ts")},
        "available_at": pa.array(payments.available_at),
        "topic": pa.repeat("", count),
        "partition": pa.repeat(pa.scalar(-1, pa.int32()), count),
        "offset": pa.array(numbers),
        "batch": pa.repeat(pa.scalar(0, pa.int64()), count),
    }
    values = {
        "occurred_at": pa.array(payments.at, pa.timestamp("us", tz="UTC")),
        "card_id": pa.array(payments.card),
        "merchant_id": pa.array(names[payments.merchant]),
        "country": pa.array(np.array(COUNTRIES)[payments.country]),
        "amount": _money(cents),
        "currency": pa.repeat("USD", count),
        "is_online": pa.array(rng.random(count) < 0.5),
        "items": pa.array(rng.integers(0, 20, count)),
        "note": pa.nulls(count, pa.string()),
    }
    columns |= {field.name: values[field.name] for field in payload(source)}
    path = table_path(settings, made, "log", source.name)
    path.parent.mkdir(parents=True)
    write_deltalake(str(path), pa.table(columns), mode="overwrite")


def _money(cents: NDArray[np.int64]) -> pa.Array:
    assert sql_type(catalog.MONEY) == "DECIMAL(12,2)"
    limbs: NDArray[Any] = np.stack([cents, np.zeros_like(cents)], axis=1)
    return pa.Array.from_buffers(pa.decimal128(12, 2), len(cents), [None, pa.py_buffer(limbs.tobytes())])
