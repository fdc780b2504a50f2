"""The logs that parity reads: by which definitions, and every record of a topic once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from coeval.settings import Settings
from coeval.spec.records import Event, Reason, Record
from coeval.spec.types import Physical, micros
from coeval_parity.local_log import LocalLog
from coeval_parity.spark_log import ingested_sources
from coeval_parity.tail import Tail, _beyond
from coeval_pipelines.offline.tables import table_path
from tests.support import catalog
from tests.support.delta_log import write_log

NOON = micros(datetime(2026, 5, 4, 12, tzinfo=UTC))


def test_a_topic_is_ingested_by_the_applied_definition_whatever_the_log_is_read_by() -> None:
    applied = catalog.manifest()
    newer = replace(catalog.PAYMENTS, allowed_lateness=catalog.PAYMENTS.allowed_lateness + 1)
    assert ingested_sources(["payments", "gone"], replace(applied, event_sources=(newer,))) == [newer]


def _event(number: int, offset: int) -> Event:
    values: dict[str, Physical] = dict.fromkeys(field.name for field in catalog.PAYMENTS.fields)
    values |= {"card_id": 1, "merchant_id": "m", "amount": 100, catalog.PAYMENTS.event_ts: NOON}
    return Event(f"e{number}", NOON, NOON + 1, 0, offset, values, NOON)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home of its own."""
    return Settings(home=tmp_path)


def _write(settings: Settings, kind: str, events: list[Event]) -> None:
    path = table_path(settings, catalog.manifest(), kind, "payments")
    write_log(path, catalog.PAYMENTS, events)


def test_another_delivery_of_what_was_dropped_or_removed_is_a_duplicate_as_in_the_ingest(settings: Settings) -> None:
    dropped, removed, fresh = _event(1, 1), _event(2, 2), _event(3, 3)
    _write(settings, "log", [])
    _write(settings, "dropped", [dropped])
    _write(settings, "removed", [replace(removed, event_id=hashlib.sha256(b"e2").hexdigest())])
    again = (replace(dropped, offset=11), replace(removed, offset=12), fresh)
    good, duplicates = _beyond(settings, catalog.manifest(), catalog.PAYMENTS, 0, again)
    assert good == (fresh,)
    assert duplicates == [*again[:2]]


def test_what_an_ingest_adds_while_the_log_is_opened_counts_once(settings: Settings) -> None:
    first, second = _event(1, 1), _event(1, 2)
    _write(settings, "duplicates", [first])
    record = Record(b"x", NOON, 0, 7)
    table = pa.table(
        {
            "reason": ["unparseable"],
            "value": [b"x"],
            "available_at": [NOON],
            "partition": pa.array([0], pa.int32()),
            "offset": [7],
        }
    )
    write_deltalake(_made(table_path(settings, catalog.manifest(), "rejects", "payments")), table)
    other = replace(record, offset=8)
    rejected = tuple((item, Reason.UNPARSEABLE) for item in (record, other))
    log = LocalLog(
        settings, catalog.manifest(), {"payments": None}, {"payments": Tail((), (first, second), rejected, {})}
    )
    assert [event.offset for event in log.duplicates(catalog.LATEST, ["i1"], None)["i1"]] == [1, 2]
    assert [item.offset for item, _ in log.rejects(catalog.LATEST)] == [7, 8]


def _made(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)
