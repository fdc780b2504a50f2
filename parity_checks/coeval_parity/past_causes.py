"""Give one difference of the past a cause, by recomputation alone: the state that was read is gone. Pure.

What the rules of delivery left out is left out; of what may have been in flight, every way is tried in which it can
have been: tails of the partitions, in the order of delivery. What nothing reproduces exactly is unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from coeval.aggregations.tiles import tile_plan
from coeval.reference.oracle import is_late
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import duration, floor_to
from coeval.spec.types import INT64_MAX, Physical
from coeval_parity.counterfactual import (
    ahead_of,
    known_at,
    narrowed,
    near,
    oracle,
    sorted_by_order,
    unmended,
    versions,
)
from coeval_parity.evidence import Case, Delivery, Order, visible_of
from coeval_parity.omissions import Why, prefixes
from coeval_parity.past import History, LeftOut, left_out
from coeval_parity.result import Cause, Suspect
from coeval_parity.verdicts import Verdict, delivery_verdict, plural, with_delivery

_WRONG_OFFLINE = "Engine and reference differ over the same log: the offline side is wrong."
MAX_TRIED = 2000
"""Ways of being in flight that are tried for one value."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A value of a response, as physical values: by the view with its feature alone."""

    view: View
    feature: str
    served: Physical
    expected: Physical


class Moment:
    """What one response was served by: how far the writers may have got, and where they turned out to be.

    `answers` gives the values of the view that were compared in the response, the equal ones included; few ask.
    """

    def __init__(self, past: History, q: int, answers: Callable[[], Sequence[Answer]] = tuple) -> None:
        self.past = past
        self.answers = answers
        self.deliveries = tuple(past.deliveries(q))
        self._out: dict[tuple[int, int, int], LeftOut] = {}
        self._ends: list[Mapping[int, int]] = []

    def left_out(self, case: Case, number: int) -> LeftOut:
        """What a value left out, by one of the deliveries; worked out once for all features of a window."""
        view = case.view
        window = (view.aggregates[0].window, view.aggregates[0].hop) if isinstance(view, WindowedView) else (0, 0)
        if (number, *window) not in self._out:
            self._out[number, *window] = left_out(case, self.deliveries[number])
        return self._out[number, *window]

    def found(self, omitted: Mapping[Order, Why]) -> None:
        """Keep where the stream was, for the other values of the response."""
        ends: dict[int, int] = {}
        for (_, _, partition, offset), why in omitted.items():
            if why is Why.IN_FLIGHT:
                ends[partition] = min(offset, ends.get(partition, offset))
        self._ends = [ends, *(known for known in self._ends if known != ends)]

    def likely(self, out: LeftOut) -> Iterator[dict[Order, Why]]:
        """What is missing where the stream was as for a value before."""
        for ends in tuple(self._ends):
            gone = [e for lane in out.lanes for e in lane if e.offset >= ends.get(e.partition, INT64_MAX)]
            yield {**out.must, **{event.order: Why.IN_FLIGHT for event in gone}}


def explain_past(case: Case, moment: Moment) -> Verdict:
    """The cause of one difference of a response. `case.view` has its feature alone; nothing is known of the state."""
    visible = visible_of(case)
    if not near(case, oracle(case, case.view, visible), case.expected):
        return Verdict(Cause.UNEXPLAINED, _WRONG_OFFLINE, None, {}, suspect=Suspect.OFFLINE_SIDE)
    for verdict in _hypotheses(case, moment, visible):
        return verdict
    return Verdict(Cause.UNEXPLAINED, _why_not(case, moment.past), None, {})


