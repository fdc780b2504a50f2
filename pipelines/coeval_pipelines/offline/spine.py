"""The spine: checked, numbered and kept still while features are computed for it. It knows Spark.

Spines repeat rows and carry other columns, so every row gets a number, and every view answers by it, exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coeval.files import remove_tree
from coeval.settings import Settings
from coeval.spec.model import Field, View
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.columns import quoted, sql_type
from coeval_pipelines.offline.session import scratch
from coeval_pipelines.offline.spine_rules import (
    TIMESTAMP_COLUMN,
    check_columns,
    check_nulls,
    check_times,
    is_select,
    key_fields,
    unreadable,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROW, Q = "__row", "__q"
"""The number of a spine row, and its instant in microseconds UTC."""


@dataclass(frozen=True, slots=True)
class StagedSpine:
    """A spine on disk, with its row numbers, and the bounds of its instants (microseconds UTC, 0 where it is empty)."""

    frame: DataFrame
    columns: tuple[str, ...]
    rows: int
    earliest: int
    latest: int

    def keyed(self, key: Sequence[Field]) -> DataFrame:
        """Row number, instant and the key columns with their declared types."""
        columns = (f"CAST({quoted(field.name)} AS {sql_type(field.type)}) {quoted(field.name)}" for field in key)
        return self.frame.selectExpr(ROW, Q, *columns)


@contextmanager
def staged(
    spark: SparkSession, settings: Settings, spine: DataFrame, views: Iterable[View], request: Sequence[Field] = ()
) -> Iterator[StagedSpine]:
    """Check a spine and keep it on disk for as long as the context lasts, so that its row numbers cannot change.

    Raises:
        UsageError: a column is missing or of another type, an instant has no time zone, a key or an instant is null,
            or an instant is out of range.
    """
    keys = key_fields(views)
    check_columns(dict(spine.dtypes), keys, request)
    path = scratch(settings)
    instant = _instant_sql(spine)
    numbered = spine.selectExpr("*", f"MONOTONICALLY_INCREASING_ID() AS {ROW}", f"{instant} AS {Q}")
    try:
        numbered.write.parquet(str(path))
        frame = spark.read.parquet(str(path))
        rows, earliest, latest = _check_rows(frame, [field.name for field in keys])
        yield StagedSpine(frame, tuple(spine.columns), rows, earliest, latest)
    finally:
        remove_tree(path)


def read_spine(spark: SparkSession, spine: object, asked: Asked) -> DataFrame:
    """A spine in any form: what Spark reads by itself is left to it, all else is read as without Spark.

    Raises:
        UsageError: it is in no form that anybody reads, or cannot be read.
    """
    from pyspark.sql import DataFrame

    from coeval_pipelines.offline.arrow_spine import normalised, read_table

    if isinstance(spine, DataFrame):
        return spine
    if isinstance(spine, str) and is_select(spine):
        return spark.sql(spine)
    if isinstance(spine, str | Path) and Path(spine).suffix != ".csv":
        return _from_path(spark, str(spine))
    return spark.createDataFrame(normalised(read_table(spine, asked)))


def _from_path(spark: SparkSession, path: str) -> DataFrame:
    from delta.tables import DeltaTable
    from pyspark.errors import AnalysisException

    try:
        kind = "delta" if DeltaTable.isDeltaTable(spark, path) else "parquet"
        return spark.read.format(kind).load(path)
    except AnalysisException as error:
        raise unreadable(Path(path)) from error


def _instant_sql(spine: DataFrame) -> str:
    column = quoted(TIMESTAMP_COLUMN)
    return column if dict(spine.dtypes)[TIMESTAMP_COLUMN] == "bigint" else f"UNIX_MICROS({column})"


def _check_rows(frame: DataFrame, keys: Sequence[str]) -> tuple[int, int, int]:
    """Rows, earliest and latest instant."""
    nulls = [f"COUNT_IF({quoted(name)} IS NULL)" for name in (*keys, TIMESTAMP_COLUMN)]
    found = frame.selectExpr("COUNT(*)", f"MIN({Q})", f"MAX({Q})", *nulls).first()
    assert found is not None
    check_nulls(dict(zip((*keys, TIMESTAMP_COLUMN), found[3:], strict=True)))
    rows, earliest, latest = found[0], found[1] or 0, found[2] or 0
    check_times(TIMESTAMP_COLUMN, earliest, latest)
    return rows, earliest, latest
