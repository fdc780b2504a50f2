"""The batch load: tiles and rows that Spark computes at a cut go to Redis beside the stream's, and are read at q.

A cut is one instant for many cases: they are put into groups by their q, and each group is cut in its midst, where one
of its late events became available.
What the stream owns is there too, so what a case must see is: all that was available before its group's cut in tiles
that were final then and still in the ring, and what came in time in the others. Some cases of row views, at whose q an
event becomes visible, are loaded as of their own q out of all of their events, and have no stream beside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import redis

from coeval.aggregations.tiles import tile_plan
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import is_late
from coeval.spec.model import RowView, View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import HOUR
from coeval_pipelines.offline import erased, online_load, tiles
from coeval_pipelines.offline.seen import seen_by
from tests.support.contract import catalog
from tests.support.contract.adapters import by_view, floors_hold, seen, visible
from tests.support.contract.cases import Case, good
from tests.support.contract.compare import ROW, Answers, awaits_batch
from tests.support.contract.frames import GROUP, event_frame
from tests.support.contract.store import erase, read_at_instants, shuffled_writes
from tests.support.online import updates

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GROUPS = 5
_RUN = 3
"""The epoch of the load."""
_ALONE = 12
"""Cases of a row view that are loaded as of their own q."""
_EVER = 253_402_300_799_999_999


@dataclass
class SparkLoad:
    """`coeval_pipelines.offline.tiles` and `online_load`."""

    spark: SparkSession
    client: redis.Redis
    name: str = "spark-load"
    cuts: list[int] = field(default_factory=list)
    groups: dict[Case, int] = field(default_factory=dict)
    alone: dict[Case, int] = field(default_factory=dict)

    def takes(self, case: Case) -> bool:
        return floors_hold(case)

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return loaded(case, event, hop, self.cuts[self.groups[case]])

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        self._cut(cases)
        self.client.flushall()
        manifest = catalog.manifest()
        writer = OnlineWriter(self.client, manifest.tenant)
        rng = random.Random(11)
        frames = {source: self._events(source, cases) for source in (catalog.EVENTS.name, catalog.FACTS.name)}
        for name, places in by_view(cases).items():
            view = catalog.VIEWS[name]
            assert writer.mark_ready(view, writer.incarnation(view), "test")
            loaded = self._load(view, frames[view.source])
            beside = [cases[place] for place in places if cases[place] not in self.alone]
            streamed = [event for case in beside for event in seen(case)] if view.source == "events" else []
            found = loaded + updates(view, manifest, streamed) if streamed else loaded
            erase(self.client, manifest.tenant, [cases[place] for place in places], _RUN - 1)
            shuffled_writes(writer, view, found, rng)
        answers = read_at_instants(self.client, manifest, cases)
        # A key whose tiles were all too old to be loaded is unknown to the store: only values are compared.
        return [{name: (value, None) for name, (value, _) in found.items()} for found in answers]

    def _cut(self, cases: Sequence[Case]) -> None:
        ordered = sorted(cases, key=lambda case: case.q)
        size = -(-len(ordered) // GROUPS)
        self.groups = {case: place // size for place, case in enumerate(ordered)}
        self.cuts = [_cut_of(ordered[start : start + size]) for start in range(0, len(ordered), size)]
        self.alone = {}
        for name, places in by_view(cases).items():
            if isinstance(catalog.VIEWS[name], RowView):
                telling = [cases[place] for place in places if _turns(cases[place])]
                self.alone |= {case: GROUPS + number for number, case in enumerate(telling[:_ALONE])}

    def _events(self, source: str, cases: Sequence[Case]) -> DataFrame:
        """What is visible at q: a case's later events have not happened yet, whatever its group's cut."""
        mine = [case for case in cases if catalog.VIEWS[case.view].source == source]
        pairs = [(event, self.groups[case]) for case in mine if case not in self.alone for event in visible(case)]
        pairs += [(event, self.alone[case]) for case in mine if case in self.alone for event in good(case)]
        events, groups = [event for event, _ in pairs], [group for _, group in pairs]
        declared = catalog.manifest().sources[source]
        erasures = [item for case in mine for item in case.erasures]
        return erased.without_erased(event_frame(self.spark, declared, events, groups), declared, erasures).cache()

    def _load(self, view: View, events: DataFrame) -> list[Any]:
        events = seen_by(view, catalog.source_of(view), events)
        if isinstance(view, RowView):
            alone = [(number, case.q) for case, number in self.alone.items() if case.view == view.name]
            frames = [tiles.latest_rows(view, events.where(f"{GROUP} = {number}"), q) for number, q in alone]
            frames.append(tiles.latest_rows(view, events.where(f"{GROUP} < {GROUPS}"), _EVER))
            return _encoded(frames, online_load.row_encoder(view, _RUN))
        found: list[Any] = []
        source = catalog.stream_of(view)
        for granularity in tile_plan(view, source).granularities:
            frames = [
                tiles.batch_tiles(view, source, granularity, events.where(f"{GROUP} = {group}"), cut)
                for group, cut in enumerate(self.cuts)
            ]
            found += _encoded(frames, online_load.tile_encoder(view, source, granularity.hop, _RUN))
        return found


def _encoded(frames: Sequence[DataFrame], encoder: Callable[[Any], list[Any]]) -> list[Any]:
    together = reduce(lambda one, other: one.unionByName(other), frames)
    return [update for batch in together.toArrow().to_batches() for update in encoder(batch)]


def _cut_of(group: Sequence[Case]) -> int:
    """An instant near the middle of a group at which a late event that one of its cases sees became available."""
    middle = group[len(group) // 2].q
    windowed = [case for case in group if isinstance(catalog.VIEWS[case.view], WindowedView)]
    late = [
        event.available_at
        for case in windowed
        for event in visible(case)
        if is_late(event, HOUR, catalog.EVENTS.allowed_lateness)
    ]
    return min(late, key=lambda at: abs(at - middle), default=middle)


def _turns(case: Case) -> bool:
    """Whether an event becomes visible at the case's instant, or would but for its availability."""
    return any(case.q in (event.available_at, event.event_ts) for event in good(case))


def loaded(case: Case, event: Event, hop: int, cut: int) -> bool:
    """Whether an event counts in its tile of that hop, once batch has loaded what is final at the cut."""
    if hop == ROW or not (is_late(event, hop, catalog.EVENTS.allowed_lateness) or awaits_batch(case, event, hop)):
        return True
    view = catalog.VIEWS[case.view]
    assert isinstance(view, WindowedView)
    granularity = tile_plan(view, catalog.stream_of(view)).granularity(hop)
    first = cut // hop - granularity.slots + 1
    last = granularity.final_before(cut, catalog.EVENTS.allowed_lateness)
    return first <= event.event_ts // hop < last and event.available_at < cut
