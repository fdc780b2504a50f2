"""Tables at a URI: what Spark and this process write there is what they write on a disk, and can be taken away."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coeval.client import open_redis
from coeval.errors import MissingExtraError
from coeval.files import place
from coeval.settings import Settings
from coeval.spec.records import ingest
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import FIRST_FILL, LoadBook
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.compaction import compact
from coeval_pipelines.offline.log_files import look
from coeval_pipelines.offline.online_load import write_units
from coeval_pipelines.offline.staging import discard, stage, staged_at
from coeval_pipelines.offline.tables import append, table_path
from coeval_pipelines.offline.throttle import Throttle
from coeval_pipelines.offline.training.build import Wanted, build
from coeval_pipelines.offline.training.rebuild import rebuild
from coeval_pipelines.offline.training.registry import kept_set, kept_sets, remove
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import event_frame, manifest, write_limits
from tests.support.training_worlds import MANIFEST, spine_table, world

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEED = 20261122
START = micros(datetime(2026, 3, 20, tzinfo=UTC))


def _homes(like: Settings, directory: Path) -> list[Settings]:
    """A home whose tables are on a disk, and one whose tables are at a URI."""
    places = {"disk": "", "uri": f"file://{directory}/bucket/tables"}
    return [like.model_copy(update={"home": directory / name, "tables": tables}) for name, tables in places.items()]


def test_training_sets_at_a_uri_are_those_of_a_disk(spark: SparkSession, tmp_path: Path) -> None:
    made = world(SEED, events=60, rows=30)
    hashes = set()
    for settings in _homes(Settings(), tmp_path):
        settings.home.mkdir()
        path = table_path(settings, MANIFEST, "log", "payments")
        for number, half in enumerate((made.payments[:30], made.payments[30:]), 1):
            append(event_frame(spark, half), path, "test", number)
        write_limits(settings, made.limits)
        for engine in ("spark", "local") if settings.tables else ("local",):
            built = build(settings, Wanted(Asked.of(MANIFEST, "risk"), spine_table([made]), engine=engine), engine)
            assert rebuild(settings, kept_set(settings, MANIFEST.tenant, engine), "local").same
            hashes.add(built.lineage["content_hash"])
        compact(spark, settings, MANIFEST, catalog.PAYMENTS, keep_hours=0)
        found = look(path)
        assert found is not None
        assert found.rows == 60
        remove(settings, MANIFEST.tenant, "local")
        assert "local" not in [kept.name for kept in kept_sets(settings, MANIFEST.tenant)]
    assert len(hashes) == 1
    assert not [path for path in (tmp_path / "uri").rglob("*.parquet") if path.name != "limits.parquet"]


def test_a_load_from_a_uri_writes_what_one_from_a_disk_does(
    spark: SparkSession, redis_server: Settings, tmp_path: Path
) -> None:
    made = manifest()
    events = list(ingest(catalog.PAYMENTS, records(21, 300, START, 20 * DAY)).good)
    view, cut = made.views["card_spend"], max(event.event_ts for event in events) + HOUR // 2
    stored = []
    for settings in _homes(redis_server, tmp_path):
        append(event_frame(spark, events), table_path(settings, made, "log", "payments"), "test", 1)
        with closing(ControlPlane.open(settings)) as control, closing(open_redis(settings)) as client:
            client.flushall()
            book = LoadBook(control)
            run = book.begin(view.name, view.version, made.hash, cut, FIRST_FILL, "test", 1)
            stage(spark, settings, made, control, run)
            write_units(settings, made, book, book.get(run.run), "life", Throttle())
            stored.append({key: client.get(key) for key in client.scan_iter(count=5000) if b":@" not in key})
        assert staged_at(settings, run.run).exists()
        discard(settings, run.run)
        assert not staged_at(settings, run.run).exists()
    assert stored[0] == stored[1] != {}


def test_a_uri_that_nothing_installed_reads_says_what_does() -> None:
    with pytest.raises(MissingExtraError, match=r"abfss://tables@lake.* cannot be reached"):
        place("abfss://tables@lake/coeval")


def test_where_tables_are_reaches_a_child_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, Any] = {"home": tmp_path, "tables": "file:///bucket/tables"}
    for name, value in Settings(**there).variables().items():
        monkeypatch.setenv(name, value)
    assert str(Settings().table_root) == "file:///bucket/tables"
    assert Settings(home=tmp_path, tables="lake").table_root == tmp_path / "lake"
