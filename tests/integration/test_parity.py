"""State parity over a real Redis, a real Delta log and real Spark: what is sound passes, what was broken is named."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import redis
import typer
from typer.testing import CliRunner

from coeval.aggregations.tiles import tile_plan
from coeval.errors import CheckFailedError, UnknownFeatureError
from coeval.online.keys import data_key, ready_key
from coeval.online.layout import ring_offset
from coeval.online.writer import Fence, OnlineWriter
from coeval.reference.oracle import is_late, key_of
from coeval.settings import Settings, load_settings
from coeval.spec.keys import bucket_of, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import RowView, Sla, Tolerance, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import micros
from coeval_parity.commands import register
from coeval_parity.document import from_document, to_document
from coeval_parity.result import Cause, ParityResult, Symptom
from coeval_parity.run import Sample, run_parity
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.offline.tables import append, table_path
from tests.support import catalog
from tests.support.events import records
from tests.support.loads import load_view
from tests.support.offline import event_frame, limit_rows, manifest, write_limits
from tests.support.online import updates, write
from tests.support.parity import adds_up

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
Q = START + 35 * DAY
SINCE = START + 20 * DAY
CUT = SINCE + 2 * DAY


def _manifest() -> Manifest:
    """The test catalog under its own tenant. A third of its events are late by design, so that is no breach."""
    base = manifest()
    patient = Sla(tolerated=(Tolerance("late", 1.0),))
    return replace(
        base,
        tenant="parity",
        windowed_views=tuple(replace(view, sla=patient) for view in base.windowed_views),
        row_views=tuple(replace(view, sla=patient) for view in base.row_views),
    )


MANIFEST = _manifest()
SPEND = MANIFEST.views["card_spend"]
LATEST = MANIFEST.views["latest_payment"]


@dataclass(frozen=True)
class World:
    """A log, a store, a control plane; the events of the log, and those that were visible."""

    settings: Settings
    client: redis.Redis
    spark: SparkSession
    events: Sequence[Event]

    def parity(self, *views: str, q: int = Q) -> ParityResult:
        return run_parity(self.settings, MANIFEST, None, q, views or None, ingest=False, wanted="local")

    @property
    def visible(self) -> list[Event]:
        return [event for event in self.events if event.available_at < Q]

    @contextmanager
    def control(self) -> Iterator[ControlPlane]:
        with closing(ControlPlane.open(self.settings)) as control:
            yield control

    @contextmanager
    def changed(self, name: str, state: bytes | None) -> Iterator[None]:
        """Put something else into the store for a while; None removes the key."""
        before = cast("bytes | None", self.client.get(name))
        if state is None:
            self.client.delete(name)
        else:
            self.client.set(name, state)
        try:
            yield
        finally:
            if before is None:
                self.client.delete(name)
            else:
                self.client.set(name, before)


@pytest.fixture(scope="module")
def world(spark: SparkSession, redis_server: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A sound world: loaded by batch at CUT, then streamed; late events are missing online, as they must be."""
    settings = redis_server.model_copy(update={"home": tmp_path_factory.mktemp("parity")})
    events = list(ingest(catalog.PAYMENTS, records(11, 900, START, 35 * DAY)).good)
    client = redis.Redis.from_url(settings.redis.url)
    client.flushall()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(settings.home)
        _write_limits(settings)
        append(event_frame(spark, events), table_path(settings, MANIFEST, "log", "payments"), "test", 1)
        _deliver(spark, settings, client, [event for event in events if event.available_at < Q])
        yield World(settings, client, spark, events)
    client.close()


def _write_limits(settings: Settings) -> None:
    rng = random.Random(5)
    at = [START + rng.randrange(30 * DAY) for _ in range(30)]
    rows = limit_rows([(rng.randrange(6), t, t + HOUR, rng.randrange(999), rng.random(), "gold") for t in at])
    write_limits(settings, rows)


def _deliver(spark: SparkSession, settings: Settings, client: redis.Redis, visible: Sequence[Event]) -> None:
    writer = OnlineWriter(client, MANIFEST.tenant)
    with closing(ControlPlane.open(settings)) as control:
        for view in MANIFEST.views.values():
            control.deploy(view.name, view.version, MANIFEST.hash, SINCE, SINCE)
            load_view(spark, settings, MANIFEST, control, view, CUT, Q)
            if isinstance(view, WindowedView):
                write(writer, view, updates(view, MANIFEST, visible, since=SINCE))
            elif view.stream:
                write(writer, view, updates(view, MANIFEST, visible))
            assert writer.mark_ready(view, writer.incarnation(view), "test")


def _card(world: World, event: Event) -> str:
    return encode_key(SPEND.key, key_of(SPEND, event))


