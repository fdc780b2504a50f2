"""Data quality over real logs: what breaks a rule is named and held back, by pandas and Spark, and nothing is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from coeval.errors import CheckFailedError, UsageError
from coeval.settings import Settings, load_settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Expected, Field
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY
from coeval.spec.types import INT64, STRING, TIMESTAMP, micros
from coeval_parity.quality.commands import register
from coeval_parity.quality.decide import drop, release
from coeval_parity.quality.named_rows import named_rows
from coeval_parity.quality.result import QualityResult
from coeval_parity.quality.run import RowsAtFault, run_quality
from coeval_parity.served import _append as _append_served
from coeval_parity.served import served_path
from coeval_parity.served_features import UNREADABLE, served_columns
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import QUALITY, CheckBook
from coeval_pipelines.journal import BatchPlan, IngestReport, Range, ingest_journal
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.small import small_features
from coeval_pipelines.offline.tables import latest_version, read_dropped, read_log, table_path
from coeval_pipelines.quarantine import Quarantine, check_quarantine
from tests.support import catalog
from tests.support.delta_log import log_table
from tests.support.events import records

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SEED = 20261122
World = tuple[Settings, Manifest, EventSource]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A log of two batches, the second with three amounts that the catalog does not expect, and one that is null."""
    fields = tuple(
        replace(field, expected=Expected(low="0", high="100000")) if field.name == "amount" else field
        for field in catalog.PAYMENTS.fields
    )
    source = replace(catalog.PAYMENTS, fields=fields)
    manifest = replace(catalog.manifest(), event_sources=(source,))
    settings = Settings(home=tmp_path)
    settings.manifest_path.write_text(manifest.to_json())
    print(f"seed {SEED}")
    good = [_sane(event) for event in ingest(source, records(SEED, 300, START, 3 * DAY)).good]
    wrong = [replace(event, values=event.values | {"amount": -500}) for event in good[200:203]]
    _append(settings, manifest, source, 1, good[:200])
    _append(settings, manifest, source, 2, [*wrong, *good[203:]])
    return settings, manifest, source


def _sane(event: Event) -> Event:
    amount = event.values["amount"]
    return replace(event, values=event.values | {"amount": abs(amount) % 10_000_000 if amount is not None else None})


def _append(settings: Settings, manifest: Manifest, source: EventSource, batch: int, events: list[Event]) -> None:
    """What an ingest of a batch leaves behind."""
    book = ingest_journal(settings, manifest.tenant, source.name)
    book.plan(BatchPlan(batch, {0: Range(0, 0)}))
    table = log_table(source, events)
    for name, values in (("batch", [batch] * len(events)), ("topic", ["payments"] * len(events))):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    path = table_path(settings, manifest, "log", source.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), table, mode="append")
    book.finish(batch, IngestReport(source.name, read=len(events), good=len(events)))


def _run(world: World, **more: Any) -> QualityResult:
    return run_quality(world[0], [], world[0].home / "suites", **more)


def _broken(result: QualityResult, batch: int) -> list[tuple[str, str, int]]:
    (check,) = [item for item in result.checks if item.batch == batch]
    return [
        (item.rule.removeprefix("expect_column_values_to_"), item.column, item.rows)
        for item in check.rules
        if item.breaks
    ]


