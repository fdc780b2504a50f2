"""A subject is erased: online at once, in every key that holds it, and no replay, wipe or batch load brings it back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import redis
import typer
from typer.testing import CliRunner

from coeval.errors import UsageError
from coeval.online.erase import OnlineEraser, erased_key
from coeval.online.keys import data_key
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import is_erased, key_of, value_at
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.keys import encode_key
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import View, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR
from coeval.spec.types import Physical, micros, to_physical
from coeval_pipelines.control import ControlPlane, Run
from coeval_pipelines.control.parity import ParityBook
from coeval_pipelines.coordination import erase_commands, floors
from coeval_pipelines.coordination import erasure as erasing
from coeval_pipelines.coordination.deploy import switch
from coeval_pipelines.erasures import ErasureTable, Recorded
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.point_in_time import point_in_time
from coeval_pipelines.offline.tables import append, table_path
from coeval_pipelines.offline.training.build import Wanted, build
from tests.support import catalog
from tests.support.events import records
from tests.support.loads import begin_load, load_view
from tests.support.offline import event_frame
from tests.support.online import read, updates, write

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
NOW = START + 36 * DAY
SEED = 17


@pytest.fixture
def client(redis_server: Settings) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(redis_server.redis.url)) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings(redis_server: Settings, tmp_path: Path) -> Settings:
    """A home of its own beside the shared store."""
    return redis_server.model_copy(update={"home": tmp_path})


@pytest.fixture
def control(settings: Settings) -> Iterator[ControlPlane]:
    with closing(ControlPlane.open(settings)) as control:
        yield control


def _events() -> list[Event]:
    print(f"seed {SEED}")
    return list(ingest(catalog.PAYMENTS, records(SEED, 600, START, 35 * DAY)).good)


def _fill(client: redis.Redis, events: list[Event], manifest: Manifest | None = None) -> None:
    manifest = manifest or catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    for view in manifest.views.values():
        write(writer, view, updates(view, manifest, events))
        assert writer.mark_ready(view, writer.incarnation(view), "test")


def _left(client: redis.Redis, card: int) -> list[str]:
    """Names in the store of keys that hold the card."""
    views = [view for view in catalog.manifest().views.values() if any(f.name == "card_id" for f in view.key)]
    eraser = OnlineEraser(client, catalog.manifest().tenant)
    return [view.name for view in views if eraser.count(view, Erasure("card_id", card, 0))]


def test_a_subject_is_gone_from_every_view_that_holds_it_and_nobody_else_is(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    manifest, events = catalog.manifest(), _events()
    _fill(client, events)
    card = max(
        {event.values["card_id"] for event in events}, key=lambda c: sum(e.values["card_id"] == c for e in events)
    )
    before = {name: client.get(name) for name in client.scan_iter() if b"@" not in name}
    assert len(_left(client, card)) > 2
    outcome = erasing.erase(settings, manifest, control, Erasure("card_id", card, NOW), NOW)
    assert outcome.is_new and all(item.taken for item in outcome.found)
    assert _left(client, card) == []
    after = {name: client.get(name) for name in client.scan_iter() if b"@" not in name}
    assert after.items() <= before.items()
    gone = len(before) - len(after)
    assert gone == sum(item.keys for item in outcome.found)
    _fill(client, events)  # the whole stream again
    assert {name: client.get(name) for name in client.scan_iter() if b"@" not in name} == after


def test_what_comes_after_the_erasure_counts(client: redis.Redis, settings: Settings, control: ControlPlane) -> None:
    manifest, events = catalog.manifest(), _events()
    _fill(client, events)
    until = START + 20 * DAY
    card = events[0].values["card_id"]
    erasure = Erasure("card_id", card, until)
    erasing.erase(settings, manifest, control, erasure, NOW)
    q = START + 35 * DAY + HOUR
    plans = {view.name: view for view in manifest.windowed_views}
    view = next(view for view in plans.values() if [field.name for field in view.key] == ["card_id"])
    found = read(client, manifest, view, [(card,)], q)[0]
    for aggregate in view.aggregates:
        counted = [e for e in events if e.event_ts // aggregate.hop * aggregate.hop > until]
        narrow = replace(
            view, aggregates=(aggregate,), features=tuple(f for f in view.features if f.name == aggregate.feature)
        )
        in_time = [
            e
            for e in counted
            if e.available_at < (e.event_ts // aggregate.hop + 1) * aggregate.hop + catalog.PAYMENTS.allowed_lateness
        ]
        assert (
            found[aggregate.feature] == value_at(narrow, catalog.PAYMENTS, in_time, (card,), q)[aggregate.feature].value
        )


def test_erasing_twice_is_erasing_once_and_a_floor_only_rises(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    manifest, events = catalog.manifest(), _events()
    _fill(client, events)
    first = erasing.erase(settings, manifest, control, Erasure("card_id", 3, NOW - DAY), NOW)
    state = {name: client.dump(name) for name in client.scan_iter()}
    # A batch run that knew of the erasure has written since: doing it again takes nothing of it away.
    begin_load(control, "card_spend", "v", NOW)
    for at in (NOW - DAY, NOW - 2 * DAY):
        again = erasing.erase(settings, manifest, control, Erasure("card_id", 3, at), NOW)
        assert (again.is_new, again.entry) == (False, first.entry)
    assert {name: client.dump(name) for name in client.scan_iter()} == state
    later = erasing.erase(settings, manifest, control, Erasure("card_id", 3, NOW), NOW)
    assert later.is_new and later.erasure.epoch == 1
    assert ErasureTable(settings, manifest.tenant).version == 2


def _bring_up(settings: Settings, control: ControlPlane) -> int:
    """What bringing the store up to the table of erasures takes away."""
    manifest = catalog.manifest()
    done = floors.bring_up(settings, control, manifest.tenant, lambda: floors.served(settings, control, manifest))
    return sum(item.taken for item in done.values())


def test_a_bucket_that_was_wiped_gets_its_floors_back_and_the_others_are_left_alone(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    manifest, events = catalog.manifest(), _events()
    _fill(client, events)
    erasing.erase(settings, manifest, control, Erasure("card_id", 3, NOW), NOW)
    erasing.erase(settings, manifest, control, Erasure("card_id", 5, NOW), NOW)
    for wiped in (range(4), range(1)):
        for bucket in wiped:
            client.delete(*client.keys(f"bank:{{{bucket}}}:*"))
        # The writer reads the changelog again at once, before anybody has set the floors.
        _fill(client, events)
        assert _left(client, 3) or _left(client, 5)
        assert _bring_up(settings, control) > 0
        assert _left(client, 3) == _left(client, 5) == []
        _fill(client, events)
        assert _left(client, 3) == _left(client, 5) == []
    state = {name: client.dump(name) for name in client.scan_iter()}
    assert _bring_up(settings, control) == 0
    assert {name: client.dump(name) for name in client.scan_iter()} == state


def test_a_wipe_while_floors_are_set_leaves_the_bucket_behind(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    view, table = catalog.CARD_SPEND, [Erasure("card_id", 3, NOW)]
    eraser = OnlineEraser(client, "bank")
    eraser.erase(view, floors.Served(catalog.manifest(), view).plan, table, pending="1")
    assert set(eraser.applied(view).values()) == {0}
    client.delete(erased_key("bank", view, 2))
    eraser._mark.run_all([([erased_key("bank", view, bucket)], ["1"]) for bucket in range(4)])
    assert eraser.applied(view) == {0: 1, 1: 1, 2: 0, 3: 1}


def test_many_erasures_cost_one_scan_of_the_keys(
    client: redis.Redis, settings: Settings, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(client, _events())
    table = [Erasure("card_id", card, NOW) for card in range(6)]
    scans: list[object] = []
    scan_iter = client.scan_iter
    monkeypatch.setattr(client, "scan_iter", lambda **options: scans.append(options) or scan_iter(**options))
    eraser, pair = OnlineEraser(client, "bank"), catalog.PAIR
    plan = floors.Served(catalog.manifest(), pair).plan
    assert eraser.bring_up(pair, plan, table).keys > 6
    assert len(scans) == 1
    assert eraser.bring_up(pair, plan, table).keys == 0
    assert len(scans) == 1


def test_every_version_that_may_be_served_is_erased(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    """A new version is applied, the old one is still released, and a third is only deployed: all of them lose it."""
    old, events = catalog.manifest(), _events()
    new = _with_fewer(old, 1)
    third = _with_fewer(old, 2)
    for number, manifest in enumerate((old, third)):
        control.save_manifest(manifest, number)
        view = manifest.views["card_spend"]
        control.deploy(view.name, view.version, manifest.hash, 0, number)
    control.release(old.hash, 1)
    settings.manifest_path.parent.mkdir(parents=True, exist_ok=True)
    settings.manifest_path.write_text(new.to_json())
    for manifest in (old, new, third):
        _fill(client, events, manifest)
    outcome = erasing.erase(settings, new, control, Erasure("card_id", 3, NOW), NOW)
    views = [manifest.views["card_spend"] for manifest in (old, new, third)]
    eraser = OnlineEraser(client, "bank")
    assert [eraser.count(view, outcome.erasure) for view in views] == [0, 0, 0]
    named = {item.view for item in outcome.found if item.view.startswith("card_spend")}
    assert named == {"card_spend", *(f"card_spend {view.version}" for view in (views[0], views[2]))}
    _fill(client, events, old)
    assert eraser.count(views[0], outcome.erasure) == 0
    assert floors.drop(settings, [floors.Served(third, views[2])], let_go=0) > 4
    assert [bool(client.keys(f"*:{view.name}:{view.version}*")) for view in views] == [True, True, False]


def test_readers_are_not_switched_to_a_version_that_lacks_an_erasure(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    """The store was away when the subject was erased; back it goes to a version that was released before."""
    old, new, events = catalog.manifest(), _with_fewer(catalog.manifest(), 1), _events()
    for number, manifest in enumerate((old, new)):
        control.save_manifest(manifest, number)
        for view in manifest.views.values():
            control.deploy(view.name, view.version, manifest.hash, 0, number)
        control.begin_run(Run(0, "payments", manifest.hash, tuple(manifest.views), {}, {}), number)
        control.release(manifest.hash, number)
        _fill(client, events, manifest)
    settings.released_path.parent.mkdir(parents=True, exist_ok=True)
    ErasureTable(settings, old.tenant).record(Erasure("card_id", 3, NOW), NOW, control.last_epoch)
    assert OnlineEraser(client, "bank").count(old.views["card_spend"], Erasure("card_id", 3, NOW)) == 1
    switch(settings, old, control)
    assert control.released() == old
    assert _left(client, 3) == []


def _with_fewer(manifest: Manifest, fewer: int) -> Manifest:
    """Another version of card_spend."""

    def change(view: WindowedView) -> WindowedView:
        if view.name != "card_spend":
            return view
        left = replace(view, aggregates=view.aggregates[:-fewer], features=view.features[:-fewer])
        return with_version(left, catalog.PAYMENTS)

    return replace(manifest, windowed_views=tuple(change(view) for view in manifest.windowed_views))


def test_an_erasure_that_reaches_less_far_takes_nothing_that_batch_wrote_since_another(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    """The card was erased up to day 20 and batch wrote what was left; then its merchant is erased up to day 10."""
    manifest, view, events = catalog.manifest(), catalog.PAIR, _events()
    card, merchant = Counter(key_of(view, event) for event in events).most_common(1)[0][0]
    first = Erasure("card_id", card, START + 20 * DAY, 0)
    second = Erasure("merchant_id", merchant, START + 10 * DAY, 7)
    writer, eraser = OnlineWriter(client, "bank"), OnlineEraser(client, "bank")
    plan = floors.Served(manifest, view).plan
    assert writer.mark_ready(view, writer.incarnation(view), "test")
    eraser.bring_up(view, plan, [first])
    late = [replace(event, available_at=NOW) for event in events]
    patient = replace(manifest, event_sources=(replace(catalog.PAYMENTS, allowed_lateness=400 * DAY),))
    anew = updates(view, patient, late, epoch=5)
    write(writer, view, anew)
    q = START + 21 * DAY
    before = read(client, manifest, view, [(card, merchant)], q)
    eraser.bring_up(view, plan, [first, second])
    assert read(client, manifest, view, [(card, merchant)], q) == before
    count = next(item.feature for item in view.aggregates if item.function == "count")
    assert before[0][count]
    # What the second one reaches is refused of run 5; what only the first one reaches is not.
    name = data_key("bank", view, encode_key(view.key, (card, merchant)))
    client.delete(name)
    write(writer, view, anew)
    assert read(client, manifest, view, [(card, merchant)], q) == before
    assert read(client, manifest, view, [(card, merchant)], START + 9 * DAY)[0][count] == 0


def test_another_delivery_of_an_erased_event_does_not_bring_its_row_back(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    manifest, view, event = catalog.manifest(), catalog.LATEST, _events()[0]
    card, until, q = event.values["card_id"], event.available_at, event.available_at + HOUR
    copy = replace(event, available_at=until + 1, offset=10**6)
    writer = OnlineWriter(client, "bank")
    assert writer.mark_ready(view, writer.incarnation(view), "test")
    write(writer, view, updates(view, manifest, [event, copy]))
    erasing.erase(settings, manifest, control, Erasure("card_id", card, until), NOW)
    assert _left(client, card) == []
    write(writer, view, updates(view, manifest, [copy]))
    assert _left(client, card) == []
    # Batch, which knows duplicates from late events, may write a row of that time; and what happens later counts.
    write(writer, view, updates(view, manifest, [copy], epoch=1))
    assert read(client, manifest, view, [(card,)], q)[0]["merchant_id"] == event.values["merchant_id"]
    later = replace(event, event_ts=until + 2, available_at=until + 2, offset=10**6 + 1)
    write(writer, view, updates(view, manifest, [later]))
    assert client.strlen(data_key("bank", view, encode_key(view.key, (card,)))) > 0


def test_an_entry_whose_writer_died_is_made_whole_by_the_next_command_and_by_the_coordinator(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    manifest = catalog.manifest()
    table = ErasureTable(settings, manifest.tenant)

    def died() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.record(Erasure("card_id", 3, NOW), NOW, died)
    assert [entry.is_dated for entry in table.entries()] == [False]
    # The same command: its instant is a later now, so that it is an erasure of its own.
    later = erasing.subject([manifest], "card_id=3", NOW + 1, NOW + 1)
    assert erasing.erase(settings, manifest, control, later, NOW + 1).entry == Recorded(
        2, replace(later, epoch=0), NOW + 1
    )
    assert [entry.erasure.epoch for entry in table.entries()] == [0, 0]
    with pytest.raises(KeyboardInterrupt):
        table.record(Erasure("card_id", 5, NOW), NOW, died)
    _bring_up(settings, control)
    assert [entry.is_dated for entry in table.entries()] == [True, True, True]
    assert set(OnlineEraser(client, "bank").applied(catalog.CARD_SPEND).values()) == {3}


def test_reports_of_parity_forget_what_they_kept_of_the_views(
    client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    kept = {"view": "another", "key": "i1"}
    result = {"mismatches": [{"view": "card_spend", "key": "i3"}, kept], "omitted": 1, "compared": 7}
    ParityBook(control).record(NOW, "hash", True, result)
    pages = [settings.home / "reports" / name for name in ("parity.html", "parity-1.html", "replay.html")]
    pages[0].parent.mkdir()
    for page in pages:
        page.write_text("<p>card_id=3")
    erasing.erase(settings, catalog.manifest(), control, Erasure("card_id", 3, NOW), NOW)
    assert ParityBook(control).run() == (1, {"mismatches": [kept], "omitted": 2, "compared": 7})
    assert not any(page.exists() for page in pages)


def test_a_dry_run_counts_and_writes_nothing(
    client: redis.Redis, settings: Settings, control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    erase_commands.register(app)
    manifest, events = catalog.manifest(), _events()
    _fill(client, events)
    settings.manifest_path.parent.mkdir(parents=True, exist_ok=True)
    settings.manifest_path.write_text(manifest.to_json())
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    state = {name: client.dump(name) for name in client.scan_iter()}
    run = CliRunner().invoke(app, ["erase", "merchant_id=m-1", "--dry-run", "--json"])
    assert run.exit_code == 0, run.output
    document = json.loads(run.stdout)
    assert document["recorded"] is None and document["views"]["card_merchant"]["keys"] > 1
    assert {name: client.dump(name) for name in client.scan_iter()} == state
    done = CliRunner().invoke(app, ["erase", "merchant_id=m-1", "--json"])
    assert json.loads(done.stdout)["views"]["card_merchant"]["taken"] > 0
    assert set(json.loads(done.stdout)["not_keyed"]) == {"card_spend", "latest_payment"}


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("card=3", NOW, "names no subject"),
        ("card_id", NOW, "names no subject"),
        ("card_id=three", NOW, "is not a int64"),
        ("card_id=3", NOW + 1, "still to come"),
    ],
)
def test_what_cannot_be_erased_is_refused(text: str, at: int, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        erasing.subject([catalog.manifest()], text, at, NOW)
    assert "three" not in str(refused.value)


def test_the_views_that_an_erasure_changes_are_named() -> None:
    manifest = catalog.manifest()
    touched = erasing.affected(manifest, Erasure("card_id", 3, NOW))
    assert {view.name for view in (*touched.keyed, *touched.fed)} == set(manifest.views)
    assert all("card_id" not in [field.name for field in view.key] for view in touched.fed)
    # Up to now there is no row that happened in the erased time and became available after it; before now there may be.
    assert {view.name for view in touched.anew(past=False)} == {"card_spend", "card_merchant"}
    assert {view.name for view in touched.anew(past=True)} == set(manifest.views)


@pytest.mark.parametrize(("column", "days"), [("card_id", 20), ("merchant_id", 35)])
def test_batch_and_training_do_not_know_what_was_erased(
    column: str, days: int, spark: SparkSession, client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    """After a batch run, views that are keyed by the subject and those that are not are as the oracle says."""
    manifest, events = catalog.manifest(), _events()
    append(event_frame(spark, events), table_path(settings, manifest, "log", "payments"), "test", 1)
    _fill(client, events)
    cut = START + 36 * DAY
    for view in manifest.views.values():
        load_view(spark, settings, manifest, control, view, cut, now=cut)
    subject = Counter(event.values[column] for event in events).most_common(1)[0][0]
    erasure = Erasure(column, subject, START + days * DAY)
    outcome = erasing.erase(settings, manifest, control, erasure, NOW)
    assert outcome.erasure.epoch == control.last_epoch() == len(manifest.views)
    for view in manifest.views.values():
        load_view(spark, settings, manifest, control, view, cut, now=cut)
    if column == "merchant_id":
        # A field for each card whose newest payment was erased, however many were.
        latest = {event.values["card_id"]: event for event in sorted(events, key=lambda event: event.order)}
        newest = {card for card, event in latest.items() if is_erased(event, [erasure])}
        view = catalog.LATEST
        hashes = [client.hkeys(erased_key("bank", view, bucket)) for bucket in range(view.partitions)]
        fields = [field for names in hashes for field in names if field.startswith(b"@")]
        assert len(fields) == len(newest) > 0
    _fill(client, events)  # a replay of the whole stream
    for view in manifest.views.values():
        keys = sorted({key_of(view, event) for event in events}, key=str)
        for q in (cut, cut + HOUR):
            found = read(client, manifest, view, keys, q)
            for key, values in zip(keys, found, strict=True):
                expected = value_at(view, catalog.PAYMENTS, events, key, q, [erasure])
                assert values == {name: item.value for name, item in expected.items()}, (view.name, key)
        spine = spark.createDataFrame(_spine(view, keys, cut))
        rows = point_in_time(spark, settings, manifest, view, spine).toArrow().to_pylist()
        assert len(rows) == len(keys)
        for row in rows:
            key = tuple(row[field.name] for field in view.key)
            expected = value_at(view, catalog.PAYMENTS, events, key, cut, [erasure])
            got = {f.name: to_physical(f.type, row[f"{view.name}__{f.name}"]) for f in view.features}
            assert got == {name: item.value for name, item in expected.items()}, (view.name, key)


def _spine(view: View, keys: list[tuple[Physical, ...]], q: int) -> pa.Table:
    columns = {
        field.name: logical_array(field.type, [key[place] for key in keys]) for place, field in enumerate(view.key)
    }
    return pa.table({**columns, "event_timestamp": pa.array([q] * len(keys), pa.int64())})


def test_a_training_set_names_the_erasures_that_it_knew_and_says_when_it_lost_something(
    spark: SparkSession, client: redis.Redis, settings: Settings, control: ControlPlane
) -> None:
    manifest, events = catalog.manifest(), _events()
    append(event_frame(spark, events), table_path(settings, manifest, "log", "payments"), "test", 1)
    key = {"card_id": [3], "merchant_id": ["m1"], "payment_amount": [Decimal("1.00")]}
    spine = pa.table({**key, "event_timestamp": pa.array([NOW], pa.int64())})

    def built() -> Mapping[str, Any]:
        return build(settings, Wanted(Asked.of(manifest, "risk"), spine), "one").lineage

    before = built()
    erasing.erase(settings, manifest, control, Erasure("card_id", 3, NOW), NOW)
    after, again = built(), built()
    assert [(item["erasures"], item["erased"]) for item in (before, after, again)] == [
        (0, False),
        (1, True),
        (1, False),
    ]
    assert before["content_hash"] != after["content_hash"] == again["content_hash"]
