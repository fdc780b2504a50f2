"""Rejected records are listed, explained, repaired and replayed into a real topic, each exactly once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.records import Record
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import INT64, STRING, TIMESTAMP, micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.deadletters import ReplayBook
from coeval_pipelines.coordination import deadletter
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline import deadletters as room
from coeval_pipelines.offline.event_log import ingest_history, ingest_topic, read_log, totals
from coeval_pipelines.offline.repairs import Repaired, repair
from coeval_pipelines.streaming.broker import Broker
from tests.support import catalog
from tests.support.catalog import MONEY, WIDE_MONEY
from tests.support.offline import produce
from tests.support.poison import GOOD, POISON, START

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def world(broker: Settings, tmp_path: Path) -> tuple[Settings, Manifest, EventSource]:
    """An empty state directory and an empty topic of its own."""
    source = replace(catalog.PAYMENTS, topic=f"payments-{tmp_path.name}")
    with Broker(broker.kafka) as admin:
        admin.create(source.topic, 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    settings = broker.model_copy(update={"home": tmp_path})
    return settings, replace(catalog.manifest(), event_sources=(source,)), source


@pytest.fixture
def control(world: tuple[Settings, Manifest, EventSource]) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(world[0])) as control:
        yield control


def test_poison_is_listed_repaired_and_replayed_exactly_once(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource], control: ControlPlane
) -> None:
    settings, manifest, source = world
    headers = (("trace", b"t"),)  # no column stands in key or headers
    made = [
        Record(value, START + 11 * HOUR, place % 2, place // 2, b"k", headers)
        for place, (_, value) in enumerate(POISON)
    ]
    made.append(Record(json.dumps(GOOD).encode(), START + 11 * HOUR, 0, 3))
    produce(settings.kafka.bootstrap, source.topic, made)
    ingest_topic(spark, settings, manifest, source)
    listed = room.summaries(spark, settings, manifest, [source])
    assert {item.reason: item.count for item in listed} == Counter(reason.value for reason, _ in POISON)
    assert all(item.first == item.last == START + 11 * HOUR for item in listed)
    assert room.summaries(spark, settings, manifest, [source], since=START + DAY) == []
    shown = list(room.rejects(spark, settings, manifest, source, positions=[(0, 0), (1, 1)]))
    assert [((item.place.partition, item.place.offset), item.record.value) for item in shown] == [
        ((0, 0), POISON[0][1]),
        ((1, 1), POISON[3][1]),
    ]
    assert {(item.record.key, item.record.headers) for item in shown} == {(b"k", headers)}

    every = room.rejects(spark, settings, manifest, source)
    repaired = [repair(source, item, _mend, now()) for item in every]
    assert {item.reject.topic for item in repaired} == {source.topic}
    assert len({item.reject.log for item in repaired} - {""}) == 1
    assert Counter(bool(item.problems) for item in repaired) == {False: 5, True: 1}
    # A process dies between sending and marking: two of them were sent, and nothing says so but the topic.
    book, valid = ReplayBook(control), [item for item in repaired if not item.problems]
    _send_and_die(settings, source, control, valid[:2])
    assert [item.sent_at for item in book.of(source.name).values()] == [None, None]
    done = deadletter.replay(settings, control, source, repaired, now)
    assert (len(done.sent), len(done.recovered), len(done.refused), done.before) == (3, 2, 1, {})
    again = deadletter.replay(settings, control, source, repaired, now)
    assert (again.sent, again.recovered, set(again.before)) == ((), (), {item.reject.place for item in valid})

    ingest_topic(spark, settings, manifest, source)
    report = totals(settings, manifest, source)
    assert (report.read, report.good, report.duplicates) == (len(made) + 5, 1 + 5, 0)
    log = {row["event_id"]: row for row in read_log(spark, settings, manifest, source).collect()}
    assert log.keys() == {"e", "scale", "words", "nobody", "twice", "ahead"}
    assert {row["partition"] for row in log.values()} == {0, 1}
    assert min(row["available_at"] for name, row in log.items() if name != "e") > START + 30 * DAY


def test_rejects_of_history_files_are_read_as_they_are_and_hide_what_was_erased(
    spark: SparkSession, tmp_path: Path
) -> None:
    source = replace(catalog.PAYMENTS, history="history.parquet")
    settings = Settings(home=tmp_path)
    manifest = replace(catalog.manifest(), event_sources=(source,))
    at, kinds = datetime(2026, 3, 20, 10, tzinfo=UTC), {MONEY: pa.decimal128(9, 2), WIDE_MONEY: pa.decimal128(15, 3)}
    rows = [(4711, None, at), (42, None, at), (42, "m", None), (42, "m", at)]
    values = {"card_id": [row[0] for row in rows], "merchant_id": [row[1] for row in rows]}
    values |= {"event_id": list("abcd"), "paid_at": [row[2] for row in rows]}
    kind = {STRING: pa.string(), INT64: pa.int64(), TIMESTAMP: pa.timestamp("us", tz="UTC"), **kinds}
    columns = {item.name: pa.array(values.get(item.name, [None] * 4), kind[item.type]) for item in source.fields}
    pq.write_table(pa.table(columns), tmp_path / "history.parquet")
    ingest_history(spark, settings, manifest, source)
    ErasureTable(settings, manifest.tenant).record(Erasure("card_id", 4711, START + DAY), START + DAY, lambda: 0)
    found = list(room.rejects(spark, settings, manifest, source))
    assert [(item.erased, item.record.partition) for item in found] == [(False, -1), (True, -1), (False, -1)]
    assert b"4711" not in b"".join(item.record.value or b"" for item in found)
    assert len({item.place for item in found}) == 3
    (one,) = room.rejects(spark, settings, manifest, source, positions=[(-1, found[2].record.offset)])
    assert one == found[2]
    assert [item.reason for item in room.rejects(spark, settings, manifest, source, without=["null_required"])] == []
    (summary,) = room.summaries(spark, settings, manifest, [source])
    assert (summary.count, summary.first) == (3, micros(at))


def _mend(raw: bytes) -> bytes | None:
    """What an operator's function may look like: every kind of poison but what is cut off."""
    try:
        document = json.loads(raw)
    except ValueError:
        return raw
    return json.dumps({**GOOD, **document, "amount": "12.50", "points": 1, "card_id": 5}).encode()


def _send_and_die(settings: Settings, source: EventSource, control: ControlPlane, items: list[Repaired]) -> None:
    """What a replay does, up to the instant before it marks what it sent."""

    class _Died(BaseException):
        pass

    calls = iter((1,))

    def clock() -> int:
        if next(calls, None) is None:
            raise _Died
        return now()

    with pytest.raises(_Died):
        deadletter.replay(settings, control, source, items, clock)