def _edited(blob: bytes, hop: int) -> bytes:
    """One added to a sum in the newest tile of a granularity."""
    assert isinstance(SPEND, WindowedView)
    plan = tile_plan(SPEND, catalog.PAYMENTS)
    granularity = plan.granularity(hop)
    start, size = ring_offset(plan, hop), granularity.dtype.itemsize
    slots = [blob[at : at + size] for at in range(start, start + size * granularity.slots, size)]
    newest = max(range(len(slots)), key=lambda index: slots[index][:4])
    assert granularity.dtype.fields is not None
    at = start + newest * size + granularity.dtype.fields["sum_amount"][1]
    changed = int.from_bytes(blob[at : at + 8], "little", signed=True) + 1
    return blob[:at] + changed.to_bytes(8, "little", signed=True) + blob[at + 8 :]


def test_a_sound_store_passes_with_its_late_events_named(world: World) -> None:
    result = world.parity()
    assert result.breaches == ()
    assert result.passed
    assert set(result.causes) == {Cause.LATE}
    assert {view.view for view in result.views} == MANIFEST.views.keys()
    assert all(view.keys > 0 and view.keys_online > 0 for view in result.views)
    assert result.compared == result.matched + sum(result.causes.values())
    for item in result.mismatches:
        assert "left" in item.proof.lower() or "leaving out" in item.proof.lower()
        assert any(line.note == "late" for line in item.events)
    # The generator makes late events for every granularity, so the run must have found some.
    assert result.causes[Cause.LATE] > 5
    for feature in (feature for view in result.views for feature in view.features):
        adds_up(feature)


def test_both_engines_give_the_same_document(world: World) -> None:
    blob = world.client.get(data_key(MANIFEST.tenant, SPEND, "i0"))
    assert isinstance(blob, bytes)
    with world.changed(data_key(MANIFEST.tenant, SPEND, "i0"), _edited(blob, DAY)):
        by_spark, here = (_document(world, engine) for engine in ("spark", "local"))
    assert by_spark == here
    assert by_spark["causes"]["unexplained"] == 2


def _document(world: World, engine: str) -> dict[str, object]:
    spark = world.spark if engine == "spark" else None
    result = run_parity(world.settings, MANIFEST, spark, Q, ingest=False, wanted=engine)
    return to_document(replace(result, seconds=0, run=0, report=""))


def test_a_sample_is_of_the_same_keys_every_time(world: World) -> None:
    some = [
        run_parity(world.settings, MANIFEST, q=Q, ingest=False, wanted="local", sample=Sample(0.5, seed))
        for seed in (1, 1, 2)
    ]
    everything = world.parity()
    assert 0 < some[0].keys < everything.keys
    assert [(item.key, item.feature) for item in some[0].mismatches] == [
        (item.key, item.feature) for item in some[1].mismatches
    ]
    assert {item.key for item in some[0].mismatches} != {item.key for item in some[2].mismatches}
    assert "a sample of 0.5 of the keys, seed 1" in some[0].notes


def test_the_result_survives_the_control_plane(world: World) -> None:
    result = world.parity("card_limit", "latest_payment")
    kept = json.loads(json.dumps(to_document(result)))
    assert to_document(from_document(kept)) == kept
    assert result.run > 0


def test_an_edited_tile_is_unexplained_and_names_the_key(world: World) -> None:
    name = data_key(MANIFEST.tenant, SPEND, "i0")
    blob = world.client.get(name)
    assert isinstance(blob, bytes)
    with world.changed(name, _edited(blob, DAY)):
        result = world.parity("card_spend")
    assert not result.passed
    assert {(item.view, item.key) for item in result.failing()} == {("card_spend", "i0")}
    assert {item.feature for item in result.failing()} == {"sum_amount_30d", "mean_amount_30d"}
    assert "card_spend: 2 unexplained of" in result.breaches[0]
    assert world.parity("card_spend").passed


def test_an_event_gone_from_the_log_is_unexplained_and_names_the_key(world: World) -> None:
    lost = _on_time_everywhere(world)
    path = str(table_path(world.settings, MANIFEST, "log", "payments"))
    where = f"partition = {lost.partition} AND offset = {lost.offset}"
    world.spark.sql(f"DELETE FROM delta.`{path}` WHERE {where}")
    try:
        result = world.parity("card_spend")
    finally:
        append(event_frame(world.spark, [lost]), table_path(world.settings, MANIFEST, "log", "payments"), "test", 2)
    assert not result.passed
    assert {item.key for item in result.failing()} == {_card(world, lost)}
    assert "count_30d" in {item.feature for item in result.failing()}
    assert world.parity("card_spend").passed


def _on_time_everywhere(world: World) -> Event:
    assert isinstance(SPEND, WindowedView)
    hops = {aggregate.hop for aggregate in SPEND.aggregates}
    return next(
        event
        for event in world.visible
        if event.event_ts > CUT + 2 * DAY
        and event.values["amount"]
        and not any(is_late(event, h, 10 * MINUTE) for h in hops)
    )


def test_a_wiped_key_is_missing_online_and_unexplained(world: World) -> None:
    with world.changed(data_key(MANIFEST.tenant, LATEST, "i1"), None):
        result = world.parity("latest_payment", q=Q - DAY)
    failing = [item for item in result.failing() if item.key == "i1"]
    assert failing
    assert {item.symptom for item in failing} == {Symptom.MISSING_ONLINE}
    assert {item.cause for item in failing} == {Cause.UNEXPLAINED}