def test_what_breaks_a_rule_is_named_and_holds_the_log_back(world: World) -> None:
    settings, manifest, source = world
    result = _run(world)
    assert not result.passed
    assert _broken(result, 1) == []
    assert [(item.batch, item.passed, item.engine) for item in result.checks] == [
        (1, True, "pandas"),
        (2, False, "pandas"),
    ]
    assert _broken(result, 2) == [("be_between", "amount", 3)]
    named = named_rows(settings, manifest, source, 2)
    log = DeltaTable(str(table_path(settings, manifest, "log", source.name))).to_pyarrow_table()
    negative = [row for row in log.to_pylist() if row["amount"] is not None and row["amount"] < 0]
    position = ("topic", "partition", "offset")
    assert {tuple(row[name] for name in position) for row in named.to_pylist()} == {
        tuple(row[name] for name in position) for row in negative
    }
    # No value of the data is in what the pages are made of.
    pages = list((settings.home / "quality").rglob("*.html")) + list((settings.home / "quality").rglob("*.json"))
    assert Path(result.docs).exists()
    assert not any("-5.00" in page.read_text() for page in pages)
    with pytest.raises(CheckFailedError, match="Batch 2 of payments is quarantined"):
        check_quarantine(settings, manifest.tenant, manifest.views.values())
    asked = Asked.of(manifest, manifest.services[0].name)
    inputs = Inputs({source.name: latest_version(table_path(settings, manifest, "log", source.name))}, 0)
    spine = _spine()
    with pytest.raises(CheckFailedError):
        small_features(settings, asked, spine, inputs)
    release(settings, manifest, source, 2, "these are refunds")
    assert small_features(settings, asked, spine, inputs).num_rows == spine.num_rows
    # What has a verdict is not checked again unless it is asked for.
    assert not _run(world).checks


def _spine() -> pa.Table:
    return pa.table(
        {
            "card_id": pa.array([1, 2]),
            "merchant_id": pa.array(["m-1", "m-1"]),
            "payment_amount": pa.array([Decimal("1.00")] * 2, pa.decimal128(9, 2)),
            "event_timestamp": pa.array([START + 2 * DAY] * 2, pa.timestamp("us", tz="UTC")),
        }
    )


def test_spark_finds_the_same_rows_and_dropped_ones_are_kept(world: World, spark: SparkSession) -> None:
    settings, manifest, source = world
    small, large = _run(world, engine="pandas"), _run(world, engine="spark", spark=spark, batch=2)
    assert [item.engine for item in large.checks] == ["spark"]
    assert _broken(large, 2) == _broken(small, 2)
    assert named_rows(settings, manifest, source, 2).num_rows == 3
    before = read_log(spark, settings, manifest, source).count()
    _, moved = drop(spark, settings, manifest, source, 2, "the till sent refunds as sales")
    assert moved == 3
    assert read_log(spark, settings, manifest, source).count() == before - 3
    kept = read_dropped(spark, settings, manifest, source).collect()
    assert [row["amount"] for row in kept] == [Decimal("-5.00")] * 3
    check_quarantine(settings, manifest.tenant, manifest.views.values())
    (_, verdict) = Quarantine(settings, manifest.tenant, source.name).verdicts()
    assert (verdict.decision, verdict.why) == ("dropped", "the till sent refunds as sales")
    assert _run(world, batch=2).passed
    with pytest.raises(UsageError, match="not quarantined"):
        drop(spark, settings, manifest, source, 2, "again")
    # Another batch of the source: what it loses is kept beside what the first lost.
    (event, *_) = ingest(source, records(SEED + 1, 20, START, DAY)).good
    wrong = replace(event, partition=5, values=event.values | {"amount": -700})
    _append(settings, manifest, source, 3, [wrong])
    assert not _run(world).passed
    _, moved = drop(spark, settings, manifest, source, 3, "the till again")
    assert moved == 1
    amounts = sorted(row["amount"] for row in read_dropped(spark, settings, manifest, source).collect())
    assert amounts == [Decimal("-7.00"), *[Decimal("-5.00")] * 3]
    assert read_log(spark, settings, manifest, source).where("batch = 3").count() == 0


