"""What a topic holds beyond its event log, judged as the ingest would: read, and kept nowhere. It knows Kafka.

So a check of what is served now needs no ingest, which the log alone accounts for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from coeval.errors import NeedsSparkError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.records import Event, Reason, Record, ingest
from coeval_parity.topics import topic_records
from coeval_pipelines.offline.arrow_files import delta_files
from coeval_pipelines.offline.event_log import topic_ends
from coeval_pipelines.offline.tables import latest_version, table_path

MAX_TAIL = 500_000
"""Records beyond the log that are read; more are for the ingest."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Good events, discarded deliveries and rejects beyond the log; `reached` are the next offsets, by partition."""

    good: tuple[Event, ...] = ()
    duplicates: tuple[Event, ...] = ()
    rejected: tuple[tuple[Record, Reason], ...] = ()
    reached: Mapping[int, int] = field(default_factory=dict)


def read_tail(
    settings: Settings, manifest: Manifest, source: EventSource, known: Mapping[int, int], version: int | None
) -> Tail:
    """What the topic of a source holds beyond a version of its log (None: there is no log yet).

    `known` are the next offsets to read, by partition; the version is at least as new.

    Raises:
        BrokerError: the broker does not answer.
        NeedsSparkError: it is too much.
        UsageError: the source has a history that is not loaded yet.
    """
    if source.history and version is None:
        raise UsageError(f"The history of {source.name} has not been loaded.", "Load it: coeval log ingest")
    begin, end = topic_ends(settings, source.topic)
    start = {part: max(known.get(part, 0), first) for part, first in begin.items()}
    ahead = sum(max(0, end[part] - start[part]) for part in end)
    if ahead > MAX_TAIL:
        raise NeedsSparkError(
            f"{source.topic} holds {ahead:,} records that its log does not.", "Read them: coeval log ingest"
        )
    sorted_out = ingest(source, topic_records(settings, source.topic, start, end))
    good, again = _beyond(settings, manifest, source, version, sorted_out.good)
    return Tail(good, (*sorted_out.duplicates, *again), sorted_out.rejected, end)


def _beyond(
    settings: Settings, manifest: Manifest, source: EventSource, version: int | None, events: tuple[Event, ...]
) -> tuple[tuple[Event, ...], list[Event]]:
    """Those events that the log does not hold; and of those that it does, the ones it holds by another delivery.

    What was dropped or removed from the log is known as the ingest knows it.
    """
    if not events:
        return events, []
    ids = pa.array([event.event_id for event in events], pa.string())
    paths = {kind: table_path(settings, manifest, kind, source.name) for kind in ("log", "dropped", "removed")}
    versions = {
        "log": version,
        "dropped": latest_version(paths["dropped"]),
        "removed": latest_version(paths["removed"]),
    }
    kept: dict[tuple[str, int], tuple[int, int]] = {}
    for kind in ("dropped", "log"):
        kept |= _places(paths[kind], versions[kind], ids)
    hashed = {event.event_id: sha256(event.event_id.encode()).hexdigest() for event in events}
    removed = _places(paths["removed"], versions["removed"], pa.array(hashed.values(), pa.string()))
    for event in events:
        trace = (hashed[event.event_id], event.declared_ts)
        if trace in removed:
            kept.setdefault(event.identity, removed[trace])
    good = tuple(event for event in events if event.identity not in kept)
    known = [event for event in events if event.identity in kept]
    return good, [event for event in known if kept[event.identity] != (event.partition, event.offset)]


def _places(path: Path, version: int | None, ids: pa.Array) -> dict[tuple[str, int], tuple[int, int]]:
    """Where a version of a table (None: there is none) has events of some ids, by identity."""
    if version is None:
        return {}
    names = ["event_id", "declared_ts", "partition", "offset"]
    rows = delta_files(path, version).read(names, ds.field("event_id").isin(ids)).to_pylist()
    return {(row["event_id"], row["declared_ts"]): (row["partition"], row["offset"]) for row in rows}
