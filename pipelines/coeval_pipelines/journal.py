"""The ingest journal of a source: which offsets make up each batch, and what became of it. It knows the file system.

A batch is planned (its offset ranges written down) before anything is appended, and done when everything is. What was
planned and not done is run again as it was planned: every append carries the batch's number, so it lands once.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coeval.files import write_whole
from coeval.settings import Settings

UPKEEP = "upkeep.lock"
"""The lock of what rewrites the tables of a source without adding to them."""


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets [start, end) of one partition."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A batch of a topic: its number (from 1; 0 is the history) and the offsets of each partition."""

    batch: int
    ranges: Mapping[int, Range]

    @property
    def records(self) -> int:
        """How many offsets it spans."""
        return sum(item.end - item.start for item in self.ranges.values())


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the records read: read = good + rejected + duplicates, exactly.

    `late` counts good events by granularity (5m, 1h, ...), those that came after their tile was final; `conflicts` are
    duplicates that differ from their original, or came through another partition. `offsets` are next to read, by
    partition.
    """

    source: str
    read: int = 0
    good: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    conflicts: int = 0
    late: Mapping[str, int] = field(default_factory=dict)
    offsets: Mapping[int, int] = field(default_factory=dict)

    def plus(self, other: IngestReport) -> IngestReport:
        """Both together; the offsets are the other's where it has any."""
        return IngestReport(
            self.source,
            self.read + other.read,
            self.good + other.good,
            _added(self.rejected, other.rejected),
            self.duplicates + other.duplicates,
            self.conflicts + other.conflicts,
            _added(self.late, other.late),
            {**self.offsets, **other.offsets},
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self)

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> IngestReport:
        """Read what `to_dict` wrote."""
        offsets = {int(partition): end for partition, end in document["offsets"].items()}
        return IngestReport(**{**document, "offsets": offsets})


def _added(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted({*a, *b})}


def ingest_journal(settings: Settings, tenant: str, source: str) -> Journal:
    """The ingest journal of a source of a tenant; it need not exist yet."""
    return Journal(settings.delta / tenant / "ingest" / source, source)


class Journal:
    """The batches of one source, one small file each. Batch 0 is the history."""

    def __init__(self, directory: Path, source: str) -> None:
        self._directory = directory
        self._source = source

    @contextmanager
    def locked(self, what: str = "lock") -> Iterator[None]:
        """One ingest of a source at a time, and one `UPKEEP`; a lock goes with its holder, however it ends."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / what).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def report(self, batch: int) -> IngestReport | None:
        """What became of a batch; None while it is not done."""
        document = self._read(f"{batch:09d}.done.json")
        return None if document is None else IngestReport.from_dict(document)

    def finish(self, batch: int, report: IngestReport) -> None:
        """Record that everything of a batch is in its tables."""
        self._write(f"{batch:09d}.done.json", report.to_dict())

    def unfinished(self) -> int | None:
        """The batch that was planned and is not done; None where every one is."""
        plan = self.last_plan()
        return plan.batch if plan and self.report(plan.batch) is None else None

    def begins(self, version: int | None = None) -> int | None:
        """The instant before which events were let go of a version of the log (microseconds UTC; None: the newest).

        None where none were.
        """
        found = (cut["event_ts"] for cut in self._cuts() if version is None or version > cut["after"])
        return max(found, default=None)

    def let_go(self, before: int, version: int) -> None:
        """Record that versions of the log after this one lack the events before an instant."""
        self._write("begins.json", {"cuts": [*self._cuts(), {"after": version, "event_ts": before}]})

    def _cuts(self) -> list[dict[str, int]]:
        return (self._read("begins.json") or {"cuts": []})["cuts"]  # type: ignore[no-any-return]

    def last_done_at(self) -> int | None:
        """When the newest batch was done (microseconds UTC); None where none is."""
        times = [path.stat().st_mtime_ns // 1000 for path in self._directory.glob("*.done.json")]
        return max(times, default=None)

    def last_plan(self) -> BatchPlan | None:
        """The newest planned batch of the topic, done or not."""
        numbers = [int(path.name[:9]) for path in self._directory.glob("*.plan.json")]
        document = self._read(f"{max(numbers):09d}.plan.json") if numbers else None
        if document is None:
            return None
        ranges = {int(partition): Range(*ends) for partition, ends in document["ranges"].items()}
        return BatchPlan(document["batch"], ranges)

    def last_done(self) -> int:
        """The newest batch that is in its tables with all before it; 0: only the history may be."""
        last = self.last_plan()
        if last is None:
            return 0
        return last.batch if self.report(last.batch) is not None else last.batch - 1

    def plan(self, plan: BatchPlan) -> None:
        """Write a plan down, before anything of it is done."""
        ranges = {partition: [item.start, item.end] for partition, item in plan.ranges.items()}
        self._write(f"{plan.batch:09d}.plan.json", {"batch": plan.batch, "ranges": ranges})

    def offsets(self) -> dict[int, int]:
        """The next offsets to read, by partition, after everything that was planned."""
        found: dict[int, int] = {}
        for path in sorted(self._directory.glob("*.plan.json")):
            document = self._read(path.name) or {"ranges": {}}
            found |= {int(partition): ends[1] for partition, ends in document["ranges"].items()}
        return found

    def total(self) -> IngestReport:
        """Everything done so far, history and topic together."""
        total = IngestReport(self._source)
        for path in sorted(self._directory.glob("*.done.json")):
            total = total.plus(self.report(int(path.name[:9])) or IngestReport(self._source))
        return total

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._directory / name).read_text())
        except FileNotFoundError:
            return None

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        write_whole(self._directory / name, json.dumps(document, sort_keys=True))