def test_rules_of_ones_own_count_and_a_warning_does_not_fail(world: World) -> None:
    settings, manifest, source = world
    suites = settings.home / "suites"
    suites.mkdir()
    rules = [
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "merchant_id", "value_set": ["m-1"]}},
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10_000}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "note"}, "severity": "warning"},
    ]
    (suites / "payments.json").write_text(json.dumps({"expectations": rules}))
    result = _run(world, batch=1)
    broken = {rule: rows for rule, _, rows in _broken(result, 1)}
    assert broken["be_in_set"] > 0
    assert broken["expect_table_row_count_to_be_between"] == 0
    assert "not_be_null" not in broken
    # A rule that names no row leaves nothing to drop.
    with pytest.raises(UsageError, match="no single row"):
        drop(None, settings, manifest, source, 1, "why")  # type: ignore[arg-type]
    (suites / "payments.json").write_text('{"expectations": [{"type": "expect_nonsense", "kwargs": {}}]}')
    with pytest.raises(UsageError, match="expect"):
        _run(world, batch=1)


def test_what_is_refused_is_refused_before_anything_is_checked_and_a_cut_off_run_keeps_its_verdicts(
    world: World,
) -> None:
    settings, manifest, source = world
    book = Quarantine(settings, manifest.tenant, source.name)
    with pytest.raises(UsageError, match="There is no table"):
        run_quality(settings, ["log:payments", "training:none"], settings.home / "suites")
    assert not book.verdicts()

    def cut_off(message: str) -> None:
        if "batch 2" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(world, say=cut_off)
    (verdict,) = book.verdicts()
    with closing(ControlPlane.open(settings)) as control:
        found = CheckBook(control).run(QUALITY)
    assert found is not None
    assert (found[0], len(found[1]["checks"])) == (verdict.run, 1)
    assert [item.batch for item in _run(world).checks] == [2]


def test_a_decision_without_a_reason_changes_nothing(world: World) -> None:
    settings, manifest, source = world
    _run(world)
    with pytest.raises(UsageError, match="needs a reason"):
        drop(None, settings, manifest, source, 2, " ")  # type: ignore[arg-type]
    assert Quarantine(settings, manifest.tenant, source.name).quarantined(2)


def test_values_that_rules_observe_are_not_kept(world: World) -> None:
    settings, manifest, _ = world
    suites = settings.home / "suites"
    suites.mkdir()
    rules = [
        {"type": "expect_column_max_to_be_between", "kwargs": {"column": "amount", "max_value": 1}},
        {"type": "expect_column_distinct_values_to_be_in_set", "kwargs": {"column": "note", "value_set": ["x"]}},
        {
            "type": "expect_column_quantile_values_to_be_between",
            "kwargs": {"column": "points", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[-2, -1]]}},
        },
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10_000}},
    ]
    (suites / "payments.json").write_text(json.dumps({"expectations": rules}))
    result = _run(world, batch=1)
    observed = {item.rule: item.observed for item in result.checks[0].rules if item.breaks}
    assert observed == {
        "expect_column_max_to_be_between": "",
        "expect_column_distinct_values_to_be_in_set": "",
        "expect_column_quantile_values_to_be_between": "",
        "expect_table_row_count_to_be_between": "200",
    }
    # Of a table of features, keys say which rows are wrong: not in the pages either.
    path = settings.home / "features.parquet"
    pq.write_table(pa.table({"card_id": pa.array([777123, None]), "v__x": pa.array([1.0, 2.0])}), path)
    (suites / "features.json").write_text(
        json.dumps({"expectations": [{"type": rules[0]["type"], "kwargs": {"column": "v__x", "max_value": 1}}]})
    )
    assert not run_quality(settings, [str(path)], suites).passed
    kept = [item for item in (settings.home / "quality").rglob("*") if item.suffix in (".html", ".json")]
    log = DeltaTable(str(table_path(settings, manifest, "log", "payments"))).to_pyarrow_table()
    largest = str(max(row for row in log.column("amount").to_pylist() if row is not None))
    assert any("payments" in item.name or "payments" in str(item) for item in kept)
    for text in (item.read_text() for item in kept):
        assert largest not in text
        assert "two\nlines" not in text
        assert "777123" not in text


def _suite(kind: str, **kwargs: object) -> str:
    return json.dumps({"expectations": [{"type": kind, "kwargs": kwargs}]})


