"""What a quality run found: frozen values. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from coeval_parity.quality.rules import CRITICAL


@dataclass(frozen=True, slots=True)
class Checked:
    """A rule and what became of it: how many rows break it, what was observed, or why it could not be checked."""

    rule: str
    column: str
    severity: str
    passed: bool
    rows: int = 0
    observed: str = ""
    error: str = ""

    @property
    def breaks(self) -> bool:
        """Whether it fails the check."""
        return not self.passed and self.severity == CRITICAL


@dataclass(frozen=True, slots=True)
class TableCheck:
    """A table that was checked, or a batch of a log. `failing` counts the rows that break a critical rule."""

    subject: str
    batch: int | None
    engine: str
    rows: int
    rules: tuple[Checked, ...]
    failing: int = 0

    @property
    def passed(self) -> bool:
        """Whether no critical rule is broken."""
        return not any(item.breaks for item in self.rules)

    @property
    def name(self) -> str:
        """The table and, of a log, the batch."""
        return self.subject if self.batch is None else f"{self.subject} batch {self.batch}"


@dataclass(frozen=True, slots=True)
class QualityResult:
    """A run; `at` in microseconds UTC, `docs` the index of Great Expectations' pages."""

    at: int
    manifest_hash: str
    checks: tuple[TableCheck, ...]
    docs: str = ""
    run: int = 0

    @property
    def passed(self) -> bool:
        """Whether everything passed."""
        return all(item.passed for item in self.checks)

    @property
    def headline(self) -> str:
        """The run in one line."""
        failed = [item for item in self.checks if not item.passed]
        rules = sum(len(item.rules) for item in self.checks)
        rows = sum(item.rows for item in self.checks)
        return f"{len(failed)} of {len(self.checks)} tables and batches failed; {rules} rules, {rows:,} rows"

    def to_document(self) -> dict[str, Any]:
        """As JSON-ready values, totals first."""
        return {"passed": self.passed, "headline": self.headline} | asdict(self)


def from_document(document: dict[str, Any]) -> QualityResult:
    """Read what `to_document` wrote."""
    from pydantic import TypeAdapter

    known = {name: value for name, value in document.items() if name in QualityResult.__slots__}
    return TypeAdapter(QualityResult).validate_python(known)
