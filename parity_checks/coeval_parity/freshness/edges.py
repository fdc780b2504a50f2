"""What topics hold around the offsets up to which views are readable. It knows Kafka."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from coeval.errors import BrokerError
from coeval.settings import Settings
from coeval.spec.model import EventSource
from coeval.spec.records import Record
from coeval_parity.freshness.judge import Edge, events_of
from coeval_parity.topics import topic_records
from coeval_pipelines.streaming.broker import Broker, partitions_of

LOOKED_AT = 200
"""Records on either side of an offset, and at the end of a partition, whose event times are looked at."""
Offsets = Mapping[int, int]


def read_edges(settings: Settings, broker: Broker, source: EventSource, certified: Offsets) -> list[Edge]:
    """The partitions of a source's topic around the certified offsets (next to read; those without one: the first).

    Raises:
        BrokerError: the broker does not answer, or has no such topic.
    """
    there = partitions_of(broker, [source.topic])
    if not there:
        raise BrokerError(f"There is no topic {source.topic}.", "Create it: coeval stream deploy")
    begins, ends = broker.begins(there)[source.topic], broker.ends(there)[source.topic]
    edge = {part: min(max(certified.get(part, 0), begins[part]), end) for part, end in ends.items()}
    low = {part: max(begins[part], at - LOOKED_AT) for part, at in edge.items()}
    high = {part: min(ends[part], at + LOOKED_AT) for part, at in edge.items()}
    last = {part: max(high[part], end - LOOKED_AT) for part, end in ends.items()}
    around, newest = _by_partition(settings, source, low, high), _by_partition(settings, source, last, ends)
    found = []
    for part, at in sorted(edge.items()):
        below = [record for record in around[part] if record.offset < at]
        above = [record for record in around[part] if record.offset >= at]
        found.append(
            Edge(
                partition=part,
                behind=ends[part] - at,
                below=events_of(source, below),
                above=events_of(source, [*above, *newest[part]]),
                first_at=above[0].available_at if above else None,
                whole=last[part] == high[part],
            )
        )
    return found


def _by_partition(settings: Settings, source: EventSource, start: Offsets, end: Offsets) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = defaultdict(list)
    for record in topic_records(settings, source.topic, start, end):
        found[record.partition].append(record)
    return found
