"""A load that is killed, cancelled or looked at from outside: what is resumed ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import redis
import tenacity

from coeval.aggregations.tiles import tile_plan
from coeval.client import open_redis
from coeval.errors import UsageError
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import is_late
from coeval.settings import Settings
from coeval.spec.model import View, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import micros
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import (
    CANCELLED,
    FAILED,
    FIRST_FILL,
    LOADING,
    OPEN,
    PLANNED,
    READY,
    LoadBook,
    LoadRun,
    Pins,
)
from coeval_pipelines.coordination.backfills import INTERRUPTED, Correction, backfill, cancel, resume, status
from coeval_pipelines.coordination.fill import Asked, fill
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.coordination.stagers import cancellable, stage_in_session
from coeval_pipelines.offline import online_load, staging
from coeval_pipelines.offline.due import files_changed, has_late
from coeval_pipelines.offline.estimates import estimate
from coeval_pipelines.offline.online_load import staged_units, write_units
from coeval_pipelines.offline.staging import pin, stage, staged_at
from coeval_pipelines.offline.tables import append, table_path
from coeval_pipelines.offline.throttle import Limits, Throttle
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import LIMITS, event_frame, limit_rows, manifest, write_limits

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SEED = 20260320
START = micros(datetime(2026, 3, 20, tzinfo=UTC))
EVENTS = list(ingest(catalog.PAYMENTS, records(21, 600, START, 20 * DAY)).good)
CUT = max(event.event_ts for event in EVENTS) + HOUR // 2
"""Soon after an event, whose tile of five minutes is still in its ring."""
MANIFEST = manifest()
CARDS = 6_000
RATE = 1_500
"""Rows a second of a load that is to be caught in the act: four seconds of it."""
SLOW = 200
"""Of one that is to be looked at by processes that have to start first."""
LIMIT, SPEND = MANIFEST.views["card_limit"], MANIFEST.views["card_spend"]
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
def world(spark: SparkSession, redis_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = redis_server.model_copy(update={"home": tmp_path_factory.mktemp("runs")})
    write_limits(settings, limit_rows([(card, START + card, START + card, card, 0.5, "gold") for card in range(CARDS)]))
    append(event_frame(spark, EVENTS), table_path(settings, MANIFEST, "log", "payments"), "test", 1)
    return settings


@pytest.fixture
def control(world: Settings) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(world)) as control:
        control.save_manifest(MANIFEST, 1)
        control.release(MANIFEST.hash, 1)
        control.deploy(LIMIT.name, LIMIT.version, MANIFEST.hash, 0, 1)
        yield control
        book = LoadBook(control)
        for run in book.newest(10, OPEN):
            book.move(run.run, CANCELLED, "the test is over", 1)


@pytest.fixture
def client(world: Settings) -> Iterator[redis.Redis]:
    with closing(open_redis(world)) as client:
        client.flushall()
        yield client


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "UNIT_ROWS", 400)


def _begin(settings: Settings, control: ControlPlane, view: View, cut: int) -> LoadRun:
    book = LoadBook(control)
    run = book.begin(view.name, view.version, MANIFEST.hash, cut, FIRST_FILL, "test", 1)
    book.pin(run.run, pin(settings, MANIFEST, view, max(cut, START + DAY)))
    return book.get(run.run)


def _staged(spark: SparkSession, settings: Settings, control: ControlPlane, view: View, cut: int = 0) -> LoadRun:
    run = _begin(settings, control, view, cut)
    stage(spark, settings, MANIFEST, control, run)
    return run


def _contents(client: redis.Redis) -> dict[bytes, Any]:
    """Every value of the store but what is said about it."""
    return {key: client.get(key) for key in client.scan_iter(count=5000) if b":@" not in key}


def _await(condition: Callable[[], bool]) -> None:
    tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        wait=tenacity.wait_fixed(0.05),
        stop=tenacity.stop_after_delay(DEADLINE_SECONDS),
    )(condition)


def _command(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | settings.variables()
    command = [str(Path(sys.executable).with_name("coeval")), "backfill", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _loading(settings: Settings, book: LoadBook, run: int, units: int, rate: int) -> subprocess.Popen[str]:
    """A process that goes on with a load, of which so many units are written."""
    process = _command(settings, "resume", str(run), "--writes-per-second", str(rate))

    def reached() -> bool:
        return len(book.units_done(run, book.get(run).life)) >= units

    _await(lambda: process.poll() is not None or reached())
    assert process.poll() is None, process.communicate()
    return process


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.usefixtures("small_units")
def test_a_load_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    spark: SparkSession, world: Settings, control: ControlPlane, client: redis.Redis
) -> None:
    book, rng = LoadBook(control), random.Random(SEED)
    run = _staged(spark, world, control, LIMIT)
    assert len(staged_units(world, MANIFEST, run)) >= CARDS // 400
    write_units(world, MANIFEST, book, run, "uninterrupted", Throttle())
    expected = _contents(client)
    assert len(expected) == CARDS
    client.flushall()
    book.forget_units(run.run)
    kept: set[str] = set()
    for _ in range(2):
        process = _loading(world, book, run.run, len(kept) + rng.randint(1, 4), RATE)
        _kill(process)
        (found,) = status(world, control, run.run)
        assert found.state == INTERRUPTED
        done = book.units_done(run.run, book.get(run.run).life).keys()
        assert kept < done, "what was whole stays whole"
        kept = set(done)
    assert 0 < len(_contents(client)) < CARDS
    written = resume(world, control, None, Asked())
    # A row that was written before its unit was is refused, as it is there.
    assert 0 < written["card_limit"] <= CARDS
    assert _contents(client) == expected
    assert OnlineWriter(client, MANIFEST.tenant).ready_note(LIMIT) == str(run.run)
    assert [change.state for change in book.changes(run.run)][-2:] == ["catching_up", READY]
    assert not staged_at(world, run.run).exists()
    with pytest.raises(UsageError, match="is over: ready"):
        resume(world, control, run.run, Asked())


def test_tiles_that_were_written_in_many_attempts_are_those_of_one(
    spark: SparkSession, world: Settings, control: ControlPlane, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt ends where it writes: within a unit, most often."""
    monkeypatch.setattr(online_load, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(staging, "UNIT_ROWS", 20)
    book, rng = LoadBook(control), random.Random(SEED)
    run = _staged(spark, world, control, SPEND, CUT)
    units = staged_units(world, MANIFEST, run)
    assert {unit.part for unit in units} == set(staging.parts(MANIFEST, SPEND))
    write_units(world, MANIFEST, book, run, "one", Throttle())
    expected = _contents(client)
    client.flushall()

    class Killed(Exception):  # noqa: N818
        pass

    attempts = 0
    while True:
        calls = rng.randrange(2, 12)

        def beat(rows: int, _: float) -> None:
            nonlocal calls
            calls -= 1
            if not calls:
                raise Killed

        throttle = Throttle(Limits(writes_per_second=1_000), sleep=lambda _: None)
        attempts += 1
        try:
            write_units(world, MANIFEST, book, run, "many", throttle, beat)
        except Killed:
            continue
        break
    assert attempts > 3
    assert _contents(client) == expected


@pytest.mark.usefixtures("small_units")
def test_a_unit_that_is_whole_is_not_written_again_unless_the_store_lives_anew(
    spark: SparkSession, world: Settings, control: ControlPlane, client: redis.Redis
) -> None:
    book = LoadBook(control)
    run = _staged(spark, world, control, LIMIT)
    assert write_units(world, MANIFEST, book, run, "first", Throttle()) == CARDS
    client.flushall()
    assert write_units(world, MANIFEST, book, run, "first", Throttle()) == CARDS
    assert not _contents(client), "nothing was left to write"
    write_units(world, MANIFEST, book, run, "second", Throttle())
    assert len(_contents(client)) == CARDS


def test_a_part_whose_computation_was_killed_is_computed_again_the_same(
    spark: SparkSession, world: Settings, control: ControlPlane
) -> None:
    killed, whole = (_staged(spark, world, control, SPEND, CUT) for _ in range(2))
    home, (lost, *_) = staged_at(world, killed.run), staging.parts(MANIFEST, SPEND)
    # What a process leaves that is killed while it writes a part, perhaps as an orphan that still goes on.
    (home / lost / "whole").unlink()
    assert not staging.is_staged(world, MANIFEST, killed)
    assert lost not in {unit.part for unit in staged_units(world, MANIFEST, killed)}
    stage(spark, world, MANIFEST, control, LoadBook(control).get(killed.run))
    one, other = (
        {part: _rows(staging.staged_files(world, run.run, part)) for part in staging.parts(MANIFEST, SPEND)}
        for run in (killed, whole)
    )
    assert one == other
    assert all(one.values())


def _rows(files: Iterable[Path]) -> list[str]:
    return sorted(str(row) for path in files for row in pq.read_table(path).to_pylist())


@pytest.mark.usefixtures("small_units")
def test_a_load_is_seen_refused_beside_and_cancelled_from_other_processes(
    spark: SparkSession, world: Settings, control: ControlPlane, client: redis.Redis
) -> None:
    book = LoadBook(control)
    run = _staged(spark, world, control, LIMIT)
    process = _loading(world, book, run.run, 1, SLOW)
    with pytest.raises(UsageError, match=rf"card_limit is being loaded already \(load {run.run}, ") as refused:
        fill(world, MANIFEST, control, [LIMIT], lambda _: None, Asked(wait=False))
    assert f"coeval backfill cancel {run.run}" in refused.value.instruction
    looking = _command(world, "status", str(run.run), "--json")
    (seen,) = json.loads(looking.communicate()[0])["loads"]
    assert (seen["state"], seen["rows"]) == (LOADING, CARDS)
    assert 0 < seen["per_second"] < SLOW * 2
    found = cancel(world, control, run.run)
    assert found.state == CANCELLED
    assert 0 < found.run.done < CARDS
    _, complaint = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 3
    assert f"The load {run.run} of card_limit was cancelled by" in complaint
    assert not OnlineWriter(client, MANIFEST.tenant).is_ready(LIMIT)
    assert len(_contents(client)) < CARDS
    assert not staged_at(world, run.run).exists()
    with pytest.raises(UsageError, match="is over: cancelled"):
        cancel(world, control, run.run)


def test_every_change_of_a_load_is_written_down_and_a_failed_one_is_gone_on_with(
    spark: SparkSession, world: Settings, control: ControlPlane, client: redis.Redis
) -> None:
    book, path = LoadBook(control), world.home / LIMITS.path
    stager = stage_in_session(spark, world, MANIFEST, control)
    path.rename(path.with_suffix(".away"))
    with pytest.raises(UsageError, match="cannot be read"):
        fill(world, MANIFEST, control, [LIMIT], stager)
    failed = book.newest(1)[0]
    assert failed.state == FAILED
    path.with_suffix(".away").rename(path)
    assert fill(world, MANIFEST, control, [LIMIT], stager) == {"card_limit": CARDS}
    assert book.get(failed.run).state == READY
    states = [change.state for change in book.changes(failed.run)]
    assert states == [PLANNED, LOADING, FAILED, LOADING, LOADING, "catching_up", READY]
    assert all(f"pid {os.getpid()}" in change.who and change.why for change in book.changes(failed.run))
    # Readers are served now: the next load of the view is held back, and is one of its own.
    again = fill(world, MANIFEST, control, [LIMIT], stager)
    last = book.newest(1)[0]
    assert (again, last.kind, last.run) == ({"card_limit": 0}, "correction", failed.run + 1)
    assert any("reads within 5 ms" in change.why for change in book.changes(last.run))


@pytest.mark.parametrize("name", ["card_spend", "card_merchant", "card_limit"])
def test_a_plan_says_what_a_load_then_writes(
    name: str, spark: SparkSession, world: Settings, control: ControlPlane
) -> None:
    view = MANIFEST.views[name]
    run = _staged(spark, world, control, view, CUT)
    found = estimate(world, MANIFEST, view, CUT)
    assert found is not None
    staged: Counter[str] = Counter()
    keys: set[str] = set()
    for unit in staged_units(world, MANIFEST, run):
        staged[unit.part] += unit.rows
        keys |= set(pq.read_table(unit.path).column("__key").to_pylist())
    assert {part: rows for part, rows in found.rows.items() if rows} == staged
    assert found.keys == len(keys)


def test_only_files_that_changed_and_rows_that_became_visible_are_loaded_again(
    spark: SparkSession, world: Settings, control: ControlPlane, client: redis.Redis
) -> None:
    path, future = world.home / LIMITS.path, now() + DAY
    before = path.read_bytes()
    write_limits(world, limit_rows([(1, START, START, 1, 0.5, "gold"), (2, future, START, 2, 0.5, "soon")]))
    said: list[str] = []

    def materialize() -> dict[str, int]:
        return backfill(world, MANIFEST, control, [LIMIT], Correction(), Asked(), said.append)

    assert materialize() == {"card_limit": 1}
    assert materialize() == {}
    assert "no file changed and no row became visible since load" in said[-1]
    last = LoadBook(control).newest(1)[0].pins
    assert last is not None
    assert last.turns_at == future
    assert not files_changed(world, LIMITS, last, future - 1)
    assert files_changed(world, LIMITS, last, future) == "rows became visible"
    write_limits(world, limit_rows([(1, START, START, 1, 0.5, "gold"), (3, START, START, 2, 0.5, "new")]))
    assert materialize() == {"card_limit": 1}
    assert said[-2] == "card_limit: the files changed"
    client.flushall()
    assert materialize() == {"card_limit": 2}
    assert said[-2] == "card_limit: it is not ready"
    path.write_bytes(before)


def test_a_correction_is_due_where_events_came_late_for_a_tile_that_it_writes(
    spark: SparkSession, world: Settings
) -> None:
    assert isinstance(SPEND, WindowedView)
    plan, lateness = tile_plan(SPEND, catalog.PAYMENTS), catalog.PAYMENTS.allowed_lateness
    pins = Pins(0, 0, CUT, 1)

    def missed(last: int, cut: int) -> list[Event]:
        """By the rules, event by event: those that came late, of tiles that are final at the cut and in their ring."""
        return [
            event
            for event in EVENTS
            for item in plan.granularities
            if last <= event.available_at < cut
            and is_late(event, item.hop, lateness)
            and cut // item.hop - item.slots < event.event_ts // item.hop < item.final_before(cut, lateness)
        ]

    late = max(event.available_at for event in missed(START, CUT))
    for last, cut in ((START, CUT), (late, CUT), (late + 1, CUT), (late - HOUR, late + 1), (CUT, CUT + 40 * DAY)):
        found = has_late(spark, world, MANIFEST, SPEND, pins, last, cut)
        assert found == bool(missed(last, cut)), (last, cut)
    # What reached the log after it was read, though it was available before the cut, is in no tile of the last load.
    assert has_late(spark, world, MANIFEST, SPEND, replace(pins, ingested=0), late + 1, CUT)


def test_computing_ends_when_the_load_is_cancelled(spark: SparkSession, world: Settings, control: ControlPlane) -> None:
    book, tracker = LoadBook(control), spark.sparkContext.statusTracker()
    run = _begin(world, control, SPEND, CUT)

    def cancel_once_it_runs() -> None:
        _await(lambda: bool(tracker.getActiveJobsIds()))
        book.move(run.run, CANCELLED, "test", 1)

    canceller = threading.Thread(target=cancel_once_it_runs)
    canceller.start()
    with cancellable(spark, world, book, run):
        spark.range(10**14).selectExpr("SUM(SQRT(id))").collect()
        raise AssertionError("it was not ended")
    canceller.join()
    stage_in_session(spark, world, MANIFEST, control)([run])
    assert not staged_at(world, run.run).exists()