def test_a_suite_is_refused_before_anything_is_checked_where_it_does_not_fit(world: World) -> None:
    settings, manifest, source = world
    suites = settings.home / "suites"
    suites.mkdir()
    exists = "expect_column_to_exist"
    for said, message in (
        (_suite("expect_column_values_to_be_unique", column="amuont"), "amuont"),
        (_suite("expect_column_pair_values_to_be_equal", column_A="amount", column_B="fees"), "fees"),
        (_suite("expect_compound_columns_to_be_unique", column_list=["amount", "cents"]), "cents"),
        (_suite(exists, column="amount").replace('{"column": "amount"}', '"amount"'), "is not a suite"),
        (_suite(exists, column="amount").replace('"kwargs"', '"severity": "loud", "kwargs"'), "cannot be checked"),
        ("[]", "is not a suite"),
        ("{", "is not a suite"),
    ):
        (suites / "payments.json").write_text(said)
        with pytest.raises(UsageError, match=message):
            _run(world)
    assert not Quarantine(settings, manifest.tenant, source.name).verdicts()
    # Of nothing that is here: said, and not used.
    (suites / "payments.json").rename(suites / "payment.json")
    heard: list[str] = []
    _run(world, say=heard.append)
    assert any("payment.json is not used" in message for message in heard)


def test_what_kept_a_rule_from_being_checked_is_told_without_values(world: World) -> None:
    settings, _, _ = world
    suites = settings.home / "suites"
    suites.mkdir()
    (suites / "payments.json").write_text(_suite("expect_column_mean_to_be_between", column="merchant_id", max_value=1))
    (check,) = _run(world, batch=1).checks
    errors = {item.rule: item.error for item in check.rules if item.error}
    assert errors == {"expect_column_mean_to_be_between": "TypeError"}
    kept = [item for item in (settings.home / "quality").rglob("*") if item.suffix in (".html", ".json")]
    # Pandas says which text it cannot convert: that of all rows, one after the other.
    assert not any(re.search(r"m-\dm-\d", item.read_text()) for item in kept)


def _served(settings: Settings, manifest: Manifest) -> None:
    """Three responses: as they should be, with an amount below its bounds, and with a count that is none."""
    names = served_columns(manifest, "risk").features
    values: list[dict[str, Any]] = [
        {"latest_payment__amount": "5.00", "card_spend__sum_amount_1h": "7.10", "against_usual__ratio": 0.5},
        {"latest_payment__amount": "-5.00", "latest_payment__note": "777123"},
        {"card_spend__count_1h": "many"},
    ]
    shared = {"topic": "bank.served", "partition": 0, "service": "risk", "manifest": manifest.hash, "statuses": "{}"}
    rows = [
        {
            "offset": number,
            "at": START + number * DAY,
            "entities": json.dumps({"card_id": 7 + number, "merchant_id": "m-1"}),
            "features": json.dumps(dict.fromkeys(names) | features),
            **shared,
        }
        for number, features in enumerate(values)
    ]
    _append_served(served_path(settings, manifest.tenant), rows)


def _expecting(manifest: Manifest) -> Manifest:
    """The catalog, with bounds of a feature."""
    (latest,) = manifest.row_views
    bounded = (replace(item, expected=Expected(low="0")) if item.name == "amount" else item for item in latest.features)
    return replace(manifest, row_views=(replace(latest, features=tuple(bounded)),))


