"""The laws of the online store that no case shows: writes commute, offsets fence, a wipe is noticed."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
import redis

from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.online.writer import Fence, FencedError, OnlineWriter
from coeval.spec.model import ServiceView
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY
from coeval.spec.types import micros
from tests.support import catalog
from tests.support.events import records
from tests.support.online import updates, write

START = micros(datetime(2026, 3, 20, tzinfo=UTC))


def _events(seed: int, count: int = 600) -> list[Event]:
    return list(ingest(catalog.PAYMENTS, records(seed, count, START, 35 * DAY)).good)


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
    incarnation = writer.incarnation(view)
    client.flushall()
    assert not writer.mark_ready(view, incarnation, "late")
    assert not writer.is_ready(view)
    service = ServiceView(view.name, view.version, ("count_1h", "sum_amount_1h"))
    columns = (
        OnlineReader(client, lambda: START)
        .read(ReadPlanner(manifest, [service]), {"card_id": [1, 2]})
        .columns["card_spend"]
    )
    assert {int(code) for column in columns.values() for code in column.status} == {5}
    assert all(column.null.all() for column in columns.values())
