"""The stream's SQL says what the contract says; what only an engine can prove is proven by other tests."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from coeval.aggregations.ops import OrderColumns
from coeval.aggregations.tiles import tile_plan
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, Field, RowView, WindowedView
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, DataType, literal_pattern
from coeval_pipelines.control import Run
from coeval_pipelines.streaming.literals import is_valid, physical, quote, sql_type, text
from coeval_pipelines.streaming.names import stream_sources, stream_views
from coeval_pipelines.streaming.sql import STATE_SLACK, SourceJob, source_job
from tests.support import catalog

SINCE = {"card_spend": 1_790_000_000 * SECOND, "card_merchant": 0, "latest_payment": 0}


KAFKA = {"bootstrap.servers": "broker:1"}


def _run(since: dict[str, int] | None = None) -> Run:
    return Run(7, "payments", "hash", tuple(SINCE), SINCE if since is None else since, {})


def _job(since: dict[str, int] | None = None, manifest: Manifest | None = None) -> SourceJob:
    return source_job(manifest or catalog.manifest(), _run(since), KAFKA)


def _statement(job: SourceJob, beginning: str) -> str:
    found = [statement for statement in job.statements if statement.startswith(beginning)]
    assert len(found) == 1, beginning
    return found[0]


def test_the_same_manifest_gives_the_same_text() -> None:
    assert _job() == _job()
    assert Manifest.from_json(catalog.manifest().to_json()) == catalog.manifest()
    assert _job(manifest=Manifest.from_json(catalog.manifest().to_json())) == _job()


def test_the_graph_changes_with_what_the_state_depends_on_and_with_nothing_else() -> None:
    manifest = catalog.manifest()
    described = replace(manifest, windowed_views=tuple(replace(v, description="x") for v in manifest.windowed_views))
    assert _job(manifest=described).graph == _job().graph
    assert _job(since=SINCE | {"card_spend": 0}).graph != _job().graph
    assert _job(manifest=replace(manifest, row_views=())).graph != _job().graph


def test_every_field_is_read_as_text() -> None:
    table = _statement(_job(), "CREATE TEMPORARY TABLE `payments@topic`")
    for field in catalog.PAYMENTS.fields:
        assert f"`{field.name}` STRING" in table
    assert "'scan.startup.mode' = 'earliest-offset'" in table
    assert "WATERMARK" not in table


@pytest.mark.parametrize("view", list(catalog.manifest().windowed_views), ids=lambda view: view.name)
def test_every_component_of_every_granularity_is_aggregated(view: WindowedView) -> None:
    job = _job()
    order = OrderColumns("event_ts", "available_at", "log_partition", "log_offset")
    for granularity in tile_plan(view, catalog.PAYMENTS).granularities:
        tiles = _statement(job, f"CREATE TEMPORARY VIEW `{view.name}@{granularity.hop}`")
        assert "COUNT(*) AS events" in tiles
        for component in granularity.components:
            assert f"{component.sql(f'`f:{component.column}`', order)} AS `{component.name}`" in tiles
        insert = re.search(rf"INSERT INTO `{view.name}@{granularity.hop}@changelog`\nSELECT (.*)", job.statements[-1])
        assert insert is not None
        assert f"CAST({granularity.hop} AS BIGINT)" in insert[1]
        assert all(f"`{component.name}`" in insert[1] for component in granularity.components)


def test_lateness_and_ownership_are_decided_per_granularity() -> None:
    job = _job()
    since = SINCE["card_spend"]
    for hop in (5 * MINUTE, HOUR, DAY):
        tiles = _statement(job, f"CREATE TEMPORARY VIEW `card_spend@{hop}`")
        assert f"available_at < (tile + 1) * {hop} + {catalog.PAYMENTS.allowed_lateness}" in tiles
        first = -(-since // hop) * hop
        assert f"event_ts >= {first}" in tiles
        assert since <= first < since + hop


def test_rows_know_no_lateness() -> None:
    insert = next(part for part in _job().statements[-1].split("INSERT INTO ") if part.startswith("`latest_payment"))
    assert "available_at <" not in insert
    assert "CONCAT('=', `f:note`)" in insert


def test_the_effective_time_is_never_after_availability() -> None:
    good = _statement(_job(), "CREATE TEMPORARY VIEW `payments@good`")
    assert "LEAST(declared_ts, available_at) AS event_ts" in good
    assert f"declared_ts <= available_at + {catalog.PAYMENTS.max_future_skew}" in good
    assert "PARTITION BY event_identity, declared_ts" in good


def test_a_required_field_must_be_there_and_an_optional_one_may_be_absent() -> None:
    assert is_valid(Field("a", INT64, nullable=False)) == f"{physical(Field('a', INT64))} IS NOT NULL"
    assert is_valid(Field("a", INT64)).startswith("(`a` IS NULL OR ")
    good = _statement(_job(), "CREATE TEMPORARY VIEW `payments@good`")
    assert all(is_valid(field) in good for field in catalog.PAYMENTS.fields)


@pytest.mark.parametrize("kind", [INT64, FLOAT64, BOOL, DATE, DataType.parse("decimal(9,2)")], ids=str)
def test_a_literal_is_matched_as_a_whole(kind: DataType) -> None:
    assert rf"REGEXP(`x`, '\A(?:{literal_pattern(kind)})\z')" in physical(Field("x", kind))


def test_identifiers_and_texts_are_quoted() -> None:
    assert quote("a`b") == "`a``b`"
    assert text("it's") == "'it''s'"


def test_decimals_are_unscaled_and_wide_ones_keep_their_digits() -> None:
    assert sql_type(DataType.parse("decimal(18,2)")) == "BIGINT"
    assert sql_type(DataType.parse("decimal(19,2)")) == "DECIMAL(38, 0)"
    assert physical(Field("x", STRING)) == "`x`"


def test_batch_views_have_no_job() -> None:
    manifest = catalog.manifest()
    batch = BatchSource("people", "p", "parquet", (catalog.CARD,), "at")
    profile = RowView("profile", ("card",), (catalog.CARD,), "people", (), stream=False)
    extended = replace(manifest, batch_sources=(batch,), row_views=(*manifest.row_views, profile))
    assert [view.name for view in stream_views(extended, "people")] == []
    assert [source.name for source in stream_sources(extended)] == ["payments"]
    assert _job(manifest=extended) == _job()


def test_where_a_run_begins_is_no_part_of_its_graph() -> None:
    job = _job()
    later = source_job(catalog.manifest(), replace(_run(), number=8, start={0: 5, 1: 9}), {"bootstrap.servers": "b:2"})
    assert later.graph == job.graph
    assert "'scan.startup.specific-offsets' = 'partition:0,offset:5;partition:1,offset:9'" in later.statements[0]
    assert "'properties.bootstrap.servers' = 'b:2'" in later.statements[0]
    assert later.name != job.name


def test_state_outlives_every_event_that_could_still_count() -> None:
    job = _job()
    assert job.state_ttl >= DAY + catalog.PAYMENTS.allowed_lateness + STATE_SLACK
