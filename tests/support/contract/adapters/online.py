"""The online path: what is visible before q goes to a real Redis as the stream would write it, and is read at q.

Each case has its own key, so everything is written first and then read at each case's own instant. Writes come in any
order and more than once; older absolute values of the same tiles are among them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from coeval.online.writer import OnlineWriter
from coeval.spec.model import View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import DAY
from tests.support.contract import catalog
from tests.support.contract.adapters import by_view, seen
from tests.support.contract.cases import Case
from tests.support.contract.compare import Answers, everything, in_time
from tests.support.contract.store import read_at_instants, shuffled_writes
from tests.support.online import updates

SEED = 7
_STEPS = (0.4, 0.8, 1.0)
"""How much of a case had arrived when the stream wrote its tiles."""
_FOREVER = 10_000_000 * DAY


@dataclass
class Online:
    """`coeval.online`. `corrected`: batch runs have written every tile anew, late events included."""

    client: redis.Redis
    corrected: bool = False

    @property
    def name(self) -> str:
        return "online, corrected by batch" if self.corrected else "online"

    def takes(self, case: Case) -> bool:
        return not self.corrected or isinstance(catalog.VIEWS[case.view], WindowedView)

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return everything(case, event, hop) if self.corrected else in_time(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        self.client.flushall()
        manifest = catalog.manifest()
        writer = OnlineWriter(self.client, manifest.tenant)
        rng = random.Random(SEED)
        for name, places in by_view(cases).items():
            view = catalog.VIEWS[name]
            assert writer.mark_ready(view, writer.incarnation(view), "test")
            histories = [seen(cases[place]) for place in places]
            found = [item for step in _STEPS for item in _stream(view, histories, step)]
            if self.corrected:
                found += _corrections(view, histories)
            shuffled_writes(writer, view, found, rng)
        return read_at_instants(self.client, manifest, cases)


def _stream(view: View, histories: Sequence[Sequence[Event]], step: float) -> list[Any]:
    seen = [event for history in histories for event in history[: round(len(history) * step)]]
    # Rows are encoded alike wherever they come from.
    return updates(replace(view, source=catalog.EVENTS.name), catalog.manifest(), seen)


def _corrections(view: View, histories: Sequence[Sequence[Event]]) -> list[Any]:
    """A batch run that took too much into each tile, and the one that corrects it: its counts are lower."""
    patient = replace(catalog.manifest(), event_sources=(replace(catalog.EVENTS, allowed_lateness=_FOREVER),))
    right = [event for history in histories for event in history]
    wrong = right + [replace(event, event_id=f"{event.event_id}-twice") for event in right]
    return updates(view, patient, wrong, epoch=1) + updates(view, patient, right, epoch=2)
