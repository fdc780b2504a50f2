"""Parity as a gate for others: run it, write the report, print the table of causes. What crosses the room is plain."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_parity.document import to_document
from coeval_parity.run import run_parity
from coeval_parity.text import print_result

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether parity passed, in one line, as a JSON-ready document, and where the page is."""

    passed: bool
    headline: str
    document: dict[str, Any]
    report: Path

    def print(self) -> None:
        """Print the table of causes to stdout."""
        from rich.console import Console

        from coeval_parity.document import from_document

        print_result(from_document(self.document), Console(width=None if sys.stdout.isatty() else 160))


def gate(
    settings: Settings, manifest: Manifest, spark: SparkSession, page: Path, on_progress: Callable[[str], None]
) -> Verdict:
    """Compare every stored value of every view with the log, and write the report to `page`."""
    result = run_parity(settings, manifest, spark=spark, on_progress=on_progress, html=page)
    return Verdict(result.passed, result.headline, to_document(result), page)