def test_a_key_that_only_the_store_knows_is_found(world: World) -> None:
    blob = world.client.get(data_key(MANIFEST.tenant, SPEND, "i0"))
    assert isinstance(blob, bytes)
    with world.changed(data_key(MANIFEST.tenant, SPEND, "i4711"), blob):
        result = world.parity("card_spend")
    assert {item.key for item in result.failing()} == {"i4711"}
    assert {item.symptom for item in result.failing()} == {Symptom.MISSING_OFFLINE}
    # Of that key the log has no event, so its values belong to no hour.
    for feature in result.views[0].features:
        adds_up(feature)
        assert (feature.hours[0].start, feature.hours[0].compared) == (None, 1)


def test_a_view_that_is_not_ready_fails_and_compares_as_unavailable(world: World) -> None:
    marker = ready_key(MANIFEST.tenant, 0)
    with world.changed(marker, None):
        result = world.parity("latest_payment")
    assert not result.passed
    assert [item.symptom for item in result.failing()] == [Symptom.UNAVAILABLE]
    (view,) = result.views
    assert view.cause(Cause.UNEXPLAINED) == view.compared
    for feature in view.features:
        adds_up(feature)
        assert not any(hour.matched for hour in feature.hours)


def test_what_the_store_is_not_certified_to_cover_is_in_flight(world: World) -> None:
    """The store lacks the last event of a card; a certificate says that it need not have it yet, or that it must."""
    assert isinstance(LATEST, RowView)
    last = max((event for event in world.visible if key_of(LATEST, event) == (0,)), key=lambda event: event.order)
    held = [event for event in world.visible if event is not last]
    behind = OnlineWriter(world.client, MANIFEST.tenant)
    name = data_key(MANIFEST.tenant, LATEST, "i0")
    bucket = bucket_of("i0", LATEST.partitions)
    with world.changed(name, None):
        write(behind, LATEST, [item for item in updates(LATEST, MANIFEST, held) if item.key == "i0"])
        behind.apply(LATEST, bucket, [], Fence(None, 50))
        _certify(world, {last.partition: last.offset}, {bucket: 50})
        waiting = world.parity("latest_payment", q=last.available_at + 1)
        _certify(world, {last.partition: last.offset + 1}, {bucket: 50})
        lost = world.parity("latest_payment", q=last.available_at + 1)
        _certify(world, {last.partition: last.offset + 1}, {bucket: 51})
        not_reached = world.parity("latest_payment", q=last.available_at + 1)
    assert _causes(waiting, "i0") == {Cause.IN_FLIGHT}
    assert _causes(lost, "i0") == {Cause.UNEXPLAINED}
    # The newest certificate that the store has reached is the second one.
    assert _causes(not_reached, "i0") == {Cause.UNEXPLAINED}


def _certify(world: World, offsets: Mapping[int, int], ends: Mapping[int, int]) -> None:
    topic = f"{MANIFEST.tenant}.changelog.{LATEST.name}.{LATEST.version}"
    with world.control() as control:
        control.record_certificate(Certificate("payments", 1, offsets, {topic: ends}, Q))


def _causes(result: ParityResult, key: str) -> set[Cause]:
    return {item.cause for item in result.mismatches if item.key == key}


def test_the_command_prints_the_table_and_its_exit_code_is_the_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.settings.home / "manifest.json").write_text(MANIFEST.to_json())
    monkeypatch.setenv("COEVAL_HOME", str(world.settings.home))
    monkeypatch.setenv("COEVAL_REDIS__URL", world.settings.redis.url)
    load_settings.cache_clear()
    app = typer.Typer()
    register(app)
    command = ["parity", "run", "card_limit", "--no-ingest"]
    sound = CliRunner().invoke(app, command)
    assert (sound.exit_code, sound.exception) == (0, None)
    assert "parity passed" in sound.stdout
    reports = world.settings.home / "reports"
    page, newest = re.findall(r"report (\S+)", sound.stderr)[0], reports / "parity.html"
    assert Path(page).read_text() == newest.read_text()
    with world.changed(data_key(MANIFEST.tenant, MANIFEST.views["card_limit"], "i2"), None):
        broken = CliRunner().invoke(app, [*command, "--json"])
    assert isinstance(broken.exception, CheckFailedError)
    assert broken.exception.exit_code == 1
    document = json.loads(broken.stdout)
    assert {item["key"] for item in document["mismatches"]} == {"i2"}
    again = CliRunner().invoke(app, ["parity", "show"])
    assert "card_limit card_id=2" in again.stdout
    assert "parity failed" in again.stdout
    assert f'<a href="{Path(page).name}">' in newest.read_text()
    shown = CliRunner().invoke(app, ["parity", "show", "--json"])
    assert json.loads(shown.stdout)["report"] == str(reports / f"parity-{document['run']}.html")
    load_settings.cache_clear()


def test_a_view_that_does_not_exist_is_refused(world: World) -> None:
    with pytest.raises(UnknownFeatureError, match="no view card_spent"):
        world.parity("card_spent")