def test_what_was_served_and_training_sets_are_checked_alike_by_both_engines(world: World, spark: SparkSession) -> None:
    settings = world[0]
    manifest = _expecting(world[1])
    settings.manifest_path.write_text(manifest.to_json())
    _served(settings, manifest)
    trained = {
        "card_id": pa.array([1, 2, None]),
        "event_timestamp": pa.array([START, START, START + DAY], pa.timestamp("us", tz="UTC")),
        "latest_payment__amount": pa.array([Decimal("-1.00"), None, Decimal("2.00")], pa.decimal128(9, 2)),
    }
    path = table_path(settings, manifest, "training_sets", "march")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), pa.table(trained))
    subjects, suites = ["served:risk", "training:march"], settings.home / "suites"
    suites.mkdir()
    (suites / "served_risk.json").write_text(_suite("expect_column_values_to_be_unique", column="card_id"))
    found: dict[str, list[tuple[Any, ...]]] = {}
    for engine in ("pandas", "spark"):
        at_fault: list[RowsAtFault] = []
        result = run_quality(
            settings, subjects, suites, engine=engine, ingest=False, spark=spark, on_rows=at_fault.append
        )
        assert [(item.subject, item.engine, item.rows) for item in result.checks] == [
            ("served:risk", engine, 3),
            ("training:march", engine, 3),
        ]
        assert not any(rule.error for item in result.checks for rule in item.rules)
        assert [len(item.rules) for item in result.checks] == [len(result.checks[0].rules), 4]
        found[engine] = [(item.check, item.rule, item.column, _first(item)) for item in at_fault]
        kept = [item for item in (settings.home / "quality").rglob("*") if item.suffix in (".html", ".json")]
        assert not any("777123" in item.read_text() for item in kept)
        recent = run_quality(settings, subjects[:1], suites, engine=engine, last=DAY, ingest=False, spark=spark)
        assert recent.checks[0].rows == 1
    values = "expect_column_values_to_"
    assert found["pandas"] == found["spark"]
    assert found["pandas"] == [
        ("served:risk", f"{values}be_between", "latest_payment__amount", 8),
        ("served:risk", f"{values}be_null", UNREADABLE, 9),
        ("training:march", f"{values}not_be_null", "card_id", None),
        ("training:march", f"{values}be_between", "latest_payment__amount", 1),
    ]


def _first(found: RowsAtFault) -> int | None:
    """The card of the only row at fault."""
    ((card, *_),) = found.rows
    return None if card is None else int(card)


def test_a_batch_from_before_the_catalog_gained_a_column_is_checked(world: World) -> None:
    settings, manifest, source = world
    kinds = {"channel": STRING, "visits": INT64, "tip": catalog.MONEY, "since": TIMESTAMP}
    more = tuple(Field(name, kind) for name, kind in kinds.items())
    changed = replace(manifest, event_sources=(replace(source, fields=(*source.fields, *more)),))
    settings.manifest_path.write_text(changed.to_json())
    result = _run(world)
    assert _broken(result, 1) == []
    assert _broken(result, 2) == [("be_between", "amount", 3)]


@pytest.fixture
def command(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[typer.Typer]:
    """The command group, over the home of the world."""
    monkeypatch.setenv("COEVAL_HOME", str(world[0].home))
    load_settings.cache_clear()
    app = typer.Typer()
    register(app)
    yield app
    load_settings.cache_clear()


def test_the_command_fails_shows_suggests_and_releases(command: typer.Typer) -> None:
    runner = CliRunner()
    failed = runner.invoke(command, ["quality", "run", "log:payments"])
    assert isinstance(failed.exception, CheckFailedError)
    assert "quarantined: payments batch 2" in failed.stdout
    named = runner.invoke(command, ["quality", "run", "log:payments", "--batch", "2", "--rows", "2", "--json"])
    (at_fault,) = json.loads(named.stdout)["rows_at_fault"]
    assert at_fault["identity"] == ["topic", "partition", "offset"]
    assert (at_fault["column"], len(at_fault["rows"])) == ("amount", 2)
    shown = runner.invoke(command, ["quality", "show", "--json"])
    assert json.loads(shown.stdout)["quarantined"] == [{"source": "payments", "batch": 2}]
    suggested = runner.invoke(command, ["quality", "suggest", "log:payments", "--column", "points"])
    assert {item["kwargs"]["column"] for item in json.loads(suggested.stdout)["expectations"]} == {"points"}
    released = runner.invoke(command, ["quality", "release", "payments", "2", "--why", "refunds"])
    assert released.exit_code == 0
    assert "quarantined:" not in runner.invoke(command, ["quality", "show"]).stdout
