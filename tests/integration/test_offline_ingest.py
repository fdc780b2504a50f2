"""The event log out of a real topic and real files: every record accounted for, exactly once, however it ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coeval.errors import BrokerError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.records import Ingested, Record, ingest
from coeval.spec.time import DAY, HOUR, SECOND
from coeval.spec.types import micros
from coeval_pipelines.journal import Journal
from coeval_pipelines.offline import event_log, tables
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.event_log import (
    ingest_history,
    ingest_topic,
    read_duplicates,
    read_log,
    read_rejects,
    totals,
)
from coeval_pipelines.streaming.broker import Broker
from tests.support import catalog
from tests.support.events import records, rfc3339
from tests.support.offline import produce

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
NUMBERS = itertools.count()


@pytest.fixture
def world(broker: Settings, tmp_path: Path) -> tuple[Settings, Manifest, EventSource]:
    """An empty state directory and an empty topic of its own."""
    source = replace(catalog.PAYMENTS, topic=f"payments-{next(NUMBERS)}")
    with Broker(broker.kafka) as admin:
        admin.create(source.topic, 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    settings = broker.model_copy(update={"home": tmp_path})
    return settings, replace(catalog.manifest(), event_sources=(source,)), source


def _positions(frame: Any) -> Counter[tuple[int, int]]:
    return Counter((row["partition"], row["offset"]) for row in frame.select("partition", "offset").collect())


def _assert_accounted(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource], expected: Ingested, read: int
) -> None:
    """The three tables hold what the rules say, each record once, and the report counts it."""
    settings, manifest, source = world
    log = read_log(spark, settings, manifest, source)
    rejects = read_rejects(spark, settings, manifest, source)
    duplicates = read_duplicates(spark, settings, manifest, source)
    assert _positions(log) == Counter((event.partition, event.offset) for event in expected.good)
    assert _positions(rejects) == Counter((record.partition, record.offset) for record, _ in expected.rejected)
    assert _positions(duplicates) == Counter((event.partition, event.offset) for event in expected.duplicates)
    report = totals(settings, manifest, source)
    assert report.read == read == report.good + sum(report.rejected.values()) + report.duplicates
    assert report.rejected == Counter(reason.value for _, reason in expected.rejected)
    assert report.conflicts == expected.conflicts


def test_every_record_is_good_rejected_or_duplicate(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource]
) -> None:
    settings, manifest, source = world
    made = records(7, 800, START, 9 * DAY)
    half = len(made) // 2
    produce(settings.kafka.bootstrap, source.topic, made[:half])
    first = ingest_topic(spark, settings, manifest, source)
    produce(settings.kafka.bootstrap, source.topic, made[half:])
    second = ingest_topic(spark, settings, manifest, source)
    again = ingest_topic(spark, settings, manifest, source)
    assert (first.read, second.read, again.read) == (half, len(made) - half, 0)
    assert again.offsets == {0: first.offsets[0] + _in(made[half:], 0), 1: first.offsets[1] + _in(made[half:], 1)}
    expected = ingest(source, made)
    assert expected.duplicates
    _assert_accounted(spark, world, expected, len(made))
    lates = totals(settings, manifest, source).late
    assert lates["5m"] == sum(_late(event.event_ts, event.available_at, 300 * SECOND) for event in expected.good)
    assert 0 < lates["24h"] < lates["1h"] <= lates["5m"]


def _in(made: Sequence[Record], partition: int) -> int:
    return sum(record.partition == partition for record in made)


def _late(event_ts: int, available_at: int, hop: int) -> bool:
    return available_at >= event_ts - event_ts % hop + hop + catalog.PAYMENTS.allowed_lateness


def test_what_is_in_the_log_is_what_was_sent(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource]
) -> None:
    settings, manifest, source = world
    made = records(8, 120, START, DAY)
    made += _oddities(START + 2 * DAY, _in(made, 0))
    produce(settings.kafka.bootstrap, source.topic, made)
    ingest_topic(spark, settings, manifest, source)
    expected = ingest(source, made)
    assert {"ancient", "nul"} < {event.event_id for event in expected.good}
    rows = {(r["partition"], r["offset"]): r for r in read_log(spark, settings, manifest, source).toArrow().to_pylist()}
    for event in expected.good:
        row = rows[event.partition, event.offset]
        assert (row["event_id"], row["event_ts"], row["available_at"], row["declared_ts"]) == (
            event.event_id, event.event_ts, event.available_at, event.declared_ts,
        )  # fmt: skip
        for field in source.fields:
            assert row[field.name] == logical_array(field.type, [event.values[field.name]]).to_pylist()[0], field.name
    rejects = {(r["partition"], r["offset"]): r for r in read_rejects(spark, settings, manifest, source).collect()}
    for record, reason in expected.rejected:
        row = rejects[record.partition, record.offset]
        assert (row["reason"], bytes(row["value"]), row["available_at"]) == (reason, record.value, record.available_at)
    reached = read_log(spark, settings, manifest, source, up_to={0: 5, 1: 3})
    assert all(offset < {0: 5, 1: 3}[partition] for partition, offset in _positions(reached))


def _oddities(at: int, offset: int) -> list[Record]:
    """Records that are valid, or not, in ways that an engine may choke on."""
    base = {"event_id": "e", "paid_at": rfc3339(START), "card_id": 1, "merchant_id": "m"}
    changes: list[dict[str, Any]] = [
        {"event_id": "ancient", "paid_at": "0001-01-01T00:00:00Z"},
        {"event_id": "nul", "note": "a\0b"},
        {"event_id": "half", "note": "a surrogate's half: \ud800"},
        {"event_id": "deep", "note": json.loads("[" * 900 + "]" * 900)},
    ]
    values = [json.dumps(base | change).encode() for change in changes]
    values += [b"[" * 100_000, b"", b"\xff{}", json.dumps(base).encode() + b"{}", b'{"points": ' + b"9" * 5000 + b"}"]
    return [Record(value, at, 0, offset + number) for number, value in enumerate(values)]


class _CutOffError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("appends", [0, 1, 2, 3])
def test_an_ingest_cut_off_after_any_append_ends_right(
    appends: int,
    spark: SparkSession,
    world: tuple[Settings, Manifest, EventSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, manifest, source = world
    made = records(9 + appends, 200, START, 3 * DAY)
    produce(settings.kafka.bootstrap, source.topic, made[:150])
    append, left = tables.append, [appends]

    def cut_off(*arguments: Any) -> None:
        if not left[0]:
            raise _CutOffError
        left[0] -= 1
        append(*arguments)

    def no_report(*_: Any) -> None:
        raise _CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(event_log, "append", cut_off)
        patch.setattr(Journal, "finish", no_report)
        with pytest.raises(_CutOffError):
            ingest_topic(spark, settings, manifest, source)
    produce(settings.kafka.bootstrap, source.topic, made[150:])
    report = ingest_topic(spark, settings, manifest, source)
    assert report.read == len(made)
    _assert_accounted(spark, world, ingest(source, made), len(made))


def test_an_ingest_killed_while_it_writes_ends_right(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource], tmp_path: Path
) -> None:
    settings, manifest, source = world
    made = records(13, 400, START, 3 * DAY)
    produce(settings.kafka.bootstrap, source.topic, made)
    (tmp_path / "manifest.json").write_text(manifest.to_json())
    environment = os.environ | {
        "COEVAL_HOME": str(tmp_path), "COEVAL_KAFKA__BOOTSTRAP": settings.kafka.bootstrap,
    }  # fmt: skip
    command = (
        "from coeval_pipelines.offline.commands import register; a = __import__('typer').Typer(); register(a); a()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", command, "log", "ingest"],
        env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    rejects = tmp_path / "delta" / manifest.tenant / "rejects"
    deadline = time.monotonic() + 180
    while not rejects.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert child.poll() is None, child.communicate()[1].decode()
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert rejects.exists()
    assert totals(settings, manifest, source).read == 0
    assert ingest_topic(spark, settings, manifest, source).read == len(made)
    _assert_accounted(spark, world, ingest(source, made), len(made))


def _history(path: Path, rows: Sequence[tuple[str | None, int | None, int | None, int]], **change: Any) -> None:
    """Rows (event id, time, card, points)."""
    columns: dict[str, list[Any]] = {
        "event_id": [row[0] for row in rows], "paid_at": [row[1] for row in rows], "card_id": [row[2] for row in rows],
        "merchant_id": ["m"] * len(rows), "amount": [150] * len(rows), "fee": [None] * len(rows),
        "points": [row[3] for row in rows], "note": [None] * len(rows),
    }  # fmt: skip
    arrays = {f.name: logical_array(f.type, columns[f.name]) for f in catalog.PAYMENTS.fields} | change
    path.mkdir(exist_ok=True)
    pq.write_table(pa.table(arrays), path / "part-0.parquet")


def _with_history(world: tuple[Settings, Manifest, EventSource]) -> tuple[Settings, Manifest, EventSource]:
    settings, manifest, source = world
    source = replace(source, history="history")
    return settings, replace(manifest, event_sources=(source,)), source


def test_history_is_loaded_once_and_the_topic_may_repeat_it(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource]
) -> None:
    settings, manifest, source = world = _with_history(world)
    old = [("b", START + HOUR, 1, 5), ("a", START + HOUR, 1, 4), ("a", START + HOUR, 1, 4), ("a", START + HOUR, 1, 9)]
    _history(settings.home / "history", [*old, (None, START, 1, 0), ("x", None, 1, 0), ("y", START, None, 0)])
    with pytest.raises(UsageError, match="has not been loaded"):
        ingest_topic(spark, settings, manifest, source)
    report = ingest_history(spark, settings, manifest, source)
    assert (report.read, report.good, report.duplicates, report.conflicts) == (7, 2, 2, 1)
    assert report.rejected == {"null_required": 3}
    assert ingest_history(spark, settings, manifest, source).read == 0
    document = {"event_id": "b", "paid_at": rfc3339(START + HOUR), "card_id": 1, "merchant_id": "m"}
    document |= {"amount": "1.50", "points": 5}
    produce(settings.kafka.bootstrap, source.topic, [Record(json.dumps(document).encode(), START + DAY, 0, 0)])
    assert ingest_topic(spark, settings, manifest, source).duplicates == 1
    log = {row["event_id"]: row for row in read_log(spark, settings, manifest, source).collect()}
    assert sorted(log) == ["a", "b"]
    assert all((row["partition"], row["available_at"]) == (-1, row["event_ts"]) for row in log.values())
    assert log["a"]["offset"] < log["b"]["offset"]
    assert log["a"]["points"] == 4
    assert totals(settings, manifest, source).read == 8


def test_history_of_another_type_is_refused(spark: SparkSession, world: tuple[Settings, Manifest, EventSource]) -> None:
    settings, manifest, source = _with_history(world)
    row = ("a", START, 1, 1)
    _history(settings.home / "history", [row], amount=pa.array([1.5]))
    with pytest.raises(UsageError, match=r"amount .* is declared decimal\(9,2\), but the files hold double"):
        ingest_history(spark, settings, manifest, source)
    _history(settings.home / "history", [row], paid_at=pa.array([START], pa.timestamp("us")))
    with pytest.raises(UsageError, match="time zone"):
        ingest_history(spark, settings, manifest, source)


def test_a_topic_that_lost_records_is_refused(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource]
) -> None:
    settings, manifest, source = world
    produce(settings.kafka.bootstrap, source.topic, records(3, 20, START, DAY))
    ingest_topic(spark, settings, manifest, source)
    fresh = replace(source, topic=source.topic + "-again")
    with Broker(settings.kafka) as admin:
        admin.create(fresh.topic, 2, {})
    with pytest.raises(BrokerError, match="has been read up to"):
        ingest_topic(spark, settings, manifest, fresh)


def test_a_missing_topic_is_named(spark: SparkSession, world: tuple[Settings, Manifest, EventSource]) -> None:
    settings, manifest, source = world
    with pytest.raises(BrokerError, match="no topic nowhere"):
        ingest_topic(spark, settings, manifest, replace(source, topic="nowhere"))
