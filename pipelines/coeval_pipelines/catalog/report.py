"""What reading a feature repository found: the one value that the feast process hands to the command that began it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from coeval.spec.manifest import Manifest, canonical_json
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.summary import Key

REPORT = "COEVAL_CATALOG_REPORT"
"""Environment variable of the feast process: where to write its report."""
DRY_RUN = "COEVAL_CATALOG_DRY_RUN"
"""Environment variable of the feast process: commit nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """The manifest of all that is sound, what the files define, every mistake with its line, and what is worth knowing.

    `defined` holds (kind, name) of the views, derived views and services of the files, broken ones included.
    """

    manifest: Manifest
    defined: frozenset[Key]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As JSON."""
        document = {
            "manifest": self.manifest.to_json(),
            "defined": sorted(self.defined),
            "problems": [problem.document() for problem in self.problems],
            "notes": list(self.notes),
        }
        return canonical_json(document)

    @staticmethod
    def from_json(text: str) -> Report:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        return Report(
            Manifest.from_json(document["manifest"]),
            frozenset((kind, name) for kind, name in document["defined"]),
            tuple(Problem.of(item) for item in document["problems"]),
            tuple(document["notes"]),
        )
