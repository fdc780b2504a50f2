"""The plain alternative: one Python process that consumes the payments and keeps the same tiles in dictionaries.

It parses, drops duplicates, and aggregates what the three payment views need; it validates nothing, stores nothing and
recovers from nothing. A child process: its argument is JSON (bootstrap, topic); it prints events and seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_SPEND_HOPS = (300, 3_600, 86_400)
_PAIR_HOPS = (3_600, 86_400)
Tiles = dict[tuple[Any, ...], list[float]]


class Tally:
    """The state: what has been seen, tiles by view, latest rows."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.spend: Tiles = {}
        self.pairs: Tiles = {}
        self.latest: dict[int, tuple[float, Mapping[str, Any]]] = {}

    def add(self, value: bytes) -> None:
        """Take one record; a bad one is left out."""
        try:
            event = json.loads(value)
            identity = event["event_id"], event["occurred_at"]
            at = datetime.fromisoformat(event["occurred_at"]).timestamp()
            card, merchant, amount = event["card_id"], event["merchant_id"], event["amount"]
        except (ValueError, KeyError, TypeError):
            return
        if identity in self.seen:
            return
        self.seen.add(identity)
        for hop in _SPEND_HOPS:
            self._fold(self.spend, (hop, card, at // hop), amount)
        for hop in _PAIR_HOPS:
            self._fold(self.pairs, (hop, card, merchant, at // hop), amount)
        if card not in self.latest or self.latest[card][0] <= at:
            self.latest[card] = at, event

    def _fold(self, tiles: Tiles, key: tuple[Any, ...], amount: float | None) -> None:
        tile = tiles.get(key)
        if tile is None:
            tile = tiles[key] = [0, 0, 0.0, 0.0, float("inf"), float("-inf")]
        tile[0] += 1
        if isinstance(amount, float):
            tile[1] += 1
            tile[2] += amount
            tile[3] += amount * amount
            tile[4] = min(tile[4], amount)
            tile[5] = max(tile[5], amount)


def main() -> int:
    """Consume a topic from its beginning to its end as it is now."""
    from kafka import KafkaConsumer, TopicPartition

    chosen = json.loads(sys.argv[1])
    consumer = KafkaConsumer(
        bootstrap_servers=chosen["bootstrap"], auto_offset_reset="earliest", enable_auto_commit=False,
        check_crcs=False, max_poll_records=5_000, max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    parts = [TopicPartition(chosen["topic"], part) for part in consumer.partitions_for_topic(chosen["topic"])]
    consumer.assign(parts)
    total = sum(consumer.end_offsets(parts).values())
    tally, done, start = Tally(), 0, time.perf_counter()
    while done < total:
        for records in consumer.poll(timeout_ms=1_000).values():
            for record in records:
                tally.add(record.value)
            done += len(records)
    print(json.dumps({"events": done, "seconds": time.perf_counter() - start, "tiles": len(tally.spend)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
