"""What training sets are to those who ask for them: labels that come later, and what was built. It knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KNOWLEDGE = ("available", "final")
"""What a value is made of: what could be known at its instant; or all that is known now."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels that become known later than what they are about, in a table of their own.

    `table` is in any form that a spine may be in. It has keys of the service, the instant `at` at which a label became
    known, and the labels: all its other columns. A spine row gets the latest label of its key that became known after
    its `event_timestamp` and at most `delay` ("30d", "12h") later; null where there is none. Rows whose delay is not
    over yet are left out of the training set.
    """

    table: object
    delay: str
    at: str = "event_timestamp"


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that computed it, "local" or "spark", and why it was that one."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows with features as they were at their instants, what they are made of and what they are like.

    `lineage`, `profile` and `report` are JSON-ready; see docs/training-sets.md. `name` and `path` (a Delta table) are
    None where it is not kept; the report is empty for one instant (`get_batch_features`). Rows of Spark's are in no
    particular order.
    """

    name: str | None
    path: Path | None
    rows: int
    lineage: Mapping[str, Any] = field(repr=False)
    profile: Mapping[str, Any] = field(repr=False)
    report: Mapping[str, Any] = field(repr=False)
    engine: Engine
    read: Callable[[], pa.Table] = field(repr=False)
    """Reads the rows, of the version that was built."""

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table: the spine's columns, labels, then `view__feature` in the service's order."""
        return self.read()

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame
