"""What a training set asks of an engine; all else is computed by the same code, whichever engine it is.

`T` is the engine's own kind of table: Arrow's, or a frame of Spark's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from coeval.errors import NeedsSparkError
from coeval.settings import Settings
from coeval.spec.model import BatchSource, EventSource
from coeval.training import Labels
from coeval_pipelines.offline.arrow_spine import count_rows
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.choice import LOCAL, SPARK, Choice, choose
from coeval_pipelines.offline.training.summary import Summary

T = TypeVar("T")
COMMIT = "userMetadata"
"""Under which the commits of a table hold what they are of: Spark's name for it, in both engines."""
TABLE = {"delta.logRetentionDuration": "interval 3650 days"}
"""Properties of a training set's table: Delta forgets versions after a month if it is not told otherwise."""


class Engine(Protocol[T]):
    """Computes over tables of its own kind, which live until the engine is closed."""

    def read(self, spine: object, asked: Asked, at: int | None = None) -> T:
        """A spine in any form; with `at` (microseconds UTC), that is the `event_timestamp` of every row.

        Raises:
            UsageError: it cannot be read, or a column has a name of the answer's.
        """

    def labelled(self, spine: T, asked: Asked, labels: Labels, now: int, inputs: Inputs) -> T:
        """The rows whose labels can be known by now, with their labels."""

    def features(self, asked: Asked, spine: T, inputs: Inputs, knowledge: str) -> T:
        """The spine with the service's features.

        Raises:
            UsageError: the spine lacks something, or asks for values that would need events that were let go.
        """

    def in_order(self, asked: Asked, spine: T, inputs: Inputs, knowledge: str) -> pa.Table:
        """The same, with the rows in the order of the spine."""

    def summary(self, table: T, given: Sequence[str] = (), *, profiled: bool = True) -> Summary:
        """The summary of a table, of whose columns some were given."""

    def count(self, table: T) -> int:
        """The number of rows."""

    def sample(self, table: T, columns: Sequence[str], below: int | None) -> pa.Table:
        """The rows whose digest of these columns begins below a number (None: every row)."""

    def table(self, rows: pa.Table) -> T:
        """Rows of Arrow's as a table of this engine."""

    def late(self, asked: Asked, source: EventSource, inputs: Inputs, until: int) -> tuple[int, dict[str, int]]:
        """The events of a source before an instant, and by granularity those that came after their tile was final."""

    def file_rows(self, source: BatchSource) -> T:
        """What the files of a batch source hold."""

    def stored(self, path: Path, version: int, files: Sequence[str] | None = None) -> T:
        """A version of a training set, or only some of its files."""

    def commit(self, table: T, path: Path, document: str, *, append: bool = False) -> None:
        """Put rows in the place of what the table holds, or beside it, together with a document: one commit."""

    def differing(
        self, asked: Asked, stored: T, given: Sequence[str], inputs: Inputs, knowledge: str
    ) -> tuple[int, Mapping[str, int], pa.Table]:
        """How many rows have other features when they are computed again from what was `given`, how many by feature,
        and the first rows.

        The features that were computed again stand beside those that are stored: see `apart`.
        """

    def only(self, table: T, columns: Sequence[str]) -> T:
        """Some columns of a table."""

    def rows(self, table: T) -> pa.Table:
        """The rows of a table, as they come."""


def chosen(settings: Settings, asked: Asked, spine: object, wanted: str, labels: Labels | None = None) -> Choice:
    """The engine for a spine in any form, by the sizes of all that is read.

    Raises:
        NeedsSparkError: "local" is wanted, and cannot be.
        UsageError: there is no engine of that name, or something cannot be read.
    """
    rows = 0
    if wanted != SPARK:
        try:
            rows = sum(count_rows(item) for item in (spine, *([labels.table] if labels else [])))
        except NeedsSparkError as error:
            if wanted == LOCAL:
                raise
            return Choice(SPARK, f"{error.reason} Spark reads it.")
    return choose(settings, asked, rows, wanted)


@contextmanager
def opened(settings: Settings, choice: Choice) -> Iterator[Engine[Any]]:
    """The engine that was chosen. Spark's session stays open until the process ends."""
    if choice.engine == LOCAL:
        from coeval_pipelines.offline.training.local import LocalEngine

        yield LocalEngine(settings)
        return
    from coeval_pipelines.offline.session import lasting_session, spark_errors
    from coeval_pipelines.offline.training.spark import SparkEngine

    spark = lasting_session(settings)
    with spark_errors(settings), SparkEngine(spark, settings) as engine:
        yield engine


def types_of(schema: pa.Schema) -> Mapping[str, pa.DataType]:
    """The types of columns by name."""
    return {field.name: field.type for field in schema}
