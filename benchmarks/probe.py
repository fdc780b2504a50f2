"""Watches, by the product's own reader, when chosen events have become part of what is served. A process of its own.

The generator is deterministic: which card an event is of, and how many that card has had by then, is known beforehand.
An event is seen in a windowed view once the counts of every granularity asked for have reached that number, and in the
row view once its row is as new. Times are microseconds since the epoch, UTC; an event's clock starts at the timestamp
that its record was planned with, so a sender that is late is counted against the result, never for it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

from coeval.client import open_redis
from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.settings import load_settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import ServiceView
from coeval.spec.types import micros
from tests.support.payments.catalog import SOURCES
from tests.support.payments.generator import generate
from tests.support.payments.shape import Spec

POLL_SECONDS = 0.01
"""Between two reads: what is seen is up to this much older than what is measured."""
_GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Probe:
    """An event to wait for: when it becomes available, and the state of its card that includes it."""

    due: int
    card: int
    count: int
    event_ts: int


def probes(spec: Spec, per_second: float, counts: Counter[int]) -> list[Probe]:
    """So many events of a spec without faults; `counts` holds the events by card so far, and is advanced by all."""
    every = max(1, round(spec.rate / per_second))
    found: list[Probe] = []
    for batch in generate(spec):
        cards = [int(key) for key in batch.key]
        for index, (card, stamp) in enumerate(zip(cards, batch.timestamp_ms.tolist(), strict=True)):
            counts[card] += 1
            if (batch.first + index) % every == every // 2:
                assert not batch.kind[index]
                assert SOURCES[batch.source[index]].name == "payments"
                declared = json.loads(batch.value[index])["occurred_at"]
                found.append(Probe(stamp * 1000, card, counts[card], micros(datetime.fromisoformat(declared))))
    return found


def shifted(found: Iterable[Probe], by: int) -> list[Probe]:
    """The same probes of the same spec that starts later by so many microseconds."""
    return [replace(probe, due=probe.due + by, event_ts=probe.event_ts + by) for probe in found]


@dataclass(frozen=True, slots=True)
class Seen:
    """Seconds from when an event was due until it was in the row view and in the windowed view; None: not in time."""

    due: int
    row: float | None
    window: float | None


class Watch:
    """The probes that are waited for, by view."""

    def __init__(self, reader: OnlineReader, manifest: Manifest, counts: Sequence[str]) -> None:
        spend, latest = manifest.views["card_spend"], manifest.views["latest_payment"]
        self._reader = reader
        self._counts = counts
        self._planner = ReadPlanner(
            manifest,
            [
                ServiceView(spend.name, spend.version, tuple(counts)),
                ServiceView(latest.name, latest.version, (latest.features[0].name,)),
            ],
        )

    def look(self, waiting: Sequence[Probe]) -> list[tuple[bool, bool]]:
        """Whether each probe is in the row view, and whether it is in the windowed view."""
        found = self._reader.read(self._planner, {"card_id": [probe.card for probe in waiting]})
        rows = found.event_ts["latest_payment"].tolist()
        columns = [found.columns["card_spend"][name].values.tolist() for name in self._counts]
        least = [min(values) for values in zip(*columns, strict=True)]
        return [
            (row >= probe.event_ts, count >= probe.count)
            for probe, row, count in zip(waiting, rows, least, strict=True)
        ]


def watch(reader: Watch, found: Iterable[Probe], sink: TextIO) -> None:
    """Wait for probes in the order in which they are due; one line of JSON for each."""
    todo = sorted(found, key=lambda probe: -probe.due)
    waiting: dict[Probe, dict[str, float]] = {}
    while todo or waiting:
        now = time.time_ns() // 1000
        while todo and todo[-1].due <= now:
            waiting[todo.pop()] = {}
        if waiting:
            _settle(reader, waiting, sink)
        time.sleep(POLL_SECONDS)


def _settle(reader: Watch, waiting: dict[Probe, dict[str, float]], sink: TextIO) -> None:
    pending = list(waiting)
    outcome = reader.look(pending)
    now = time.time_ns() // 1000
    for probe, (row, window) in zip(pending, outcome, strict=True):
        age, known = (now - probe.due) / 1e6, waiting[probe]
        if row:
            known.setdefault("row", age)
        if window:
            known.setdefault("window", age)
        if len(known) == 2 or age > _GIVE_UP_SECONDS:
            del waiting[probe]
            sink.write(json.dumps(asdict(Seen(probe.due, known.get("row"), known.get("window")))) + "\n")
            sink.flush()


def read_seen(path: Path) -> list[Seen]:
    """What a watch has written so far."""
    return [Seen(**json.loads(line)) for line in path.read_text().splitlines()]


def quantiles(seconds: Iterable[float | None], missing: float = _GIVE_UP_SECONDS) -> Mapping[str, float]:
    """Median, 99th percentile and greatest, in milliseconds; what was never seen counts as `missing` seconds."""
    ordered = sorted(missing if item is None else item for item in seconds)
    if not ordered:
        return {}
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 1) for name, share in at.items()
    }


def main() -> int:
    """Watch the probes of a file until the last is seen; its argument is JSON (manifest, probes, counts, out)."""
    chosen = json.loads(sys.argv[1])
    settings = load_settings()
    manifest = Manifest.from_json(Path(chosen["manifest"]).read_text())
    found = [Probe(**json.loads(line)) for line in Path(chosen["probes"]).read_text().splitlines()]
    with closing(open_redis(settings)) as client, Path(chosen["out"]).open("w") as sink:
        watch(Watch(OnlineReader(client), manifest, chosen["counts"]), found, sink)
    return 0


if __name__ == "__main__":
    sys.exit(main())
