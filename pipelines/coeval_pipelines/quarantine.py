"""Verdicts on the batches of a log: checked or not, quarantined or let through. It knows files beside the journal.

A batch that failed its checks is whole in the log; as long as nobody has decided about it, nothing new is computed from
that log (docs/adr/0011-quality-is-a-verdict-on-a-batch.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coeval.errors import CheckFailedError, UsageError
from coeval.files import write_whole
from coeval.settings import Settings
from coeval.spec.model import View

RELEASED, DROPPED = "released", "dropped"


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a batch broke: what it is called, of which column ('': several), and by how many rows it names."""

    rule: str
    column: str
    rows: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a batch by a quality run, and what was decided: '' (nothing yet), released or dropped.

    Instants are microseconds UTC. `broken` is empty where the batch passed.
    """

    source: str
    batch: int
    run: int
    at: int
    rows: int
    broken: tuple[Broken, ...] = ()
    decision: str = ""
    who: str = ""
    why: str = ""
    decided_at: int | None = None

    @property
    def quarantined(self) -> bool:
        """Whether it failed, and nobody has decided."""
        return bool(self.broken) and not self.decision


class Quarantine:
    """The verdicts on the batches of one source, one small file each."""

    def __init__(self, settings: Settings, tenant: str, source: str) -> None:
        self._directory = settings.delta / tenant / "ingest" / source
        self._source = source

    def verdicts(self) -> list[Verdict]:
        """Every verdict, by batch."""
        return [_read(path) for path in sorted(self._directory.glob("*.quality.json"))]

    def open(self) -> list[Verdict]:
        """The batches that are quarantined."""
        return [item for item in self.verdicts() if item.quarantined]

    def record(self, verdict: Verdict) -> None:
        """Keep a verdict in the place of an earlier one on the same batch."""
        path = self._directory / f"{verdict.batch:09d}.quality.json"
        write_whole(path, json.dumps(asdict(verdict), sort_keys=True))

    def decide(self, batch: int, decision: str, who: str, why: str, now: int) -> Verdict:
        """Record what was decided about a quarantined batch.

        Raises:
            UsageError: it is not quarantined.
        """
        decided = replace(self.quarantined(batch), decision=decision, who=who, why=why, decided_at=now)
        self.record(decided)
        return decided

    def quarantined(self, batch: int) -> Verdict:
        """The verdict on a batch that is quarantined.

        Raises:
            UsageError: it is not.
        """
        found = next((item for item in self.open() if item.batch == batch), None)
        if found is None:
            known = ", ".join(str(item.batch) for item in self.open()) or "none"
            raise UsageError(f"Batch {batch} of {self._source} is not quarantined.", f"Quarantined: {known}.")
        return found


def check_quarantine(settings: Settings, tenant: str, views: Iterable[View]) -> None:
    """Refuse to compute views from a log that has a quarantined batch.

    Raises:
        CheckFailedError: it names the source, the batch and what it broke.
    """
    for source in dict.fromkeys(view.source for view in views):
        for verdict in Quarantine(settings, tenant, source).open():
            broken = ", ".join(f"{item.rule} {item.column}".strip() for item in verdict.broken)
            raise CheckFailedError(
                f"Batch {verdict.batch} of {source} is quarantined: {broken}.",
                f"Look: coeval quality show {verdict.run}. Then: coeval quality release (or drop) {source}"
                f" {verdict.batch} --why TEXT",
            )


def _read(path: Path) -> Verdict:
    document: dict[str, Any] = json.loads(path.read_text())
    return Verdict(**{**document, "broken": tuple(Broken(**item) for item in document["broken"])})
