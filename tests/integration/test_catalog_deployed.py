"""Claims about what a plan finds already there: keys in a real Redis, the released manifest, events in the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coeval.client import open_redis
from coeval.errors import ManifestError, StackError
from coeval.online.keys import data_key, offset_key, ready_key, ready_line
from coeval.settings import RedisSettings, Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.catalog import deployed
from coeval_pipelines.catalog.baseline import registered, released
from coeval_pipelines.catalog.costs import KEY_BYTES
from coeval_pipelines.catalog.deployed import count_events, count_keys
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.journal import IngestReport, ingest_journal
from tests.support.catalog import manifest


@pytest.fixture
def store(redis_server: Settings) -> Iterator[Settings]:
    with closing(open_redis(redis_server)) as client:
        client.flushall()
        yield redis_server
        client.flushall()


def _fill(settings: Settings, catalog: Manifest, counts: dict[str, int]) -> None:
    with closing(open_redis(settings)) as client:
        pipeline = client.pipeline(transaction=False)
        for name, count in counts.items():
            view = catalog.views[name]
            for number in range(count):
                pipeline.set(data_key(catalog.tenant, view, f"i{number}"), b"x" * 500)
            pipeline.set(offset_key(catalog.tenant, view, 0), 7)
            pipeline.set(ready_key(catalog.tenant, 0), ready_line(view) + "1")
        pipeline.set("another:{0}:card_spend:abc:i1", "someone else's")
        pipeline.execute()


def _of(catalog: Manifest, name: str) -> tuple[str, str]:
    return name, catalog.views[name].version


def test_few_keys_are_counted_exactly_and_nothing_else_is_counted(store: Settings) -> None:
    catalog = manifest()
    _fill(store, catalog, {"card_spend": 1_234, "latest_payment": 17})
    found = count_keys(store, catalog.tenant)
    assert found.silent == ""
    assert {view: (item.keys, item.margin) for view, item in found.stored.items()} == {
        _of(catalog, "card_spend"): (1_234, 0),
        _of(catalog, "latest_payment"): (17, 0),
    }
    spend = found.stored[_of(catalog, "card_spend")]
    assert 500 < spend.bytes_per_key < 800, "the value, the key and what Redis needs for both"
    # Redis rounds a value up to its next size of block, so that the same key weighs a little more or less.
    assert abs(spend.bytes_per_key - 500 - KEY_BYTES) < 40


def test_many_keys_are_estimated_from_a_sample_with_its_margin(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = manifest()
    _fill(store, catalog, {"card_spend": 9_000, "latest_payment": 1_000})
    monkeypatch.setattr(deployed, "SCANNED", 100)
    found = count_keys(store, catalog.tenant).stored
    for name, count in (("card_spend", 9_000), ("latest_payment", 1_000)):
        item = found[_of(catalog, name)]
        assert 0 < item.margin < 200
        # Three times the 95% margin: a sample that is further off is no sample.
        assert abs(item.keys - count) < 3 * item.margin


def test_a_store_that_does_not_answer_is_said_and_soon(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis=RedisSettings(url="redis://:secret@127.0.0.1:1/0"))
    found = count_keys(settings, "bank")
    assert found.stored == {}
    assert found.silent == "the online store at redis://***@127.0.0.1:1/0 does not answer"


def test_looking_for_a_release_creates_no_control_plane(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert released(settings) is None
    assert list(tmp_path.iterdir()) == []
    catalog = manifest()
    with closing(ControlPlane.open(settings)) as control:
        assert released(settings) is None
        control.save_manifest(catalog, 1)
        control.release(catalog.hash, 2)
    assert released(settings) == catalog


def test_events_are_those_that_the_log_holds(tmp_path: Path) -> None:
    settings, catalog = Settings(home=tmp_path), manifest()
    assert count_events(settings, catalog) == {}
    journal = ingest_journal(settings, catalog.tenant, "payments")
    journal.finish(0, IngestReport("payments", read=100, good=90, rejected={"null_key": 10}))
    journal.finish(1, IngestReport("payments", read=20, good=15, duplicates=5))
    assert count_events(settings, catalog) == {"payments": 105}


def test_a_control_plane_that_is_only_a_file_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "control.db").touch()
    assert released(Settings(home=tmp_path)) is None
    assert (tmp_path / "control.db").read_bytes() == b""


def test_a_control_plane_that_is_garbage_or_locked_is_said_and_is_not_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    (tmp_path / "control.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StackError, match="not a database"):
        released(settings)
    (tmp_path / "control.db").unlink()
    ControlPlane.open(settings).close()
    with closing(sqlite3.connect(tmp_path / "control.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StackError, match="locked"):
            released(settings)
        other.execute("ROLLBACK")
    assert released(settings) is None


def test_a_release_that_cannot_be_read_is_not_none(tmp_path: Path) -> None:
    settings, catalog = Settings(home=tmp_path), manifest()
    with closing(ControlPlane.open(settings)) as control:
        control.save_manifest(catalog, 1)
        control.release(catalog.hash, 2)
    with closing(sqlite3.connect(tmp_path / "control.db")) as other:
        other.execute("""UPDATE manifests SET body = '{"schema": 0}'""")
        other.commit()
    with pytest.raises(ManifestError, match="The manifest that runs"):
        released(settings)


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "a directory": lambda path: path.mkdir(),
    "nested deeply": lambda path: path.write_text("[" * 100_000),
    "cut off": lambda path: path.write_text(manifest().to_json()[:-20]),
    "of an older schema": lambda path: path.write_text('{"schema": 0}'),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_manifest_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, make: Callable[[Path], object]) -> None:
    settings = Settings(home=tmp_path)
    assert registered(settings) is None
    make(settings.manifest_path)
    with pytest.raises(ManifestError, match="cannot be read") as error:
        registered(settings)
    assert "move it away" in error.value.instruction


@pytest.mark.parametrize("url", ["nonsense", "redis://:secret@127.0.0.1:port/0"])
def test_an_address_that_is_none_makes_keys_unknown(tmp_path: Path, url: str) -> None:
    found = count_keys(Settings(home=tmp_path, redis=RedisSettings(url=url)), "bank")
    assert "cannot be read" in found.silent
    assert "secret" not in found.silent
