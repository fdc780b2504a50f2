"""Upkeep of the event log: few files, old events let go, erased bytes gone; and nothing else changed."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from deltalake import DeltaTable
from typer.testing import CliRunner

from coeval.errors import UsageError
from coeval.settings import Settings, load_settings
from coeval.spec.erasure import Erasure
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, FeatureService, ServiceView
from coeval.spec.records import Event, Record, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import BatchPlan, Range, ingest_journal
from coeval_pipelines.offline import removal
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.commands import register
from coeval_pipelines.offline.compaction import compact
from coeval_pipelines.offline.erased import marked_erased
from coeval_pipelines.offline.event_log import ingest_topic, read_log, totals
from coeval_pipelines.offline.log_files import data_files
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.removal import remove_erased
from coeval_pipelines.offline.retention import check_begins
from coeval_pipelines.offline.seen import seen_by
from coeval_pipelines.offline.small import small_features
from coeval_pipelines.offline.tables import append, read_whole_log, table_path
from coeval_pipelines.offline.tiles import batch_tiles, overtaken
from coeval_pipelines.offline.training.build import Wanted, build
from coeval_pipelines.offline.training.registry import pins
from coeval_pipelines.streaming.broker import Broker
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import event_frame, produce

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 12 * DAY
NUMBERS = itertools.count()
SUBJECT = 1
UNTIL = START + 8 * DAY
World = tuple[Settings, Manifest, EventSource]


@pytest.fixture
def world(broker: Settings, tmp_path: Path) -> World:
    """An empty state directory and an empty topic of its own."""
    source = replace(catalog.PAYMENTS, topic=f"upkept-{next(NUMBERS)}")
    with Broker(broker.kafka) as admin:
        admin.create(source.topic, 2, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    return broker.model_copy(update={"home": tmp_path}), replace(catalog.manifest(), event_sources=(source,)), source


def _erase(settings: Settings, manifest: Manifest) -> Erasure:
    erasure = Erasure("card_id", SUBJECT, UNTIL)
    ErasureTable(settings, manifest.tenant).record(erasure, UNTIL, lambda: 0)
    return erasure


def _on_disk(settings: Settings, manifest: Manifest, kind: str) -> list[dict[str, Any]]:
    """Every row of every data file of a table, whichever version names it, as neither Spark nor Delta sees it."""
    path = table_path(settings, manifest, kind, "payments")
    return [row for name in data_files(path) for row in pq.ParquetFile(path / name).read().to_pylist()]


def _speaks(row: Mapping[str, Any]) -> bool:
    return bool(row["card_id"] == SUBJECT and row["available_at"] <= UNTIL)


def _values(frame: DataFrame) -> Counter[str]:
    return Counter(json.dumps(row, default=str, sort_keys=True) for row in frame.toArrow().to_pylist())


def test_erased_bytes_are_gone_and_a_second_delivery_is_still_a_duplicate(
    spark: SparkSession, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, manifest, source = world
    made = records(31, 220, START, SPAN)
    # What the rules cannot parse, and yet names the subject.
    garbage = b'{"event_id": "bad", "card_id": 1, "amount": '
    made += [Record(garbage, START + DAY, 0, sum(record.partition == 0 for record in made))]
    produce(settings.kafka.bootstrap, source.topic, made)
    ingest_topic(spark, settings, manifest, source)
    before, good = totals(settings, manifest, source), ingest(source, made).good
    gone = [event for event in good if event.values["card_id"] == SUBJECT and event.available_at <= UNTIL]
    assert remove_erased(spark, settings, manifest, source) == []  # nothing is erased yet
    erasure = _erase(settings, manifest)
    kept = _values(read_log(spark, settings, manifest, source))
    taken = _taken_away(spark, world, erasure)
    assert garbage in [row["value"] for row in _on_disk(settings, manifest, "rejects")]

    # Cut off between what is written down and what is removed; then while readers may hold files; then whole.
    with monkeypatch.context() as patch:
        patch.setattr(removal._Job, "clear", _cut_off)
        with pytest.raises(_CutOffError):
            remove_erased(spark, settings, manifest, source, 0)
    held = {item.table: item for item in remove_erased(spark, settings, manifest, source, 24)}
    assert (held["log"].found, held["log"].live, held["log"].left) == (len(gone), len(gone), len(gone))
    assert held["log"].waiting
    done = {item.table: item for item in remove_erased(spark, settings, manifest, source, 0)}
    assert (done["log"].found, done["log"].live, done["log"].left) == (len(gone), 0, 0)
    assert done["log"].removed_files > 0 == done["rejects"].left == done["duplicates"].left

    assert not any(_speaks(row) for kind in ("log", "duplicates") for row in _on_disk(settings, manifest, kind))
    assert garbage not in [row["value"] for row in _on_disk(settings, manifest, "rejects")]
    traces = _on_disk(settings, manifest, "removed")
    assert {(row["partition"], row["offset"]) for row in traces} == {(e.partition, e.offset) for e in gone}
    names = {event.event_id for event in gone}
    assert all(row["card_id"] is row["amount"] is row["note"] is None for row in traces)
    assert not names & {row["event_id"] for row in traces}
    assert _values(read_log(spark, settings, manifest, source)) == kept
    assert totals(settings, manifest, source) == before
    assert _taken_away(spark, world, erasure) == taken

    again = [record for record in made if (record.partition, record.offset) in {(e.partition, e.offset) for e in gone}]
    ends = before.offsets
    later = [
        Record(record.value, UNTIL + 2 * DAY, record.partition, 10**6 + number) for number, record in enumerate(again)
    ]
    produce(settings.kafka.bootstrap, source.topic, later)
    report = ingest_topic(spark, settings, manifest, source)
    assert (report.read, report.good, report.duplicates, report.conflicts) == (len(gone), 0, len(gone), 0)
    assert sum(report.offsets.values()) == sum(ends.values()) + len(gone)
    assert _values(read_log(spark, settings, manifest, source)) == kept
    # It says what the erased event said, after the erasure: its bytes go too.
    last = {item.table: item for item in remove_erased(spark, settings, manifest, source, 0)}
    assert (last["duplicates"].live, last["duplicates"].left) == (len(gone), 0)
    assert not names & {row["event_id"] for row in _on_disk(settings, manifest, "duplicates")}


def test_what_stands_for_a_removed_event_forgets_who_is_erased_later(
    spark: SparkSession, small: tuple[Settings, Manifest], events: list[Event]
) -> None:
    settings, manifest = small
    source = catalog.PAYMENTS
    append(event_frame(spark, events), table_path(settings, manifest, "log", "payments"), "test", 1)
    _erase(settings, manifest)
    remove_erased(spark, settings, manifest, source, 0)
    first = [row for row in _on_disk(settings, manifest, "removed") if row["merchant_id"] == "m-1"]
    assert first
    late = Erasure("merchant_id", "m-1", START + 2 * SPAN)
    ErasureTable(settings, manifest.tenant).record(late, START + 2 * SPAN, lambda: 0)
    held = {item.table: item for item in remove_erased(spark, settings, manifest, source, 24)}
    assert (held["removed"].found, held["removed"].live, held["removed"].left) == (len(first), len(first), len(first))
    done = {item.table: item for item in remove_erased(spark, settings, manifest, source, 0)}
    assert (done["removed"].live, done["removed"].left) == (0, 0)
    traces = _on_disk(settings, manifest, "removed")
    assert not any(row["merchant_id"] == "m-1" for row in traces)
    both = {(row["partition"], row["offset"]): set(row["__removed"]) for row in traces}
    assert all(both[row["partition"], row["offset"]] == {"card_id", "merchant_id"} for row in first)
    # The second removal of a source keeps what it removes, too.
    gone = [event for event in events if event.values["merchant_id"] == "m-1" or _is_subject(event)]
    assert both.keys() == {(event.partition, event.offset) for event in gone}


def _is_subject(event: Event) -> bool:
    return bool(event.values["card_id"] == SUBJECT and event.available_at <= UNTIL)


class _CutOffError(BaseException):
    """Stands for the end of the process."""


def _cut_off(*_: Any) -> None:
    raise _CutOffError


def _taken_away(spark: SparkSession, world: World, erasure: Erasure) -> list[Counter[str]]:
    """What batch has to write anew because of erased events in views that other keys hold: a tile, a row's floor."""
    settings, manifest, source = world
    marked = marked_erased(read_whole_log(spark, settings, manifest, source), source, [erasure])
    # Keyed by the merchant alone: a view that the subject's events feed.
    merchant = replace(catalog.PAIR, key=(catalog.MERCHANT,), entities=("merchant",))
    latest = replace(catalog.LATEST, key=(catalog.MERCHANT,), entities=("merchant",))
    (granularity, *_) = _granularities(merchant, source)
    tiles = batch_tiles(merchant, source, granularity, seen_by(merchant, source, marked), START + SPAN + 2 * DAY)
    rows = overtaken(latest, seen_by(latest, source, marked), START + SPAN + 2 * DAY)
    return [_values(tiles), _values(rows)]


