"""The state of the event log: size, files, versions, freshness, late shares, rejects. Needs no Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.types import iso
from coeval_pipelines.journal import IngestReport, ingest_journal
from coeval_pipelines.offline.log_files import TableFiles, look
from coeval_pipelines.offline.tables import SOURCE_TABLES, table_path
from coeval_pipelines.offline.training.registry import pins


@dataclass(frozen=True, slots=True)
class LogState:
    """One source: what became of every record, its tables, and instants in microseconds UTC (None: nothing yet).

    `unfinished` is a batch that the next ingest finishes; `begins` is when the log begins, after a retention.
    """

    report: IngestReport
    tables: Mapping[str, TableFiles]
    ingested_at: int | None
    unfinished: int | None
    begins: int | None
    pinned: Mapping[int, tuple[str, ...]]

    @property
    def newest(self) -> int | None:
        """When the newest good event was available."""
        return self.tables["log"].newest if "log" in self.tables else None

    @property
    def late_shares(self) -> dict[str, float]:
        """By granularity, the share of the good events that came after their tile was final."""
        return {name: late / self.report.good for name, late in self.report.late.items() if self.report.good}

    def to_dict(self, now: int) -> dict[str, Any]:
        """As JSON-ready values; ages in seconds."""
        return {
            **self.report.to_dict(),
            "late_share": self.late_shares,
            "tables": {kind: item.to_dict() for kind, item in self.tables.items()},
            "newest_available_at": self.newest,
            "age_seconds": None if self.newest is None else (now - self.newest) / 1e6,
            "ingested_at": self.ingested_at,
            "unfinished_batch": self.unfinished,
            "begins": self.begins,
            "pinned_versions": {str(version): names for version, names in self.pinned.items()},
        }


def log_state(settings: Settings, manifest: Manifest, source: EventSource) -> LogState:
    """The state of a source's log."""
    book = ingest_journal(settings, manifest.tenant, source.name)
    tables = {kind: look(table_path(settings, manifest, kind, source.name)) for kind in SOURCE_TABLES}
    return LogState(
        report=book.total(),
        tables={kind: item for kind, item in tables.items() if item is not None},
        ingested_at=book.last_done_at(),
        unfinished=book.unfinished(),
        begins=book.begins(),
        pinned={version: tuple(names) for version, names in pins(settings, manifest, source).items()},
    )


def state_lines(state: LogState, now: int) -> list[str]:
    """The state of a source in words."""
    report, pad = state.report, " " * 24
    rejected = ", ".join(f"{name} {number:,}" for name, number in report.rejected.items())
    late = ", ".join(f"{name} {share:.2%}" for name, share in state.late_shares.items())
    parts = f"good {report.good:,} + rejected {sum(report.rejected.values()):,} + duplicate {report.duplicates:,}"
    lines = [
        f"{report.source:<24} read {report.read:,} = {parts}",
        f"{pad} rejected: {rejected or 'none'}   conflicts {report.conflicts:,}   late: {late or 'none'}",
    ]
    for kind, item in state.tables.items():
        stale = f"   stale {item.stale_files:,} files, {_size(item.stale_bytes)}" if item.stale_files else ""
        lines.append(
            f"{pad} {kind:<11} {item.rows:>12,} rows {item.files:>7,} files {_size(item.bytes):>9}"
            f"   version {item.version}{stale}"
        )
    if state.newest is not None:
        lines.append(f"{pad} newest event {iso(state.newest, seconds=True)}, {(now - state.newest) / 1e6:,.0f} s ago")
    if state.begins is not None:
        lines.append(f"{pad} begins at {iso(state.begins, seconds=True)}: earlier events were let go")
    if state.unfinished is not None:
        lines.append(f"{pad} batch {state.unfinished} is not finished: coeval log ingest")
    return lines


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
