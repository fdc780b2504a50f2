"""The online path: what is visible before q goes to a real Redis as the stream would write it, and is read at q.

Each case has its own key, so everything is written first and then read at each case's own instant. Writes come in any
order and more than once; older absolute values of the same tiles are among them. What a case erases is written before
the erasure and again after it; some keys are erased before they exist.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from coeval.online import keys
from coeval.online.layout import TILE_HEADER
from coeval.online.rows import ROW_HEADER
from coeval.online.writer import OnlineWriter
from coeval.spec.keys import encode_key
from coeval.spec.model import View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import DAY
from tests.support.contract import catalog
from tests.support.contract.adapters import Adapter, by_view, floors_hold, left, seen
from tests.support.contract.cases import Case
from tests.support.contract.compare import ROW, Answers, awaits_batch, everything, in_time
from tests.support.contract.store import erase, read_at_instants, shuffled_writes
from tests.support.online import updates

SEED = 7
_STEPS = (0.4, 0.8, 1.0)
"""How much of a case had arrived when the stream wrote its tiles."""
_FOREVER = 10_000_000 * DAY
_UNAWARE = 1
"""The last batch run that may have read the log before the erasures were known."""


@dataclass
class Online:
    """`coeval.online`. `corrected`: batch runs have written every tile anew, late events included."""

    client: redis.Redis
    corrected: bool = False

    @property
    def name(self) -> str:
        return "online, corrected by batch" if self.corrected else "online"

    def takes(self, case: Case) -> bool:
        return floors_hold(case) and (not self.corrected or isinstance(catalog.VIEWS[case.view], WindowedView))

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        if self.corrected:
            return everything(case, event, hop)
        return in_time(case, event, hop) and not awaits_batch(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        self.client.flushall()
        manifest = catalog.manifest()
        writer = OnlineWriter(self.client, manifest.tenant)
        rng = random.Random(SEED)
        for name, places in by_view(cases).items():
            view = catalog.VIEWS[name]
            assert writer.mark_ready(view, writer.incarnation(view), "test")
            self._write(writer, view, [cases[place] for place in places], rng)
        return read_at_instants(self.client, manifest, cases)

    def _write(self, writer: OnlineWriter, view: View, cases: Sequence[Case], rng: random.Random) -> None:
        found = [item for step in _STEPS for item in _stream(view, [seen(case) for case in cases], step)]
        if self.corrected:
            found += _corrections(view, cases)
        elif catalog.is_batch(view):
            found += _encoded(view, [event for case in cases for event in left(case)], _UNAWARE + 1)
        erased = [case for case in cases if case.erasures]
        first = [case for case in erased if rng.random() < 0.3]
        subjects = {encode_key(view.key, case.key) for case in erased}
        erase(self.client, catalog.manifest().tenant, first, _UNAWARE)
        shuffled_writes(writer, view, found, rng)
        erase(self.client, catalog.manifest().tenant, erased, _UNAWARE)
        shuffled_writes(writer, view, [item for item in found if item.key in subjects], rng)


@dataclass
class Masked:
    """A reader alone: the floors stand in the headers, and what lies below them has not been taken away."""

    client: redis.Redis
    name: str = "online, floors without removal"

    def takes(self, case: Case) -> bool:
        # A row that was replaced by an erased one is not there to be read.
        windowed = isinstance(catalog.VIEWS[case.view], WindowedView)
        return bool(case.erasures) and floors_hold(case) and (windowed or len(case.events) == 1)

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return hop == ROW or (in_time(case, event, hop) and not awaits_batch(case, event, hop))

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        self.client.flushall()
        manifest = catalog.manifest()
        writer = OnlineWriter(self.client, manifest.tenant)
        for name, places in by_view(cases).items():
            view = catalog.VIEWS[name]
            assert writer.mark_ready(view, writer.incarnation(view), "test")
            mine = [cases[place] for place in places]
            shuffled_writes(writer, view, _stream(view, [seen(case) for case in mine], 1.0), random.Random(SEED))
            for case in mine:
                self._raise(keys.data_key(manifest.tenant, view, encode_key(view.key, case.key)), case)
        found = read_at_instants(self.client, manifest, cases)
        # A key whose tiles are all below the floor is still there.
        return [{name: (value, None) for name, (value, _) in answers.items()} for answers in found]

    def _raise(self, key: str, case: Case) -> None:
        windowed = isinstance(catalog.VIEWS[case.view], WindowedView)
        header = TILE_HEADER if windowed else ROW_HEADER
        if case.erased_until is not None and self.client.exists(key):
            self.client.setrange(key, header.size - 8, case.erased_until.to_bytes(8, "big", signed=True))  # type: ignore[arg-type]


def online_adapters(client: redis.Redis) -> list[Adapter]:
    """Every adapter of the online path."""
    return [Online(client), Online(client, corrected=True), Masked(client)]


def _stream(view: View, histories: Sequence[Sequence[Event]], step: float) -> list[Any]:
    """What the stream writes; of a batch source, what a run writes that did not know of the erasures."""
    seen = [event for history in histories for event in history[: round(len(history) * step)]]
    return _encoded(view, seen, _UNAWARE if catalog.is_batch(view) else 0)


def _encoded(view: View, events: Sequence[Event], epoch: int) -> list[Any]:
    # Rows are encoded alike wherever they come from.
    return updates(replace(view, source=catalog.EVENTS.name), catalog.manifest(), events, epoch=epoch)


def _corrections(view: View, cases: Sequence[Case]) -> list[Any]:
    """A batch run that took too much into each tile, what was erased too, and the one that corrects it."""
    patient = replace(catalog.manifest(), event_sources=(replace(catalog.EVENTS, allowed_lateness=_FOREVER),))
    known = [event for case in cases for event in seen(case)]
    wrong = known + [replace(event, event_id=f"{event.event_id}-twice") for event in known]
    right = [event for case in cases for event in left(case)]
    return updates(view, patient, wrong, epoch=_UNAWARE) + updates(view, patient, right, epoch=_UNAWARE + 1)