def _granularities(view: Any, source: EventSource) -> Sequence[Any]:
    from coeval.aggregations.tiles import tile_plan

    return tile_plan(view, source).granularities


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, Manifest]:
    """The settings of a home with a manifest that has one small service and no view that remembers for ever."""
    monkeypatch.setenv("COEVAL_HOME", str(tmp_path))
    load_settings.cache_clear()
    settings = load_settings()
    pair = catalog.PAIR
    service = FeatureService("small", (ServiceView(pair.name, pair.version, ("count_7d",)),), ())
    manifest = replace(catalog.manifest(), services=(service,), derived_views=())
    settings.manifest_path.write_text(manifest.to_json())
    return settings, manifest


def _run(*arguments: str) -> Any:
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def _spine(at: int) -> pa.Table:
    return pa.table(
        {"card_id": [1, 2], "merchant_id": ["m-1", "m-1"], "event_timestamp": pa.array([at, at], pa.int64())}
    )


def test_few_files_hold_the_same_and_pinned_versions_stay(
    spark: SparkSession, small: tuple[Settings, Manifest], events: list[Event]
) -> None:
    settings, manifest = small
    path = table_path(settings, manifest, "log", "payments")
    for number, part in enumerate((events[:80], events[80:160], events[160:]), start=1):
        append(event_frame(spark, part).repartition(3), path, "test", number)
        if number == 2:
            build(settings, Wanted(Asked.of(manifest, "small"), _spine(START + SPAN)), "pinned")
    before = _values(read_log(spark, settings, manifest, catalog.PAYMENTS))
    old = data_files(path)
    for options in ((), ("--by-key",)):
        document = _run("log", "compact", "payments", "--keep", "0h", *options, "--json")
        (table,) = document["tables"]
        assert table["after"]["files"] == 1
        assert table["after"]["rows"] == len(events)
        assert _values(read_log(spark, settings, manifest, catalog.PAYMENTS)) == before
    assert table["after"]["stale_files"] == len(data_files(path)) - 1
    assert len(old.keys() & data_files(path).keys()) == 6  # of the version that the training set names
    assert list(pins(settings, manifest, catalog.PAYMENTS)) == [1]
    assert DeltaTable(str(path), version=1).to_pyarrow_table().num_rows == 160
    now = DeltaTable(str(path))
    assert now.to_pyarrow_table().num_rows == len(events)
    assert not now.protocol().reader_features
    (state,) = _run("log", "status", "--json")["sources"]
    assert state["newest_available_at"] == max(event.available_at for event in events)
    assert state["pinned_versions"] == {"1": ["pinned"]}
    assert f"{len(events):,} rows" in _run("log", "status")


