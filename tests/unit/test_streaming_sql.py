"""The stream's SQL says what the contract says; what only an engine can prove is proven by other tests."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from coeval.aggregations.ops import OrderColumns
from coeval.aggregations.tiles import tile_plan
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, Field, RowView, WindowedView
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import STRING, DataType
from coeval_pipelines.control import Run
from coeval_pipelines.streaming.literals import quote, sql_type, text
from coeval_pipelines.streaming.names import stream_sources, stream_views
from coeval_pipelines.streaming.sql import JUDGE, STATE_SLACK, SourceJob, source_job
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


def test_a_record_is_read_as_bytes_and_judged_once() -> None:
    table = _statement(_job(), "CREATE TEMPORARY TABLE `payments@topic`")
    assert "record_value BYTES" in table
    assert "'value.format' = 'raw'" in table
    assert "'scan.startup.mode' = 'earliest-offset'" in table
    assert "WATERMARK" not in table
    assert "\n".join(_job().statements).count(f"{JUDGE}(") == 1


def test_key_and_headers_are_read_only_where_a_field_stands_in_them() -> None:
    plain = _statement(_job(), "CREATE TEMPORARY TABLE `payments@topic`")
    assert "record_key" not in plain
    assert "record_headers" not in plain
    fields = [replace(field, origin="key") if field == catalog.CARD else field for field in catalog.PAYMENTS.fields]
    fields.append(Field("channel", STRING, origin="header:x-channel"))
    source = replace(catalog.PAYMENTS, fields=tuple(fields))
    job = _job(manifest=replace(catalog.manifest(), event_sources=(source,)))
    table = _statement(job, "CREATE TEMPORARY TABLE `payments@topic`")
    assert "'key.fields' = 'record_key'" in table
    assert "record_headers MAP<STRING, BYTES> METADATA FROM 'headers'" in table


def test_the_function_is_told_what_the_source_declares_and_what_is_used() -> None:
    views = catalog.manifest().windowed_views[:1]
    job = _job(manifest=replace(catalog.manifest(), windowed_views=views, row_views=()))
    told = re.search(r"'({.*})'", _statement(job, "CREATE TEMPORARY VIEW `payments@judged`"))
    assert told is not None
    declared = json.loads(told[1])
    assert [field["name"] for field in declared["fields"]] == [field.name for field in catalog.PAYMENTS.fields]
    used = {field["name"] for field in declared["fields"] if field["used"]}
    assert used == {"card_id", "merchant_id", "points"}
    assert declared["max_future_skew"] == catalog.PAYMENTS.max_future_skew


def test_what_a_source_with_idempotent_producers_says_is_not_looked_up() -> None:
    source = replace(catalog.PAYMENTS, dedup=False)
    job = _job(manifest=replace(catalog.manifest(), event_sources=(source,)))
    assert not any("OVER (" in statement for statement in job.statements)
    assert "TRUE AS is_first" in _statement(job, "CREATE TEMPORARY VIEW `payments@valid`")


def test_every_record_is_counted_whatever_became_of_it() -> None:
    outcomes = _statement(_job(), "CREATE TEMPORARY VIEW `payments@outcomes`")
    assert "WHEN is_first THEN 'good' ELSE 'duplicate'" in outcomes
    assert "WHERE reason IS NOT NULL" in outcomes
    assert "STATE_TTL('counted' = '0s')" in _job().statements[-1]
    for hop in (5 * MINUTE, HOUR, DAY):
        assert f"`late:{hop}`" in _job().statements[-1]


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


def test_of_one_identity_the_first_counts() -> None:
    valid = _statement(_job(), "CREATE TEMPORARY VIEW `payments@valid`")
    assert "PARTITION BY event_identity, declared_ts" in valid
    assert "WHERE reason IS NULL" in valid
    assert _statement(_job(), "CREATE TEMPORARY VIEW `payments@good`").endswith("WHERE is_first")


def test_identifiers_and_texts_are_quoted() -> None:
    assert quote("a`b") == "`a``b`"
    assert text("it's") == "'it''s'"


def test_decimals_are_unscaled_and_wide_ones_keep_their_digits() -> None:
    assert sql_type(DataType.parse("decimal(18,2)")) == "BIGINT"
    assert sql_type(DataType.parse("decimal(19,2)")) == "DECIMAL(38, 0)"


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
    table = _statement(later, "CREATE TEMPORARY TABLE `payments@topic`")
    assert "'scan.startup.specific-offsets' = 'partition:0,offset:5;partition:1,offset:9'" in table
    assert "'properties.bootstrap.servers' = 'b:2'" in table
    assert later.name != job.name


def test_state_outlives_every_event_that_could_still_count() -> None:
    job = _job()
    assert job.state_ttl >= DAY + catalog.PAYMENTS.allowed_lateness + STATE_SLACK
