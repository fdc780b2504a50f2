"""What a drift run found: frozen values, and whether it passed. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from coeval_parity.drift.rules import Kind


@dataclass(frozen=True, slots=True)
class Measure:
    """One distance of one feature, and what it is held to.

    `threshold` is from when on it matters, `noise` what chance alone reaches, `usual` what windows of the same weekday
    reached before (None: too few of them). It is over where it exceeds all of them.
    """

    name: str
    value: float
    threshold: float
    noise: float
    usual: float | None = None

    @property
    def limit(self) -> float:
        """The largest of what it is held to."""
        return max(self.threshold, self.noise, self.usual or 0.0)

    @property
    def over(self) -> bool:
        """Whether it is drift."""
        return self.value > self.limit


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of a picture: what it holds, in words, and the shares of baseline and window in it."""

    label: str
    baseline: float
    window: float


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature. `note` says why it was not judged; empty: it was."""

    feature: str
    kind: Kind
    baseline_rows: int
    rows: int
    measures: tuple[Measure, ...] = ()
    bins: tuple[Bin, ...] = ()
    note: str = ""

    @property
    def drifted(self) -> bool:
        """Whether any of its distances is over."""
        return any(item.over for item in self.measures)

    @property
    def worst(self) -> Measure | None:
        """The distance that is furthest over its limit, or nearest to it."""
        return max(self.measures, key=lambda item: item.value / item.limit if item.limit else 0.0, default=None)


@dataclass(frozen=True, slots=True)
class DriftResult:
    """A run. Instants are microseconds since the epoch, UTC; `start` and `end` are None where the table has no time.

    `earlier` counts the windows of the same weekday that told what is usual.
    """

    at: int
    manifest_hash: str
    window: str
    baseline: str
    start: int | None
    end: int | None
    earlier: int
    features: tuple[FeatureDrift, ...]
    notes: tuple[str, ...] = ()
    run: int = 0
    report: str = ""

    @property
    def drifted(self) -> tuple[FeatureDrift, ...]:
        """The features that drifted."""
        return tuple(item for item in self.features if item.drifted)

    @property
    def judged(self) -> int:
        """How many features were judged."""
        return sum(not item.note for item in self.features)

    @property
    def passed(self) -> bool:
        """Whether no feature drifted; a window too small to judge passes, and says so."""
        return not self.drifted

    @property
    def headline(self) -> str:
        """The run in one line."""
        rows = max((item.rows for item in self.features), default=0)
        left = len(self.features) - self.judged
        beside = f", {left} not judged" if left else ""
        return f"{len(self.drifted)} of {self.judged} features drifted{beside}; {rows:,} rows of {self.window}"

    def to_document(self) -> dict[str, Any]:
        """As JSON-ready values, totals first."""
        totals = {"passed": self.passed, "headline": self.headline, "drifted": [f.feature for f in self.drifted]}
        return totals | asdict(self)


def from_document(document: dict[str, Any]) -> DriftResult:
    """Read what `to_document` wrote."""
    from pydantic import TypeAdapter

    known = {name: value for name, value in document.items() if name in DriftResult.__slots__}
    return TypeAdapter(DriftResult).validate_python(known)