def _hypotheses(case: Case, moment: Moment, visible: Sequence[Event]) -> Iterator[Verdict]:
    certain: Mapping[Order, Why] = {}
    for number, delivery in enumerate(moment.deliveries):
        out = moment.left_out(case, number)
        certain = certain or out.must
        for missing in chain(moment.likely(out), islice(_omissions(case, out), MAX_TRIED)):
            if missing and _gives(case, visible, missing):
                moment.found(missing)
                yield _delivered(case, delivery, visible, missing)
        yield from _erased(case, delivery, visible)
    view = case.view
    tried: list[Mapping[Order, Why]] = [{}, certain] if certain else [{}]
    for omitted in tried:
        kept = [event for event in visible if event.order not in omitted]
        also = with_delivery(case, moment.deliveries[0], visible, omitted)
        if isinstance(view, RowView) and view.ttl and near(case, oracle(case, replace(view, ttl=0), kept), case.served):
            proof = f"Ignoring the ttl of {duration(view.ttl)} gives exactly the served value."
            yield Verdict(Cause.TTL, proof, kept[-1].event_ts + view.ttl if kept else None, omitted, also=also)
        for other in versions(case):
            every = [event for event in case.every or case.events if event.order not in omitted]
            if near(case, oracle(case, narrowed(other, case.feature), every, seen=False), case.served):
                proof = f"Version {other.version} gives exactly the served value."
                yield Verdict(Cause.DEFINITION, proof, None, omitted, also=also)
        for ahead in ahead_of(case):
            seen = _clock_behind(case, moment, kept, ahead)
            if not (seen.newer or seen.displaced) or not near(case, oracle(case, view, seen.events), case.served):
                continue
            if not seen.displaced or _agree(case, moment, visible, ahead):
                yield Verdict(Cause.CLOCK, seen.proof, case.q, omitted, also=also)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a reader counts whose clock is behind a store that has more: which events, how many of them from after the
    read, and how many that it should count it misses, as newer tiles have taken their place."""

    events: Sequence[Event]
    newer: int
    displaced: int

    @property
    def proof(self) -> str:
        """It in words."""
        parts = []
        if self.newer:
            parts.append(f"counting {plural(self.newer)} that became available at or after it")
        if self.displaced:
            parts.append(f"leaving out {plural(self.displaced)} whose place newer tiles have taken")
        return f"{' and '.join(parts).capitalize()} gives the served value."


def _clock_behind(case: Case, moment: Moment, kept: Sequence[Event], ahead: Sequence[Event]) -> _Seen:
    """What a reader sees of a store that has `ahead`, too.

    Of each granularity a store keeps as many tiles as the longest window of the whole view spans, and of those a reader
    looks at the ones that begin before its own clock.
    """
    whole = moment.past.view
    if not isinstance(whole, WindowedView) or not isinstance(case.view, WindowedView):
        return _Seen(sorted_by_order([*kept, *known_at(ahead, case.q)]), len(ahead), 0)
    assert isinstance(case.source, EventSource)
    window, hop = case.view.aggregates[0].window, case.view.aggregates[0].hop
    slots = tile_plan(whole, case.source).granularity(hop).slots
    on_time = [event for event in ahead if not is_late(event, hop, case.source.allowed_lateness)]
    newest = {tile % slots: tile for tile in sorted(event.event_ts // hop for event in (*kept, *on_time))}
    inside = [event for event in kept if event.event_ts >= floor_to(case.q - window, hop)]
    left = [event for event in inside if newest[event.event_ts // hop % slots] == event.event_ts // hop]
    read = [event for event in on_time if event.event_ts // hop <= (case.q - 1) // hop]
    return _Seen(sorted_by_order([*left, *known_at(read, case.q)]), len(read), len(inside) - len(left))


def _agree(case: Case, moment: Moment, visible: Sequence[Event], ahead: Sequence[Event]) -> bool:
    """Whether a store that has `ahead` gives every value of the response, and some only by what came after the read.

    A tile that was lost looks as if a later one had taken its place, whenever the key has one at that distance: one
    value proves nothing, all granularities together do.
    """
    proven = False
    for answer in moment.answers():
        other = replace(case, view=answer.view, feature=answer.feature, served=answer.served, expected=answer.expected)
        gone = moment.left_out(other, 0).must
        seen = _clock_behind(other, moment, [event for event in visible if event.order not in gone], ahead)
        if not near(other, oracle(other, answer.view, seen.events), answer.served):
            return False
        proven = proven or (seen.newer > 0 and not near(other, answer.expected, answer.served))
    return proven


def _erased(case: Case, delivery: Delivery, visible: Sequence[Event]) -> Iterator[Verdict]:
    """Events that were erased later, or that no load had taken away yet: delivered by the rules of all others."""
    still = unmended(case, delivery)
    seen = sorted_by_order([*visible, *still])
    both = replace(case, known=seen)
    ways = _omissions(both, left_out(both, delivery)) if still else iter(())
    for missing in islice(ways, MAX_TRIED):
        still_there = [event for event in still if event.order not in missing]
        if still_there and _gives(case, seen, missing):
            said = f"Counting {plural(len(still_there))} of erased subjects, not yet taken away,"
            proof = f"{said} gives the served value."
            also = with_delivery(case, delivery, seen, missing)
            yield Verdict(Cause.ERASED, proof, min(event.event_ts for event in still_there), missing, also=also)


def _gives(case: Case, visible: Sequence[Event], omitted: Mapping[Order, Why]) -> bool:
    kept = [event for event in visible if event.order not in omitted]
    return near(case, oracle(case, case.view, kept), case.served)


def _omissions(case: Case, out: LeftOut) -> Iterator[dict[Order, Why]]:
    """What may have been missing, least first: the same tail in every tile of a partition, then tile by tile."""
    yield from _tails(out.must, out.lanes)
    if isinstance(case.view, WindowedView):
        hop = case.view.aggregates[0].hop
        split = [[e for e in lane if e.event_ts // hop == tile] for lane in out.lanes for tile in _tiles(lane, hop)]
        if len(split) > len(out.lanes):
            yield from _tails(out.must, split)


def _tiles(lane: Sequence[Event], hop: int) -> list[int]:
    return sorted({event.event_ts // hop for event in lane})


def _tails(must: Mapping[Order, Why], lanes: Sequence[Sequence[Event]]) -> Iterator[dict[Order, Why]]:
    """Nothing more is missing, then everything that may be (a writer stood still), then ever more."""
    every = [event for lane in lanes for event in lane]
    for number in dict.fromkeys((0, len(every), *range(1, len(every)))):
        for kept in prefixes(lanes, len(every) - number):
            there = {event.order for event in kept}
            yield {**must, **{event.order: Why.IN_FLIGHT for event in every if event.order not in there}}


def _delivered(case: Case, delivery: Delivery, visible: Sequence[Event], omitted: Mapping[Order, Why]) -> Verdict:
    verdict = delivery_verdict(case, delivery, visible, omitted, ())
    return replace(verdict, proof=f"{verdict.proof} Computed as of the request: the state itself is gone.")


def _why_not(case: Case, past: History) -> str:
    delivery = past.at(case.q)
    if past.deployment is None and not past.loads:
        return "The control plane knows no deployment and no load of this view version."
    known = "" if delivery.certified is not None else ", of which nothing is known"
    return f"What loads, lateness and the store's progress{known} allow to be missing does not give the served value."
