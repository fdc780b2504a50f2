"""The online path against the oracle: layout, guard and reader over a real Redis give what the contract says."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import redis

from coeval.online.layout import Update
from coeval.online.reader import OnlineReader
from coeval.online.writer import Fence, FencedError, OnlineWriter
from coeval.reference.oracle import key_of
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import ServiceView, WindowedView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import Physical, micros
from tests.support import catalog
from tests.support.events import records
from tests.support.online import expected, read, updates, write

START = micros(datetime(2026, 3, 20, tzinfo=UTC))


@pytest.fixture
def client(redis_server: Settings) -> redis.Redis:
    client = redis.Redis.from_url(redis_server.redis.url)
    client.flushall()
    return client


def _events(seed: int, count: int = 600) -> list[Event]:
    return list(ingest(catalog.PAYMENTS, records(seed, count, START, 35 * DAY)).good)


def _ready(writer: OnlineWriter, manifest: Manifest) -> None:
    for view in manifest.views.values():
        assert writer.mark_ready(view, writer.incarnation(), "test")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("late_seen", [False, True], ids=["stream only", "with batch corrections"])
def test_what_is_read_equals_the_contract(client: redis.Redis, seed: int, late_seen: bool) -> None:
    manifest = catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    events = _events(seed)
    _ready(writer, manifest)
    rng = random.Random(seed)
    instants = sorted(
        {
            *(rng.choice(events).available_at + rng.choice((0, 1, HOUR)) for _ in range(8)),
            START + 36 * DAY,
            START + 30 * DAY,
        }
    )
    seen: list[Event] = []
    remaining = sorted(events, key=lambda event: event.available_at)
    compared = 0
    for q in instants:
        fresh = [event for event in remaining if event.available_at < q]
        remaining = remaining[len(fresh) :]
        seen += fresh
        for view in manifest.views.values():
            found = updates(view, manifest, seen)
            if late_seen and isinstance(view, WindowedView):
                found += _corrections(view, manifest, seen, epoch=1 + instants.index(q))
            rng.shuffle(found)
            write(writer, view, found)
            keys = sorted({key_of(view, event) for event in events}, key=str)
            for key, values in zip(keys, read(client, manifest, view, keys, q), strict=True):
                assert values == expected(view, catalog.PAYMENTS, seen, key, q, late_seen), (view.name, key, q)
                compared += len(values)
    assert compared > 2500


def _corrections(view: WindowedView, manifest: Manifest, seen: list[Event], epoch: int) -> list[Update]:
    patient = replace(catalog.PAYMENTS, allowed_lateness=400 * DAY)
    return updates(view, replace(manifest, event_sources=(patient,)), seen, epoch=epoch)


def test_writes_commute_and_are_idempotent(client: redis.Redis) -> None:
    manifest = catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    states: list[dict[bytes, bytes | None]] = []
    for order in range(4):
        client.flushall()
        rng = random.Random(order)
        for view in manifest.views.values():
            events = sorted(_events(7, 200), key=lambda event: event.available_at)
            # Every prefix of the stream emits its tiles again: older absolute values of the same tiles.
            found = [item for end in (50, 120, len(events)) for item in updates(view, manifest, events[:end])] * 2
            rng.shuffle(found)
            write(writer, view, found)
        states.append({key: client.get(key) for key in client.scan_iter()})
    assert all(state == states[0] for state in states)
    assert len(states[0]) > 10


def test_a_fenced_write_needs_the_stored_offset(client: redis.Redis) -> None:
    manifest = catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    view = manifest.views["latest_payment"]
    assert writer.apply(view, 0, [], Fence(None, 10)).written == 0
    assert writer.offsets(view)[0] == 10
    with pytest.raises(FencedError) as fenced:
        writer.apply(view, 0, [], Fence(None, 11))
    assert fenced.value.stored == 10
    with pytest.raises(FencedError):
        writer.apply(view, 0, [], Fence(9, 11))
    writer.apply(view, 0, [], Fence(10, 25))
    assert writer.offsets(view) == {0: 25, 1: None, 2: None, 3: None}


def test_a_wipe_while_filling_leaves_the_view_unready(client: redis.Redis) -> None:
    manifest = catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    view = manifest.views["card_spend"]
    incarnation = writer.incarnation()
    client.flushall()
    assert not writer.mark_ready(view, incarnation, "late")
    assert not writer.is_ready(view)
    service = ServiceView(view.name, view.version, ("count_1h", "sum_amount_1h"))
    columns = OnlineReader(client, manifest, lambda: START).read([service], {"card_id": [1, 2]}).columns["card_spend"]
    assert {int(code) for column in columns.values() for code in column.status} == {5}
    assert all(column.null.all() for column in columns.values())


def test_open_tile_boundaries_to_the_microsecond(client: redis.Redis) -> None:
    manifest = catalog.manifest()
    writer = OnlineWriter(client, manifest.tenant)
    _ready(writer, manifest)
    view = manifest.views["card_spend"]
    at = START + 5 * MINUTE
    values: dict[str, Physical] = {
        "card_id": 1,
        "merchant_id": "m",
        "amount": 100,
        "fee": None,
        "points": 1,
        "note": None,
    }
    event = Event("e", at, at, 0, 0, values, at)
    write(writer, view, updates(view, manifest, [event]))
    counts = {
        q - at: read(client, manifest, view, [(1,)], q)[0]["count_1h"]
        for q in (at + 1, at + HOUR + 5 * MINUTE - 1, at + HOUR + 5 * MINUTE)
    }
    # The store holds the event whatever q is; the first instant at which it may be asked is the one after.
    assert [counts[1], counts[HOUR + 5 * MINUTE - 1], counts[HOUR + 5 * MINUTE]] == [1, 1, 0]
