"""What would be served if one thing were otherwise: the oracle, asked again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from coeval.aggregations.tiles import aggregate_column
from coeval.reference.aggregate import agree, tolerance
from coeval.reference.oracle import in_window, value_of, values_of, visible_events
from coeval.spec.model import EventSource, View, WindowedView, columns_read
from coeval.spec.records import Event
from coeval.spec.types import Physical
from coeval_parity.evidence import Case, Delivery, Owner, erased_epoch, grid_of, visible_of

MAX_FUTURE_EVENTS = 64
"""Events from after the instant of the read that the clock hypothesis tries."""


def oracle(case: Case, view: View, events: Sequence[Event], *, seen: bool = True) -> Physical:
    """What the oracle makes of events in a view of one feature.

    `seen`: of events that the view selects, visible and in the total order.
    """
    visible = events if seen else visible_events(view, events, case.key, case.q)
    return value_of(view, case.source, visible, case.q)[view.features[0].name].value


def reproduces(case: Case, events: Sequence[Event]) -> bool:
    """Whether visible events give the served value."""
    return near(case, oracle(case, case.view, events), case.served)


def oracle_value(case: Case, view: View) -> Physical:
    """What the oracle computes from everything that the log holds, in a view of one feature."""
    return oracle(case, view, visible_of(case))


def near(case: Case, left: Physical, right: Physical) -> bool:
    """Whether two values of the case's feature are equal: exactly, or as sums of the same doubles can be."""
    if not isinstance(left, float) or not isinstance(right, float) or left == right:
        return type(left) is type(right) and left == right
    if not isinstance(case.view, WindowedView):
        return False
    assert isinstance(case.source, EventSource)
    aggregate = next(item for item in case.view.aggregates if item.feature == case.feature)
    column = aggregate_column(aggregate, case.source)
    seen = in_window(aggregate, visible_of(case), case.q)
    bound = tolerance(aggregate.function, values_of(aggregate, seen), column.type if column else None)
    return agree(aggregate.function, left, right, bound)


def narrowed(view: View, feature: str) -> View:
    """The view with one feature, so that the oracle computes no other."""
    if len(view.features) == 1:
        return view
    chosen = next(index for index, field in enumerate(view.features) if field.name == feature)
    if isinstance(view, WindowedView):
        return replace(view, aggregates=(view.aggregates[chosen],), features=(view.features[chosen],))
    return replace(view, features=(view.features[chosen],))


def versions(case: Case) -> Iterator[View]:
    """Other versions that have the feature, and read what the source still has."""
    known = {field.name for field in case.source.fields}
    for other in case.definitions:
        if _has(other, case.feature) and columns_read(other) <= known:
            yield other


def _has(view: View, feature: str) -> bool:
    return any(field.name == feature for field in view.features)


def sorted_by_order(events: Sequence[Event]) -> list[Event]:
    """Events in the total order."""
    return sorted(events, key=lambda event: event.order)


def unmended(case: Case, delivery: Delivery) -> list[Event]:
    """The erased events that no batch load since then had to take away. `case.view` has one feature alone."""
    seen = visible_events(case.view, case.erased, case.key, case.q) if case.erased else []
    return [event for event in seen if not _is_mended(case, delivery, event)]


def _is_mended(case: Case, delivery: Delivery, event: Event) -> bool:
    if delivery.load_run <= erased_epoch(event, case.erasures):
        return False
    if not isinstance(case.view, WindowedView):
        return True
    assert isinstance(case.source, EventSource)
    hop = case.view.aggregates[0].hop
    return delivery.owner(grid_of(hop), event.event_ts // hop, case.source.allowed_lateness) is Owner.BATCH


def ahead_of(case: Case) -> Iterator[list[Event]]:
    """Prefixes of the events that became available only at or after the read."""
    future = sorted((e for e in case.events if e.available_at >= case.q), key=lambda event: event.order[1:])
    for end in range(1, min(len(future), MAX_FUTURE_EVENTS) + 1):
        yield future[:end]


def known_at(ahead: Sequence[Event], q: int) -> list[Event]:
    """The events as if they had become available just before q."""
    return [replace(item, available_at=q - 1, event_ts=min(item.event_ts, q - 1)) for item in ahead]
