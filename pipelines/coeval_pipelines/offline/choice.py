"""Which engine computes the features of a spine: this process, or Spark. It looks at sizes alone, starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coeval.errors import MissingExtraError, NeedsSparkError, UsageError
from coeval.settings import Settings
from coeval.spec.model import BatchSource
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.tables import latest_version, table_path

LOCAL, SPARK, AUTO = "local", "spark", "auto"
BOUND = 4 * 2**30
"""Bytes that a computation may take of this process without Spark being started; see docs/offline-engines.md."""
_ROW, _VALUE = 300, 24
"""Bytes that a row of a source takes, and a feature of a spine row: measured, see there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine ("local" or "spark"), and why it is that one, in a sentence for a person."""

    engine: str
    why: str


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows a source has; or why this process cannot read it."""

    source: str
    rows: int
    obstacle: str = ""


def choose(settings: Settings, asked: Asked, spine_rows: int, wanted: str = AUTO) -> Choice:
    """The engine for a spine of that many rows. Needs no Spark: sizes are what the tables' own logs say.

    `wanted` "local" or "spark" is obeyed, whatever the sizes.

    Raises:
        NeedsSparkError: "local" is wanted, and cannot be.
        UsageError: `wanted` is no engine, or the files of a batch source are not there.
    """
    return decide([] if wanted == SPARK else sizes(settings, asked), spine_rows, len(asked.outputs), wanted)


def decide(sources: Sequence[Size], spine_rows: int, features: int, wanted: str = AUTO) -> Choice:
    """The engine for sources of these sizes, and so many features of each spine row. Pure; see `choose`."""
    if wanted not in (AUTO, LOCAL, SPARK):
        raise UsageError(f"There is no engine {wanted!r}.", f"Choose one of: {AUTO}, {LOCAL}, {SPARK}.")
    if wanted == SPARK:
        return Choice(SPARK, "Spark was asked for.")
    obstacle = next((item.obstacle for item in sources if item.obstacle), "")
    if obstacle and wanted == LOCAL:
        raise NeedsSparkError(obstacle, "Ask for Spark, or leave the choice to Coeval: auto.")
    if obstacle:
        return Choice(SPARK, f"{obstacle} Spark reads it.")
    rows = sum(item.rows for item in sources)
    bytes_ = rows * _ROW + spine_rows * features * _VALUE
    parts = [f"{item.rows:,} of {item.source}" for item in sources]
    said = f"{rows + spine_rows:,} rows ({', '.join([*parts, f'{spine_rows:,} of the spine'])}), "
    said += f"about {bytes_ / 2**30:.1f} GB"
    if wanted == LOCAL:
        return Choice(LOCAL, f"This process was asked for: {said}.")
    if bytes_ > BOUND:
        return Choice(SPARK, f"{said}, are more than the {BOUND >> 30} GB that this process takes without being asked.")
    return Choice(LOCAL, f"{said}, fit into this process: no Spark is started up to {BOUND >> 30} GB.")


def sizes(settings: Settings, asked: Asked) -> list[Size]:
    """How many rows each source of a service has now.

    Raises:
        UsageError: the files of a batch source are not there.
    """
    return [_size(settings, asked, name) for name in asked.sources]


def _size(settings: Settings, asked: Asked, name: str) -> Size:
    from coeval_pipelines.offline.arrow_events import source_files

    source = asked.manifest.sources[name]
    version = None
    if not isinstance(source, BatchSource):
        version = latest_version(table_path(settings, asked.manifest, "log", name))
        if version is None:
            return Size(name, 0)
    try:
        return Size(name, source_files(settings, asked.manifest, source, version).rows)
    except (NeedsSparkError, MissingExtraError) as error:
        return Size(name, 0, error.reason)
