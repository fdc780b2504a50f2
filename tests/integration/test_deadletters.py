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

import pytest

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.records import Reason, Record
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.deadletters import ReplayBook
from coeval_pipelines.coordination import deadletter
from coeval_pipelines.coordination.deploy import now
from coeval_pipelines.offline import deadletters as room
from coeval_pipelines.offline.deadletters import Reject, Repaired
from coeval_pipelines.offline.event_log import ingest_topic, read_log, totals
from coeval_pipelines.streaming.broker import Broker
from tests.support import catalog
from tests.support.offline import produce

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
GOOD = {"event_id": "e", "paid_at": "2026-03-20T10:00:00Z", "card_id": 1, "merchant_id": "m", "amount": "1.00"}
POISON = (
    (Reason.BAD_LITERAL, json.dumps({**GOOD, "event_id": "scale", "amount": "12.505"}).encode()),
    (Reason.BAD_LITERAL, json.dumps({**GOOD, "event_id": "words", "amount": "twelve", "points": "x"}).encode()),
    (Reason.NULL_REQUIRED, json.dumps({**GOOD, "event_id": "nobody", "card_id": None}).encode()),
    (Reason.UNPARSEABLE, b'{"event_id": "cut o'),
    (Reason.DUPLICATE_FIELD, b'{"event_id": "twice", "amount": "1.00", "amount": "2.00"}'),
    (Reason.FUTURE_DATED, json.dumps({**GOOD, "event_id": "ahead", "paid_at": "2026-03-21T10:00:00Z"}).encode()),
)


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


def _reject(value: bytes, reason: Reason = Reason.BAD_LITERAL, at: int = START + 11 * HOUR) -> Reject:
    return Reject("payments", reason, Record(value, at, 0, 7))


def test_what_is_wrong_is_said_by_field() -> None:
    says = {reason: room.why(catalog.PAYMENTS, _reject(value, reason)) for reason, value in POISON}
    assert room.why(catalog.PAYMENTS, _reject(POISON[0][1])) == ["amount: '12.505' is no decimal(9,2) (bad_literal)"]
    assert len(says[Reason.BAD_LITERAL]) == 2  # both fields of the one with words
    assert says[Reason.NULL_REQUIRED] == ["card_id: no int64 (null_required)"]
    assert "a key stands twice" in says[Reason.DUPLICATE_FIELD][0]
    assert says[Reason.FUTURE_DATED] == ["paid_at: ahead of its record (future_dated)"]
    assert "Unterminated string" in says[Reason.UNPARSEABLE][0]
    assert room.why(catalog.PAYMENTS, _reject(json.dumps(GOOD).encode())) == []


def test_a_repair_is_judged_before_anything_is_sent() -> None:
    change = room.setting(catalog.PAYMENTS, ["amount=12.50"])
    mended = room.repair(catalog.PAYMENTS, _reject(POISON[0][1]), change, START + DAY)
    assert not mended.problems
    assert json.loads(mended.value or b"")["amount"] == "12.50"
    still = room.repair(catalog.PAYMENTS, _reject(POISON[1][1]), change, START + DAY)
    assert still.problems == ("points: 'x' is no int64 (bad_literal)",)
    # The clock has passed it by.
    assert not room.repair(catalog.PAYMENTS, _reject(POISON[5][1]), None, START + 2 * DAY).problems
    assert (
        room.repair(catalog.PAYMENTS, _reject(POISON[3][1]), change, START + DAY).problems[0].startswith("the repair")
    )
    twice = room.repair(
        catalog.PAYMENTS, _reject(POISON[4][1]), room.setting(catalog.PAYMENTS, ["note=x"]), START + DAY
    )
    assert "amount stands twice" in twice.problems[0]
    left_out = room.repair(catalog.PAYMENTS, _reject(POISON[0][1]), lambda raw: None, START + DAY)
    assert left_out.problems == ("the repair left it out",)


def test_numbers_keep_every_digit_through_a_repair() -> None:
    raw = b'{"event_id": "e", "paid_at": "2026-03-20T10:00:00Z", "card_id": 9007199254740993, "merchant_id": "m",'
    raw += b' "amount": 0.10}'
    mended = room.repair(catalog.PAYMENTS, _reject(raw), room.setting(catalog.PAYMENTS, ["note=null"]), START + DAY)
    document = json.loads(mended.value or b"")
    assert (document["card_id"], document["amount"], document["note"]) == ("9007199254740993", "0.10", None)
    assert not mended.problems


@pytest.mark.parametrize("text", ["amount", "amuont=1", "=1"])
def test_a_field_that_the_source_does_not_have_is_not_set(text: str) -> None:
    with pytest.raises(UsageError, match="sets no field"):
        room.setting(catalog.PAYMENTS, [text])


def test_poison_is_listed_repaired_and_replayed_exactly_once(
    spark: SparkSession, world: tuple[Settings, Manifest, EventSource], control: ControlPlane
) -> None:
    settings, manifest, source = world
    made = [Record(value, START + 11 * HOUR, place % 2, place // 2) for place, (_, value) in enumerate(POISON)]
    made.append(Record(json.dumps(GOOD).encode(), START + 11 * HOUR, 0, 3))
    produce(settings.kafka.bootstrap, source.topic, made)
    ingest_topic(spark, settings, manifest, source)
    listed = room.summaries(spark, settings, manifest, [source])
    assert {item.reason: item.count for item in listed} == Counter(reason.value for reason, _ in POISON)
    assert all(item.first == item.last == START + 11 * HOUR for item in listed)
    assert room.summaries(spark, settings, manifest, [source], since=START + DAY) == []
    shown = room.rejects(spark, settings, manifest, source, positions=[(0, 0), (1, 1)])
    assert [(item.position, item.record.value) for item in shown] == [((0, 0), POISON[0][1]), ((1, 1), POISON[3][1])]

    every = room.rejects(spark, settings, manifest, source)
    repaired = [room.repair(source, item, _mend, now()) for item in every]
    assert Counter(bool(item.problems) for item in repaired) == {False: 5, True: 1}
    # A process dies between sending and marking: two of them were sent, and nothing says so but the topic.
    book, valid = ReplayBook(control), [item for item in repaired if not item.problems]
    _send_and_die(settings, source, control, valid[:2])
    assert [item.sent_at for item in book.of(source.name).values()] == [None, None]
    done = deadletter.replay(settings, control, source, repaired, now)
    assert (len(done.sent), len(done.recovered), len(done.refused), done.before) == (3, 2, 1, {})
    again = deadletter.replay(settings, control, source, repaired, now)
    assert (again.sent, again.recovered, set(again.before)) == ((), (), {item.reject.position for item in valid})

    ingest_topic(spark, settings, manifest, source)
    report = totals(settings, manifest, source)
    assert (report.read, report.good, report.duplicates) == (len(made) + 5, 1 + 5, 0)
    log = {row["event_id"]: row for row in read_log(spark, settings, manifest, source).collect()}
    assert log.keys() == {"e", "scale", "words", "nobody", "twice", "ahead"}
    assert {row["partition"] for row in log.values()} == {0, 1}
    assert min(row["available_at"] for name, row in log.items() if name != "e") > START + 30 * DAY


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
