"""What the store must have held at an instant of the past, by what the control plane knows of it. Pure beside that.

The raw state is gone, so what it left out has to follow from the rules: events that came too late for tiles of the
stream, events after the cut of the last batch load that was over by then, tiles that nobody had delivered. What lay
above the certified offsets may have been there or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from coeval.reference.oracle import is_late
from coeval.spec.model import EventSource, View, WindowedView
from coeval.spec.records import Event
from coeval.spec.time import MINUTE, floor_to
from coeval_parity.evidence import Case, Delivery, Order, Owner, grid_of, visible_of
from coeval_parity.omissions import Why
from coeval_pipelines.control import BatchLoad, ControlPlane, Deployment
from coeval_pipelines.control.coverage import Coverage, CoverageBook
from coeval_pipelines.coordination.handoff import is_streamed

COMEBACK = MINUTE
"""A store that was killed comes back without its last writes, and is as it was once the writer has read them again. The
writer takes note of it; a response of so long before or after may be by what the store covered a minute before."""


@dataclass(frozen=True, slots=True)
class History:
    """What was done for a view version, ever: loads newest first; what the store was seen to cover, oldest first."""

    view: View
    deployment: Deployment | None
    loads: Sequence[BatchLoad]
    covered: Sequence[Coverage]

    def at(self, q: int, patience: int = 0) -> Delivery:
        """How far the writers had got at q (microseconds UTC); `patience` passes over what was seen just before."""
        load = next((item for item in self.loads if item.finished_at <= q), None)
        place = bisect_right(self.covered, q - patience, key=lambda item: item.at)
        return Delivery(
            since=self.deployment.since if self.deployment else None,
            load_cut=load.cut if load else None,
            rows_at=load.rows_at if load else None,
            certified=self.covered[place - 1].offsets if place else None,
            freshness=self.view.sla.freshness,
            load_run=load.run if load else 0,
        )

    def deliveries(self, q: int) -> Iterator[Delivery]:
        """The same by what the store covered then; where it was seen to go back, by that and by what it did before."""
        found = [self.at(q)]
        fell = [item for item in self._noted(q - COMEBACK, q + COMEBACK) if item.back]
        if fell:
            later = [replace(found[0], certified=item.offsets) for item in fell if item.at > q]
            found += [*later, self.at(q, COMEBACK)]
        for place, item in enumerate(found):
            if item not in found[:place]:
                yield item

    def _noted(self, since: int, until: int) -> Sequence[Coverage]:
        first = bisect_left(self.covered, since, key=lambda item: item.at)
        return self.covered[first : bisect_right(self.covered, until, key=lambda item: item.at)]


def history_of(control: ControlPlane, topic: str, view: View) -> History:
    """What the control plane knows of a view version, whose changelog has that topic."""
    covered = CoverageBook(control).of(topic) if is_streamed(view) else ()
    return History(
        view, control.deployment(view.name, view.version), control.finished_loads(view.name, view.version), covered
    )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Of the events behind a value: those that the store lacked by rule; and lanes, any tail of which it may lack."""

    must: Mapping[Order, Why] = field(default_factory=dict)
    lanes: tuple[tuple[Event, ...], ...] = ()


def left_out(case: Case, delivery: Delivery) -> LeftOut:
    """What a value of the past left out. `case.view` has the value's feature alone."""
    visible = visible_of(case)
    view, source = case.view, case.source
    if not isinstance(view, WindowedView):
        waiting = delivery.in_flight if view.stream else delivery.after_load
        return LeftOut({}, _lanes([event for event in visible if waiting(event)]))
    assert isinstance(source, EventSource)
    aggregate = view.aggregates[0]
    grid = grid_of(aggregate.hop)
    must: dict[Order, Why] = {}
    free: list[Event] = []
    for event in visible:
        if event.event_ts < floor_to(case.q - aggregate.window, aggregate.hop):
            continue
        owner = delivery.owner(grid, event.event_ts // aggregate.hop, source.allowed_lateness)
        late = is_late(event, aggregate.hop, source.allowed_lateness)
        if (owner is Owner.BATCH and delivery.after_cut(event)) or (owner is Owner.STREAM and late):
            must[event.order] = Why.LATE
        elif owner is Owner.NOBODY:
            must[event.order] = Why.UNDELIVERED
        elif owner is Owner.STREAM and delivery.in_flight(event):
            free.append(event)
    return LeftOut(must, _lanes(free))


def _lanes(events: Sequence[Event]) -> tuple[tuple[Event, ...], ...]:
    lanes: dict[int, list[Event]] = {}
    for event in sorted(events, key=lambda item: item.order[1:]):
        lanes.setdefault(event.partition, []).append(event)
    return tuple(tuple(lane) for _, lane in sorted(lanes.items()))
