"""Generated payments: seeded, skewed, with every fault that the contract names, at instants that sit on boundaries."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from coeval.reference.oracle import is_late, key_of
from coeval.spec.model import EventSource, WindowedView
from coeval.spec.records import Event, Record
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND, floor_to
from coeval.spec.types import instant

_MERCHANTS = ("m-1", "m|2", "m%3", 'quo"te, comma', "ümlaut", "")
_NOTES = (None, "", "plain", 'a "quoted", note', "two\nlines", "null", "NULL", "\\N", "tab\t|%")


def records(seed: int, count: int, start: int, span: int, partitions: int = 2, cards: int = 6) -> list[Record]:
    """Raw payment records in the order of availability; offsets count per partition as a topic's would."""
    rng = random.Random(seed)
    drafts: list[tuple[int, int, bytes]] = []
    for number in range(count):
        at = _instant(rng, start, span)
        card = min(int(rng.expovariate(0.5)), cards - 1)
        available = at + _delay(rng)
        value = json.dumps(_document(rng, number, at, card), ensure_ascii=rng.random() < 0.5).encode()
        drafts.append((available, card % partitions, value))
        if rng.random() < 0.03:
            drafts.append((available + rng.randrange(0, HOUR), card % partitions, value))
        if rng.random() < 0.05:
            drafts.append((available, card % partitions, _garbage(rng, number, at, card)))
    return _positions(sorted(drafts, key=lambda draft: draft[0] // 1000))


def _positions(drafts: Sequence[tuple[int, int, bytes]]) -> list[Record]:
    offsets: dict[int, int] = {}
    found: list[Record] = []
    for available, partition, value in drafts:
        offset = offsets.get(partition, 0)
        offsets[partition] = offset + 1
        found.append(Record(value, available // 1000 * 1000, partition, offset))
    return found


def _instant(rng: random.Random, start: int, span: int) -> int:
    at = start + rng.randrange(span)
    if rng.random() < 0.3:
        at = floor_to(at, rng.choice((5 * MINUTE, HOUR, DAY))) + rng.choice((-1000, 0, 1000))
    return at


def _delay(rng: random.Random) -> int:
    draw = rng.random()
    if draw < 0.05:
        return -rng.randrange(4 * MINUTE)
    if draw < 0.15:
        return rng.randrange(10 * MINUTE, 30 * HOUR)
    return rng.randrange(0, 5 * SECOND)


def rfc3339(at: int) -> str:
    """Microseconds as RFC 3339 in UTC."""
    return instant(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _document(rng: random.Random, number: int, at: int, card: int) -> dict[str, object]:
    return {
        "event_id": f"e{number}",
        "paid_at": rfc3339(at),
        "card_id": card,
        "merchant_id": rng.choice(_MERCHANTS),
        "amount": rng.choice((None, "0.00", "-3.5", "9999999.99", f"{rng.randrange(10**6) / 100:.2f}")),
        "fee": rng.choice((None, "0.125", "-999999999999.999", "999999999999.999")),
        "points": rng.choice((None, 0, -7, 2**62, -(2**63), 2**63 - 1, rng.randrange(1000))),
        "note": rng.choice(_NOTES),
    }


def _garbage(rng: random.Random, number: int, at: int, card: int) -> bytes:
    document = _document(rng, number, at, card) | {"event_id": f"bad{number}"}
    change: dict[str, object] = rng.choice(
        (
            {"card_id": None},
            {"card_id": "12.0"},
            {"card_id": 2**63},
            {"paid_at": None},
            {"paid_at": "2026-02-30T00:00:00Z"},
            {"paid_at": "2026-01-01 00:00:00"},
            {"paid_at": rfc3339(at + 3 * DAY)},
            {"amount": "1.005"},
            {"amount": "12345678.00"},
            {"amount": "+1.00"},
            {"amount": "1e2"},
            {"points": "1.5"},
            {"event_id": None},
        )
    )
    text = json.dumps(document | change)
    return rng.choice((text, text, text, text[:-9], "[]", "17", "", "not json")).encode()


def expected_tiles(
    view: WindowedView, source: EventSource, events: Sequence[Event], hop: int, since: int
) -> dict[tuple[tuple[object, ...], int], list[Event]]:
    """The events of each tile that the stream owns, late ones left out: by (key, tile index)."""
    tiles: dict[tuple[tuple[object, ...], int], list[Event]] = {}
    for event in events:
        tile = event.event_ts // hop
        if tile * hop >= since and not is_late(event, hop, source.allowed_lateness):
            tiles.setdefault((key_of(view, event), tile), []).append(event)
    return tiles
