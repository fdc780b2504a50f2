"""What rebuilding training sets found: frozen values, and what a difference is called. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from coeval.spec.model import BatchSource
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.training.apart import ValueApart
from coeval_pipelines.offline.training.rebuild import Rebuilt

Versions = Mapping[str, str | None]
"""Versions of Python and packages by name; None: not installed."""


class Outcome(StrEnum):
    """What became of building a set again."""

    SAME = "same"
    """It has the same content."""
    EXPLAINED = "explained"
    """Other values, of those features alone that are read from files which have changed."""
    IMPOSSIBLE = "impossible"
    """It cannot be what it was, for a reason that is known: an erasure, events that were let go."""
    ALTERED = "altered"
    """Its table does not hold the rows that were built."""
    UNEXPLAINED = "unexplained"
    """Other values, and nothing that was recorded accounts for them."""
    UNCHECKED = "unchecked"
    """It could not be built again, and nobody meant it so: files are missing, a batch is quarantined, Spark failed."""


FAILS = frozenset({Outcome.ALTERED, Outcome.UNEXPLAINED, Outcome.UNCHECKED})


@dataclass(frozen=True, slots=True)
class SetRebuild:
    """One set. `at` in microseconds UTC, hashes are content hashes; `suspects` explain nothing, but where to look.

    `features` counts in how many of the `apart` rows that differ each feature does.
    """

    name: str
    service: str
    at: int
    manifest_hash: str
    rows: int
    outcome: Outcome
    why: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()
    engine: str = ""
    before: str = ""
    after: str = ""
    apart: int = 0
    features: Mapping[str, int] = field(default_factory=dict)
    values: tuple[ValueApart, ...] = ()
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it is what it was, or it is known why not."""
        return self.outcome not in FAILS

    def to_document(self, values: bool = True) -> dict[str, Any]:
        """As JSON-ready values; those of single rows only where they are asked for."""
        found = {"passed": self.passed, **asdict(self)}
        return found if values else {name: item for name, item in found.items() if name != "values"}


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """All sets of a run."""

    sets: tuple[SetRebuild, ...]

    @property
    def passed(self) -> bool:
        """Whether every set passed."""
        return all(item.passed for item in self.sets)

    @property
    def headline(self) -> str:
        """The run in one line."""
        counts = {outcome: sum(item.outcome is outcome for item in self.sets) for outcome in Outcome}
        said = [f"{count} {outcome}" for outcome, count in counts.items() if count or outcome is Outcome.SAME]
        return f"{len(self.sets)} training sets: {', '.join(said)}"

    def to_document(self) -> dict[str, Any]:
        """As JSON-ready values, totals first."""
        sets = [item.to_document() for item in self.sets]
        return {"passed": self.passed, "headline": self.headline, "sets": sets}


def judged(found: Rebuilt, asked: Asked) -> tuple[Outcome, tuple[str, ...]]:
    """What a rebuild is to be called, and why."""
    if found.same:
        return Outcome.SAME, ()
    if found.stored != found.before:
        return Outcome.ALTERED, found.differences
    changed, features = set(found.changed), found.apart.features
    if features and all(_sources(asked, name) & changed for name in features):
        return Outcome.EXPLAINED, tuple(f"the files of {name} have changed" for name in found.changed)
    return Outcome.UNEXPLAINED, found.differences


def suspected(found: Rebuilt, asked: Asked, then: Mapping[str, Any], now: Versions) -> tuple[str, ...]:
    """What is not as it was when a set was built, by its lineage (`then`), and proves nothing."""
    said = [
        f"{name} is {now[name]}, was {was}"
        for name, was in dict.fromkeys(pair for part in then["parts"] for pair in part["versions"].items())
        if was is not None and now.get(name) != was
    ]
    engines = {part["engine"]["name"] for part in then["parts"]}
    if engines != {found.engine.engine}:
        said.append(f"built by {', '.join(sorted(engines))}, now by {found.engine.engine}")
    derived = {view.name: view.function for view in asked.derived}
    touched = {name.partition("__")[0] for name in found.apart.features}
    if touched and touched <= derived.keys():
        said += [f"the code of {derived[name]}: its inputs are as they were" for name in sorted(touched)]
    if not found.apart.rows:
        said.append("no value differs: the type of a column does")
    return tuple(said)


def _sources(asked: Asked, feature: str) -> set[str]:
    """The batch sources that a feature view__feature is computed from."""
    name = feature.partition("__")[0]
    derived = {view.name: {ref.view for ref in view.inputs} for view in asked.derived}
    views = derived.get(name, {name})
    sources = {asked.manifest.views[view].source for view in views}
    return {source for source in sources if isinstance(asked.manifest.sources[source], BatchSource)}
