"""Generated training sets: a seed's payments, limits and spine, and what the oracle says that each row must hold."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from coeval.reference import value_at
from coeval.spec.manifest import Manifest
from coeval.spec.records import Event, ingest
from coeval.spec.time import DAY, HOUR, MINUTE
from coeval.spec.types import Physical, to_physical
from tests.support import catalog
from tests.support.events import records
from tests.support.offline import limit_rows, manifest

MANIFEST = manifest()
START = 1_774_000_000_000_000
"""2026-03-20, microseconds UTC."""
SPAN = 33 * DAY
_CARDS = 3
_WIDTHS = (HOUR, DAY, 2 * DAY, 7 * DAY, 30 * DAY)

Values = Mapping[str, Physical]


@dataclass(frozen=True, slots=True)
class World:
    """Events by source, and the spine (card, merchant, instant); `seed` makes it again."""

    seed: int
    payments: tuple[Event, ...]
    limits: tuple[Event, ...]
    spine: tuple[tuple[int, str, int], ...]

    def moved(self, cards: int, prefix: str) -> World:
        """The same, of other cards and merchants: several worlds share a log without knowing of each other."""

        def move(event: Event) -> Event:
            values = dict(event.values) | {"card_id": int(str(event.values["card_id"])) + cards}
            if "merchant_id" in values:
                values["merchant_id"] = prefix + str(values["merchant_id"])
            return replace(event, values=values)

        spine = tuple((card + cards, prefix + merchant, q) for card, merchant, q in self.spine)
        return World(self.seed, tuple(map(move, self.payments)), tuple(map(move, self.limits)), spine)

    def expected(self, manifest: Manifest = MANIFEST) -> list[Values]:
        """Per spine row, every stored feature by view__feature, as the oracle has it."""
        found: list[Values] = []
        for card, merchant, q in self.spine:
            given = {"card_id": card, "merchant_id": merchant}
            row: dict[str, Physical] = {}
            for view in manifest.views.values():
                facts = self.limits if view.source == "limits" else self.payments
                key = tuple(given[field.name] for field in view.key)
                values = value_at(view, manifest.sources[view.source], facts, key, q)
                row |= {f"{view.name}__{name}": value.value for name, value in values.items()}
            found.append(row)
        return found


def world(seed: int, events: int = 40, rows: int = 20) -> World:
    """Payments with every fault, limits, and instants at, just before and just after what a value depends on."""
    rng = random.Random(seed)
    # Short or long: many events in one tile, or windows that most events have left.
    span = rng.choice((HOUR, 2 * DAY, SPAN))
    payments = ingest(catalog.PAYMENTS, records(seed, events, START, span, cards=_CARDS)).good
    limits = limit_rows([_limit(rng, span) for _ in range(8)])
    edges = [at for event in (*payments, *limits) for at in (event.event_ts, event.available_at)]
    edges += [event.event_ts + width for event in payments for width in _WIDTHS]
    merchants = sorted({str(event.values["merchant_id"]) for event in payments})
    spine = []
    for _ in range(rows):
        q = rng.choice(edges) + rng.choice((-1, 0, 0, 1))
        if rng.random() < 0.3:
            q -= q % rng.choice((5 * MINUTE, HOUR, DAY))
        spine.append((rng.randrange(_CARDS + 1), rng.choice(merchants), q))
    return World(seed, tuple(payments), tuple(limits), (*spine, *spine[:2]))


def _limit(rng: random.Random, span: int) -> tuple[int, int, int, int, float, str]:
    at = START + rng.randrange(span)
    known = at + rng.choice((-DAY, 0, 0, HOUR))
    return rng.randrange(_CARDS), at, known, rng.randrange(999), rng.random(), rng.choice(("a|é", "", "gold"))


def spine_table(worlds: Sequence[World]) -> pa.Table:
    """The spines of worlds, one after the other, with what the catalog's service takes of a request."""
    rows = [row for item in worlds for row in item.spine]
    return pa.table(
        {
            "n": pa.array(range(len(rows)), pa.int64()),
            "card_id": pa.array([row[0] for row in rows], pa.int64()),
            "merchant_id": pa.array([row[1] for row in rows], pa.string()),
            "event_timestamp": pa.array([row[2] for row in rows], pa.timestamp("us", tz="UTC")),
            "payment_amount": pa.array([10.0] * len(rows)),
        }
    )


def differences(table: pa.Table, worlds: Sequence[World], manifest: Manifest = MANIFEST) -> list[str]:
    """Every value of a training set that is not the oracle's, in words."""
    types = {f"{v.name}__{f.name}": f.type for v in manifest.views.values() for f in v.features}
    columns = {name: kind for name, kind in types.items() if name in table.column_names}
    assert columns
    found = []
    got = table.sort_by("n").to_pylist()
    wanted = [
        (item.seed, row, values) for item in worlds for row, values in zip(item.spine, item.expected(), strict=True)
    ]
    for mine, (seed, row, values) in zip(got, wanted, strict=True):
        for name, kind in columns.items():
            value = to_physical(kind, mine[name])
            if value != values[name]:
                found.append(f"seed {seed}, row {row}: {name} is {value}, not {values[name]}")
    return found