def test_compaction_beside_an_ingest_loses_nothing(
    spark: SparkSession, small: tuple[Settings, Manifest], events: list[Event]
) -> None:
    settings, manifest = small
    path = table_path(settings, manifest, "log", "payments")
    parts = [events[start : start + 80] for start in range(0, len(events), 80)]
    append(event_frame(spark, parts[0]), path, "test", 1)

    def ingesting() -> None:
        for number, part in enumerate(parts[1:], start=2):
            append(event_frame(spark, part), path, "test", number)

    beside = threading.Thread(target=ingesting)
    beside.start()
    while beside.is_alive():
        compact(spark, settings, manifest, catalog.PAYMENTS)
    beside.join()
    found = read_log(spark, settings, manifest, catalog.PAYMENTS).select("partition", "offset").collect()
    assert Counter((row[0], row[1]) for row in found) == Counter((e.partition, e.offset) for e in events)


def test_old_events_are_let_go_unless_something_needs_them(
    spark: SparkSession, small: tuple[Settings, Manifest], events: list[Event]
) -> None:
    settings, manifest = small
    append(event_frame(spark, events), table_path(settings, manifest, "log", "payments"), "test", 1)
    age = (micros(datetime.now(UTC)) - START) // DAY
    app = typer.Typer()
    register(app)
    with pytest.raises(UsageError, match="card_spend looks back"):
        CliRunner().invoke(app, ["log", "retain", "--older-than", "10d"], catch_exceptions=False)
    book = ingest_journal(settings, manifest.tenant, "payments")
    book.plan(BatchPlan(1, {0: Range(0, 5)}))
    with pytest.raises(UsageError, match="A batch of payments is not finished"):
        CliRunner().invoke(app, ["log", "retain", "--older-than", f"{age}d"], catch_exceptions=False)
    book.finish(1, totals(settings, manifest, catalog.PAYMENTS))
    would = _run("log", "retain", "--older-than", f"{age - 5}d", "--json")
    (counted,) = would["sources"]
    old = [event for event in events if event.event_ts < counted["before"]]
    assert (would["applied"], counted["rows"]["log"]) == (False, len(old))
    assert 0 < len(old) < len(events)
    assert read_log(spark, settings, manifest, catalog.PAYMENTS).count() == len(events)
    (done,) = _run("log", "retain", "--older-than", f"{age - 5}d", "--apply", "--keep", "0h", "--json")["sources"]
    assert read_log(spark, settings, manifest, catalog.PAYMENTS).where(f"event_ts < {done['before']}").count() == 0
    # A spine that would need them is refused; one that does not is answered as before.
    early, late = done["before"] + DAY, START + SPAN
    with pytest.raises(UsageError, match="card_merchant would need them"):
        build(settings, Wanted(Asked.of(manifest, "small"), spark.createDataFrame(_spine(early))), "early")
    with pytest.raises(UsageError, match="card_merchant would need them"):  # without Spark, too
        small_features(settings, Asked.of(manifest, "small"), _spine(early), Inputs({"payments": 1}, 0))
    check_begins(settings, manifest, [catalog.PAIR], done["before"] + 9 * DAY, {"payments": 1})
    frame = point_in_time(spark, settings, manifest, catalog.LATEST, spark.createDataFrame(_spine(late)))
    assert frame.count() == 2


def test_nothing_is_let_go_of_any_source_if_one_is_refused(small: tuple[Settings, Manifest]) -> None:
    settings, manifest = small
    other = replace(catalog.PAYMENTS, name="unneeded", topic="unneeded")
    settings.manifest_path.write_text(replace(manifest, event_sources=(other, catalog.PAYMENTS)).to_json())
    with pytest.raises(UsageError, match="card_spend looks back"):
        _run("log", "retain", "--older-than", "10d", "--apply")
    assert ingest_journal(settings, manifest.tenant, "unneeded").begins() is None


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(ingest(catalog.PAYMENTS, records(33, 240, START, SPAN)).good)
