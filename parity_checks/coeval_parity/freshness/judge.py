"""From what a topic holds around the offset up to which a view is readable to how fresh the view is there. Pure.

The age of what is readable is taken from event time: a stream that is busy with old events is not fresh. It breaks a
promise only where something newer has been there for longer than promised: where nothing new comes, nothing is late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coeval.reference.oracle import seen_by
from coeval.spec.model import EventSource, View
from coeval.spec.records import Event, Record, parse_record
from coeval.spec.types import parse_literal
from coeval_parity.freshness.result import LoadFreshness, PartitionFreshness, State, ViewFreshness


@dataclass(frozen=True, slots=True)
class Edge:
    """A partition around the offset below which a view is certain to hold every record.

    `below` are the newest events before it, `above` the first ones from it on and the newest of all: all of them where
    it is `whole`. `behind` counts the records from it on, and `first_at` is when the first of those was available
    (microseconds UTC; None: there is none).
    """

    partition: int
    behind: int
    below: Sequence[Event] = ()
    above: Sequence[Event] = ()
    first_at: int | None = None
    whole: bool = True


def events_of(source: EventSource, records: Iterable[Record]) -> list[Event]:
    """The good events among records, without canaries."""
    found = (parse_record(source, record) for record in records)
    return [event for event in found if isinstance(event, Event) and not is_canary(source, event)]


def is_canary(source: EventSource, event: Event) -> bool:
    """Whether an event says all that the source's canaries say: their key is nobody's."""
    return bool(source.canary) and all(
        event.values[item.column] == parse_literal(source.field(item.column).type, item.literal)
        for item in source.canary
    )


def partition_freshness(view: View, edge: Edge, now: int) -> PartitionFreshness:
    """How fresh a view is as far as one partition is concerned; `now` is in microseconds UTC."""
    below, above = seen_by(view, edge.below), seen_by(view, edge.above)
    readable = max((event.event_ts for event in below), default=None)
    newest = max((event.event_ts for event in (*below, *above)), default=None)
    # Of those that were not looked at any may be of the view.
    since = min((event.available_at for event in above), default=None) if edge.whole else edge.first_at
    age = None if readable is None else _seconds(now - readable)
    waiting = 0.0 if since is None else _seconds(now - since)
    state = _state(age, newest, since, waiting, view.sla.freshness / 1e6)
    return PartitionFreshness(edge.partition, state, readable, newest, age, waiting, edge.behind)


def _state(age: float | None, newest: int | None, since: int | None, waiting: float, promise: float) -> State:
    old = age is None or age > promise
    if since is not None:
        return State.STALE if old and waiting > promise else State.BEHIND
    if newest is None:
        return State.EMPTY
    return State.IDLE if old else State.CURRENT


def load_freshness(view: View, loaded: int | None, due: str, due_since: int, now: int) -> LoadFreshness:
    """How fresh a view is that only batch loads: `due` says why it is to be loaded again, since when (both instants in
    microseconds UTC)."""
    if loaded is None:
        return LoadFreshness(State.STALE, None, None, "", 0.0)
    age, promise = _seconds(now - loaded), view.sla.freshness / 1e6
    if not due:
        return LoadFreshness(State.IDLE if age > promise else State.CURRENT, loaded, age, "", 0.0)
    waiting = _seconds(now - max(due_since, loaded))
    return LoadFreshness(State.STALE if waiting > promise else State.BEHIND, loaded, age, due, waiting)


def due_since(before: ViewFreshness | None, loaded: int, changed: int | None, now: int) -> int:
    """Since when a view of files is due that is so now, with the rows of the load `loaded` (microseconds UTC).

    Since the run `before` saw it so of the same load, however often files changed meanwhile. Seen for the first time:
    since the newest of them was `changed`, or now where that is not known, or cannot be, as files may come with the
    times that they had elsewhere: before that load, or before a look that saw nothing.
    """
    looked = loaded
    if before is not None and before.load is not None and before.load.loaded == loaded:
        if before.load.due:
            return before.at - round(before.load.waiting * 1e6)
        looked = before.at
    return changed if changed is not None and looked <= changed <= now else now


def _seconds(microseconds: int) -> float:
    return max(0, microseconds) / 1e6
