"""Payments at any size: seeded, byte for byte the same for a seed, with every fault that the contract names. Pure.

Events are drawn in blocks of fixed size, each from a generator of its own, so that the first n records are the same for
any total and memory does not grow with it. A record is payments, refunds or anomaly scores; what was done to it on
purpose is said beside it. Times are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from coeval.spec.records import Record
from tests.support.payments.catalog import SOURCES
from tests.support.payments.drawing import draw_block, merchant_names
from tests.support.payments.shape import BLOCK, Batch, Chargebacks, Spec


def generate(spec: Spec, first: int = 0) -> Iterator[Batch]:
    """The records from number `first` on, in batches of at most BLOCK."""
    merchants = merchant_names(spec.merchants)
    for number in range(first // BLOCK, -(-spec.events // BLOCK)):
        block = draw_block(spec, number, merchants)
        start, stop = max(0, first - number * BLOCK), min(BLOCK, spec.events - number * BLOCK)
        yield block if (start, stop) == (0, BLOCK) else _cut(block, start, stop)


def records(spec: Spec) -> dict[str, list[Record]]:
    """All records by source, with the offsets that a topic of that source would give them: what the reference takes."""
    found: dict[str, list[Record]] = {source.name: [] for source in SOURCES}
    ends: dict[tuple[str, int], int] = {}
    for batch in generate(spec):
        add_records(batch, found, ends)
    return found


def add_records(batch: Batch, found: Mapping[str, list[Record]], ends: dict[tuple[str, int], int]) -> None:
    """Append a batch's records by source; `ends` holds the next offset by (source, partition) and is advanced."""
    columns = (batch.source.tolist(), batch.partition.tolist(), batch.timestamp_ms.tolist(), batch.value)
    for source, partition, stamp, value in zip(*columns, strict=True):
        name = SOURCES[source].name
        offset = ends.get((name, partition), 0)
        ends[name, partition] = offset + 1
        found[name].append(Record(value, stamp * 1000, partition, offset))


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    part = slice(start, stop)
    numbers = np.array([int(item[4:]) for item in batch.chargebacks.event_id], dtype=np.int64) - batch.first
    kept = np.flatnonzero((numbers >= start) & (numbers < stop))
    back = batch.chargebacks
    return Batch(
        first=batch.first + start,
        source=batch.source[part],
        partition=batch.partition[part],
        timestamp_ms=batch.timestamp_ms[part],
        key=batch.key[part],
        value=batch.value[part],
        kind=batch.kind[part],
        chargebacks=Chargebacks(
            [back.event_id[index] for index in kept.tolist()],
            back.card_id[kept],
            back.charged_back_at[kept],
            back.label[kept],
        ),
    )
