"""Where a run without state may begin: T0, and from which offsets. The universal recovery of a stream.

A run that begins at T0 reads everything that was available from a little before T0 on, and writes only tiles that start
at or after T0: each of them whole. So T0 must not be later than the start of the earliest tile that was still open,
its lateness included, at the offsets whose results are certain to be in the changelogs. Values are absolute and
guarded, so what is written again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView
from coeval.spec.time import floor_to
from coeval_pipelines.control import Certificate
from coeval_pipelines.streaming.broker import Broker, Offsets, partitions_of
from coeval_pipelines.streaming.names import changelog_topic
from coeval_pipelines.streaming.sql import STATE_SLACK


@dataclass(frozen=True, slots=True)
class Rewind:
    """From when on each view's tiles are written (microseconds UTC), and the next offsets to read, by partition."""

    since: Mapping[str, int]
    start: Offsets


def rewind(
    broker: Broker,
    certificates: tuple[Certificate, ...],
    manifest: Manifest,
    views: Iterable[View],
    owned: Mapping[str, int],
    limit: int | None = None,
) -> Rewind:
    """The latest start that loses nothing, for views of one source; a view that no certificate speaks of starts whole.

    `owned` is, by view, the instant from which on the stream owns its tiles; `certificates` are given newest first.
    With a `limit` (microseconds UTC), the start is that or earlier: to write anew what the changelogs have lost.

    Raises:
        BrokerError: the broker does not answer.
    """
    since: dict[str, int] = {}
    starts: list[Offsets] = []
    for view in views:
        source = manifest.sources[view.source]
        assert isinstance(source, EventSource)
        topic = changelog_topic(manifest, view)
        confirmed = _confirmed(certificates, topic, broker.ends(partitions_of(broker, [topic])).get(topic, {}))
        point = _point(broker, source, view, confirmed, owned[view.name])
        if limit is not None:
            point = min(point, max(limit, owned[view.name]))
        since[view.name] = point
        # A copy of an event that claims a time ahead of its own availability may stand that much earlier.
        found = broker.offsets_at(source.topic, point - source.max_future_skew)
        starts.append({part: min(offset, confirmed.get(part, offset)) for part, offset in found.items()})
    partitions = set[int]().union(*starts)
    return Rewind(since, {part: min(start[part] for start in starts if part in start) for part in sorted(partitions)})


def _confirmed(certificates: tuple[Certificate, ...], topic: str, there: Offsets) -> Mapping[int, int]:
    """What the newest certificate covers that a changelog, whose ends are `there`, still bears out."""
    for item in certificates:
        ends = item.ends.get(topic)
        # A changelog that ends before what was certified has lost it: that certificate proves nothing any more.
        if ends is not None and all(there.get(part, 0) >= end for part, end in ends.items()):
            return item.offsets
    return {}


def _point(broker: Broker, source: EventSource, view: View, confirmed: Mapping[int, int], owned: int) -> int:
    available = _earliest_to_come(broker, source.topic, confirmed) if confirmed else None
    return owned if available is None else max(owned, open_since(source, view, available))


def open_since(source: EventSource, view: View, available: int) -> int:
    """The start of the earliest tile of a view that events available at that instant or later may still enter. Pure.

    With slack: producers' clocks set the availability in a replay, and they may disagree.
    """
    earliest = available - STATE_SLACK
    if not isinstance(view, WindowedView):
        return earliest
    hops = {aggregate.hop for aggregate in view.aggregates}
    return min(floor_to(earliest - source.allowed_lateness, hop) for hop in hops)


def _earliest_to_come(broker: Broker, topic: str, confirmed: Mapping[int, int]) -> int | None:
    """When the first event that is not confirmed became available; where all are, when the last one did.

    None where the topic holds nothing any more of a partition whose events were not confirmed: then nothing is known.
    """
    ends = broker.ends({topic: max(confirmed) + 1})[topic]
    behind = {part: confirmed.get(part, 0) for part, end in ends.items() if confirmed.get(part, 0) < end}
    if behind:
        found = broker.timestamps(topic, behind)
        return min(found.values()) if found.keys() == behind.keys() else None
    return max(broker.timestamps(topic, {part: end - 1 for part, end in ends.items() if end}).values(), default=None)
