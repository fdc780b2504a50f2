"""Freshness of views beside a topic, a store and a control plane: what is readable, what waits, what is kept of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis
import typer
from typer.testing import CliRunner

from coeval.errors import CheckFailedError, StoreError, UnknownFeatureError
from coeval.online.writer import Fence, OnlineWriter
from coeval.settings import Settings
from coeval.spec.canary import canary_record
from coeval.spec.model import Constant, Sla, View
from coeval.spec.records import Record
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import instant
from coeval_parity.commands import register
from coeval_parity.freshness.result import LoadFreshness, State, ViewFreshness, rows
from coeval_parity.freshness.run import latest, look_now, past, run_freshness
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.control.checks import FRESHNESS, CheckBook
from coeval_pipelines.control.loads import LoadBook
from coeval_pipelines.local.prepare import free_port
from coeval_pipelines.offline.staging import pin
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.freshness import Freshness, FreshnessBook
from coeval_pipelines.streaming.names import changelog_topic
from tests.support import catalog, offline
from tests.support.loads import begin_load
from tests.support.offline import produce

PROMISE = Sla(freshness=MINUTE)
REACHED = 10
BASE = offline.manifest()
SOURCE = replace(
    catalog.PAYMENTS,
    topic="fresh-payments",
    canary=(Constant("card_id", "-1"), Constant("merchant_id", "canary")),
)
MANIFEST = replace(
    BASE,
    tenant="fresh",
    event_sources=(SOURCE,),
    windowed_views=tuple(replace(view, sla=PROMISE) for view in BASE.windowed_views),
    row_views=tuple(replace(view, sla=PROMISE) for view in BASE.row_views),
)
STREAMED = ("card_merchant", "card_spend", "latest_payment")


@dataclass(frozen=True)
class Fresh:
    """A topic of three partitions: one that goes on, one whose end is not certified, one without anything new."""

    settings: Settings
    client: redis.Redis
    now: int

    def certify(self, offsets: dict[int, int]) -> None:
        ends = {changelog_topic(MANIFEST, MANIFEST.views[name]): dict.fromkeys(range(4), REACHED) for name in STREAMED}
        with closing(ControlPlane.open(self.settings)) as control:
            control.record_certificate(Certificate("payments", 1, offsets, ends, self.now))

    def look(self, *names: str) -> dict[str, ViewFreshness]:
        return {view.view: view for view in look_now(self.settings, names)}


def _record(at: int, partition: int, number: int) -> Record:
    event = {
        "event_id": f"{partition}-{number}",
        "paid_at": instant(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "card_id": "1",
        "merchant_id": "m",
    }
    return Record(json.dumps(event).encode(), at, partition, number)


def _records(now: int) -> list[Record]:
    steps = {0: [now - 30 * SECOND, now - SECOND], 1: [now - HOUR + MINUTE * n for n in range(50)], 2: [now - DAY]}
    found = [_record(at, part, number) for part, all_of in steps.items() for number, at in enumerate(all_of)]
    # The newest of a partition may be a canary, and one that is no event at all.
    return [*found, replace(canary_record(SOURCE, now), partition=2), Record(b"{", now, 2, 0)]


@pytest.fixture(scope="module")
def world(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    settings = broker.model_copy(update={"home": tmp_path_factory.mktemp("fresh")})
    settings.manifest_path.write_text(MANIFEST.to_json())
    now = time.time_ns() // 1_000_000 * 1000
    with Broker(settings.kafka) as admin:
        admin.create(SOURCE.topic, 3, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
    produce(settings.kafka.bootstrap, SOURCE.topic, _records(now))
    offline.write_limits(settings, offline.limit_rows([(1, now - DAY, now - DAY, 7, 0.5, "gold")]))
    client = redis.Redis.from_url(settings.redis.url)
    with closing(ControlPlane.open(settings)) as control:
        for view in MANIFEST.views.values():
            _fill(settings, control, client, view, now if view.name in STREAMED else now - HOUR)
    yield Fresh(settings, client, now)
    client.close()


def _fill(settings: Settings, control: ControlPlane, client: redis.Redis, view: View, now: int) -> None:
    writer = OnlineWriter(client, MANIFEST.tenant)
    if view.name in STREAMED:
        control.deploy(view.name, view.version, MANIFEST.hash, now - DAY, now)
        for bucket in range(view.partitions):
            writer.apply(view, bucket, [], Fence(None, REACHED))
    else:
        run = begin_load(control, view.name, view.version, now)
        LoadBook(control).pin(run, pin(settings, MANIFEST, view, now))
        control.finish_load(run, 1, now)
    assert writer.mark_ready(view, writer.incarnation(view), "test")


def test_each_partition_is_called_by_what_is_readable_and_what_waits(world: Fresh) -> None:
    world.certify({0: 2, 1: 20, 2: 3})
    found = world.look()
    assert set(found) == set(MANIFEST.views)
    for name in STREAMED:
        going, behind, quiet = found[name].partitions
        assert (going.state, going.behind, going.newest) == (State.CURRENT, 0, world.now - SECOND)
        assert (behind.state, behind.behind) == (State.STALE, 30)
        assert behind.readable == world.now - HOUR + 19 * MINUTE
        assert behind.newest == world.now - HOUR + 49 * MINUTE
        assert behind.age is not None and 41 * 60 <= behind.age < 42 * 60
        assert 40 * 60 <= behind.waiting < 41 * 60
        assert (quiet.state, quiet.newest, quiet.waiting) == (State.IDLE, world.now - DAY, 0.0)
        (problem,) = found[name].problems
        assert problem.startswith("partition 1: ")
    assert found["card_limit"].ok


def test_of_a_store_of_which_nothing_is_certified_nothing_is_readable(world: Fresh) -> None:
    view = MANIFEST.views["latest_payment"]
    writer = OnlineWriter(world.client, MANIFEST.tenant)
    world.certify({0: 2, 1: 50, 2: 3})
    assert world.look("latest_payment")["latest_payment"].ok
    for bucket in range(view.partitions):
        assert writer.apply(view, bucket, [], Fence(REACHED, REACHED - 1)) is not None
    found = world.look("latest_payment")["latest_payment"]
    assert {part.readable for part in found.partitions} == {None}
    assert found.behind == 55
    for bucket in range(view.partitions):
        writer.apply(view, bucket, [], Fence(REACHED - 1, REACHED))


def test_canaries_are_told_as_their_sender_found_them_and_only_while_it_does(world: Fresh) -> None:
    world.certify({0: 2, 1: 50, 2: 3})
    view = MANIFEST.views["card_spend"]
    with closing(FreshnessBook.open(world.settings)) as book:
        now = time.time_ns() // 1000
        fresh = Freshness(view.name, view.version, 0.1, 0.3, 0.2, 0.1, 30, 0.0, 0, now)
        book.write([fresh])
        told = world.look("card_spend")["card_spend"]
        assert told.ok and told.canary is not None
        assert (told.canary.p50, told.canary.p99, told.canary.last) == (0.1, 0.2, 0.1)
        book.write([replace(fresh, waiting=90.0)])
        assert "a canary is under way for 90 s" in world.look("card_spend")["card_spend"].problems[0]
        book.write([replace(fresh, waiting=90.0, at=now - HOUR)])
        told = world.look("card_spend")["card_spend"]
        assert told.ok and told.canary is None
        assert any("is the coordinator running" in note for note in told.notes)


def test_files_that_changed_are_to_be_loaded_within_the_promise(world: Fresh) -> None:
    def load() -> LoadFreshness:
        found = world.look("card_limit")["card_limit"]
        assert found.load is not None
        assert found.ok == (found.load.state is not State.STALE)
        return found.load

    path, changed = world.settings.home / offline.LIMITS.path, world.now - 5 * MINUTE
    assert (load().state, load().loaded) == (State.IDLE, world.now - HOUR)
    offline.write_limits(world.settings, offline.limit_rows([(2, world.now, world.now, 7, 0.5, "gold")]))
    os.utime(path, ns=(changed * 1000, changed * 1000))
    assert (load().state, load().due) == (State.STALE, "the files changed")
    assert 300 <= load().waiting < 360
    with closing(ControlPlane.open(world.settings)) as control:
        _fill(world.settings, control, world.client, MANIFEST.views["card_limit"], time.time_ns() // 1000)
    assert (load().state, load().due) == (State.CURRENT, "")


def test_a_view_that_is_not_ready_is_not_fresh(world: Fresh) -> None:
    view = replace(MANIFEST.views["card_spend"], version="0ther")
    other = replace(MANIFEST, windowed_views=(view,))
    world.settings.manifest_path.write_text(other.to_json())
    try:
        (found,) = look_now(world.settings, ["card_spend"])
    finally:
        world.settings.manifest_path.write_text(MANIFEST.to_json())
    assert found.problems[0] == "version 0ther is not ready: readers get UNAVAILABLE"


def test_a_topic_that_is_missing_keeps_nobody_from_judging_the_others(world: Fresh) -> None:
    other = replace(MANIFEST, event_sources=(replace(SOURCE, topic="nowhere"),))
    world.settings.manifest_path.write_text(other.to_json())
    try:
        found = world.look()
    finally:
        world.settings.manifest_path.write_text(MANIFEST.to_json())
    assert {name for name, view in found.items() if view.unknown} == set(STREAMED)
    assert found["card_spend"].problems == ("nothing can be said: There is no topic nowhere.",)
    assert found["card_limit"].ok


def test_a_store_that_does_not_answer_is_said_and_nothing_is_kept(world: Fresh) -> None:
    gone = world.settings.redis.model_copy(update={"url": f"redis://127.0.0.1:{free_port()}"})
    with pytest.raises(StoreError, match="does not answer: Error 111"):
        run_freshness(world.settings.model_copy(update={"redis": gone}))
    with pytest.raises(UnknownFeatureError):
        run_freshness(world.settings, ["nothing"])


def test_the_command_keeps_each_run_and_its_exit_code_is_the_verdict(
    world: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    register(app)
    monkeypatch.setattr("coeval.settings.load_settings", lambda: world.settings)

    def coeval(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["freshness", *arguments])

    world.certify({0: 2, 1: 50, 2: 3})
    fine = coeval("card_spend", "--json")
    document = json.loads(fine.stdout)
    assert (fine.exit_code, document["passed"], document["views"][0]["view"]) == (0, True, "card_spend")
    world.certify({0: 2, 1: 50, 2: 3})
    produce(world.settings.kafka.bootstrap, SOURCE.topic, [_record(world.now - 2 * HOUR, 2, 9)])
    late = coeval("card_spend")
    assert isinstance(late.exception, CheckFailedError)
    assert "stale !" in late.stdout
    with closing(ControlPlane.open(world.settings)) as control:
        newest = CheckBook(control).newest(FRESHNESS)
        states = [row.state for row in rows(latest(control))]
    assert states[1:] == ["idle", "stale"]
    assert (set(newest), newest["card_spend"].passed) == ({"card_spend"}, False)
    assert [view.ok for view in past(world.settings, ["card_spend"], 5)] == [True, False]
    assert "no !" in coeval("card_spend", "--history", "5").stdout
