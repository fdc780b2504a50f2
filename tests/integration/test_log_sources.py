"""The log of a source whose records carry columns beside their JSON, and whose schema grows: with a real broker."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field
from coeval.spec.records import Record, ingest
from coeval.spec.time import HOUR
from coeval.spec.types import INT64, STRING, DataType, micros
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.event_log import ingest_topic, read_log, read_rejects
from coeval_pipelines.streaming.broker import Broker
from tests.support import catalog
from tests.support.events import rfc3339
from tests.support.offline import produce

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
NUMBERS = itertools.count()
World = tuple[Settings, EventSource]


@pytest.fixture
def world(broker: Settings, tmp_path: Path) -> World:
    """An empty state directory and an empty topic of its own."""
    source = replace(catalog.PAYMENTS, topic=f"grown-{next(NUMBERS)}")
    with Broker(broker.kafka) as admin:
        admin.create(source.topic, 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    return broker.model_copy(update={"home": tmp_path}), source


def _manifest(source: EventSource) -> Manifest:
    return replace(catalog.manifest(), event_sources=(source,))


def _record(number: int, offset: int, change: dict[str, object], **extra: object) -> Record:
    at = START + number * HOUR
    document = {"event_id": f"e{number}", "paid_at": rfc3339(at), "card_id": 1, "merchant_id": "m", "amount": "1.50"}
    return Record(json.dumps(document | change).encode(), at, 0, offset, **extra)  # type: ignore[arg-type]


def _with_field(source: EventSource, name: str, data_type: DataType) -> EventSource:
    fields = (replace(field, type=data_type) if field.name == name else field for field in source.fields)
    return replace(source, fields=tuple(fields))


def test_columns_of_key_and_headers_are_in_the_log_and_rejects_keep_both(spark: SparkSession, world: World) -> None:
    settings, source = world
    extra = (Field("trace_id", STRING, origin="header:trace-id"), Field("account", INT64, False, origin="key"))
    source = replace(source, fields=(*source.fields, *extra))
    trace = [("trace-id", b"old"), ("trace-id", "new\u00e9".encode()), ("other", b"\xff")]
    made = [
        _record(0, 0, {}, key=b"42", headers=trace),
        _record(1, 1, {}, key=b"43"),
        _record(2, 2, {"account": 44}),
        _record(3, 3, {}, key=b"4x", headers=trace),
        _record(4, 4, {}, key=b"\xff"),
        _record(5, 5, {}, key=b"45", headers=[("trace-id", b"\xff")]),
        _record(6, 6, {}, key=b"46", headers=[("trace-id", b"")]),
    ]
    produce(settings.kafka.bootstrap, source.topic, made)
    manifest = _manifest(source)
    report = ingest_topic(spark, settings, manifest, source)
    expected = ingest(source, made)
    assert report.rejected == {"bad_literal": 3, "null_required": 1}
    log = {row["offset"]: row for row in read_log(spark, settings, manifest, source).toArrow().to_pylist()}
    assert log.keys() == {event.offset for event in expected.good}
    for event in expected.good:
        for field in extra:
            assert log[event.offset][field.name] == logical_array(field.type, [event.values[field.name]])[0].as_py()
    rejects = {row["offset"]: row for row in read_rejects(spark, settings, manifest, source).collect()}
    for record, _ in expected.rejected:
        row = rejects[record.offset]
        assert bytes(row["value"]) == record.value
        assert (row["key"] and bytes(row["key"])) == record.key
        assert [(header["key"], bytes(header["value"])) for header in row["headers"] or ()] == list(record.headers)


def test_a_log_grows_with_its_schema_and_old_rows_stay(spark: SparkSession, world: World) -> None:
    settings, old = world
    produce(settings.kafka.bootstrap, old.topic, [_record(0, 0, {}), _record(1, 1, {"amount": "12345678.25"})])
    assert ingest_topic(spark, settings, _manifest(old), old).rejected == {"bad_literal": 1}
    new = _with_field(old, "amount", DataType.parse("decimal(15,2)"))
    new = replace(new, fields=(*new.fields, Field("channel", STRING)))
    before = read_log(spark, settings, _manifest(new), new).select("amount", "channel")
    assert before.dtypes == [("amount", "decimal(15,2)"), ("channel", "string")]
    assert [tuple(row) for row in before.collect()] == [(Decimal("1.50"), None)]
    made = [_record(2, 2, {"amount": "12345678.25", "channel": "web"}), _record(3, 3, {})]
    produce(settings.kafka.bootstrap, old.topic, made)
    assert ingest_topic(spark, settings, _manifest(new), new).good == 2
    rows = {row["offset"]: row for row in read_log(spark, settings, _manifest(new), new).collect()}
    found = {offset: (row["amount"], row["channel"]) for offset, row in rows.items()}
    small, big = Decimal("1.50"), Decimal("12345678.25")
    assert found == {0: (small, None), 2: (big, "web"), 3: (small, None)}
    # Going back to the manifest before: its narrower type does not take the table back, and nothing is lost.
    produce(settings.kafka.bootstrap, old.topic, [_record(4, 4, {})])
    assert ingest_topic(spark, settings, _manifest(old), old).good == 1
    assert read_log(spark, settings, _manifest(new), new).where("amount = 12345678.25").count() == 1


def test_a_column_of_another_type_is_refused_by_the_log(spark: SparkSession, world: World) -> None:
    settings, source = world
    produce(settings.kafka.bootstrap, source.topic, [_record(0, 0, {"points": 5})])
    ingest_topic(spark, settings, _manifest(source), source)
    changed = _with_field(source, "points", STRING)
    produce(settings.kafka.bootstrap, source.topic, [_record(1, 1, {"points": "many"})])
    with pytest.raises(UsageError, match="has the column points as bigint, not as string"):
        ingest_topic(spark, settings, _manifest(changed), changed)
