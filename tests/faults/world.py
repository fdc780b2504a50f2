"""The world that faults are put into: payments that also say who is paid, so that a key has two columns of one type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import redis

from coeval.settings import Settings
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import Entity, Field, WindowedView
from coeval.spec.records import Event, Record, ingest
from coeval.spec.types import INT64
from tests.support import catalog
from tests.support.events import records, rfc3339
from tests.support.parity_world import SPAN, START, World, patient

PAYEE = Field("payee_id", INT64, nullable=False)
PAYEES = "card_payee"
"""The view whose key has two columns of one type."""
_IDENTITY = re.compile(rb'"event_id": (?:"(?:e|bad)(\d+)"|null)')


def fault_world(server: Settings, home: Path, tenant: str, seed: int) -> World:
    """A log of generated payments, written; the store is empty but for other tenants."""
    settings = server.model_copy(update={"home": home})
    manifest = _with_payees(patient(catalog.manifest(), tenant))
    logged = ingest(manifest.event_sources[0], map(_paid, records(seed, 600, START, SPAN)))
    world = World(settings, redis.Redis.from_url(settings.redis.url), manifest, logged)
    world.log()
    return world


def _with_payees(base: Manifest) -> Manifest:
    (source,) = base.event_sources
    source = replace(source, fields=(*source.fields, PAYEE))
    (pair,) = [view for view in base.windowed_views if view.name == "card_merchant"]
    key = (catalog.CARD, PAYEE)
    entities = tuple(item.name for item in key)
    payees = with_version(replace(pair, name=PAYEES, entities=entities, key=key), source)
    assert isinstance(payees, WindowedView)
    return replace(
        base,
        entities=(*base.entities, Entity("payee", PAYEE)),
        event_sources=(source,),
        windowed_views=tuple(sorted((*base.windowed_views, payees), key=lambda view: view.name)),
    )


def _paid(record: Record) -> Record:
    """Who is paid follows from the event's identity, so that a repetition says the same."""

    def said(found: re.Match[bytes]) -> bytes:
        return b'%b, "payee_id": %d' % (found[0], int(found[1] or 0) % 6)

    return replace(record, value=_IDENTITY.sub(said, record.value or b""))


def refusable(event: Event, number: int, keys: Iterable[str]) -> Record:
    """A record like that of an event, with an amount that is written as amounts are not."""
    said = {name: event.values[name] for name in keys}
    document = {"event_id": f"odd{number}", "paid_at": rfc3339(event.event_ts), "amount": "1e2", **said}
    return Record(json.dumps(document).encode(), event.available_at, event.partition, 10**6 + number)
