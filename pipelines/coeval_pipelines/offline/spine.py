"""The spine: checked, numbered and kept still while features are computed for it. It knows Spark.

Spines repeat rows and carry other columns, so every row gets a number, and every view answers by it, exactly once.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.model import Field, View
from coeval.spec.types import Kind
from coeval_pipelines.offline.columns import quoted, sql_type
from coeval_pipelines.offline.session import scratch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROW, Q = "__row", "__q"
"""The number of a spine row, and its instant in microseconds UTC."""
TIMESTAMP_COLUMN = "event_timestamp"

_INTEGERS = ("tinyint", "smallint", "int", "bigint")


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
        UsageError: a column is missing or of another type, an instant has no time zone, a key or an instant is null.
    """
    keys = {field.name: field for view in views for field in view.key}
    _check_columns(spine, list(keys.values()), request)
    path = scratch(settings) / uuid.uuid4().hex
    instant = _instant_sql(spine)
    numbered = spine.selectExpr("*", f"MONOTONICALLY_INCREASING_ID() AS {ROW}", f"{instant} AS {Q}")
    try:
        numbered.write.parquet(str(path))
        frame = spark.read.parquet(str(path))
        rows, earliest, latest = _check_rows(frame, list(keys))
        yield StagedSpine(frame, tuple(spine.columns), rows, earliest, latest)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def read_spine(spark: SparkSession, spine: object) -> DataFrame:
    """A spine given as a Spark or pandas DataFrame, a path of Parquet files or a Delta table, or a SELECT.

    Raises:
        UsageError: it is none of these.
    """
    from pathlib import Path

    from pyspark.sql import DataFrame

    if isinstance(spine, DataFrame):
        return spine
    if type(spine).__module__.startswith("pandas."):
        return _from_pandas(spark, spine)
    if isinstance(spine, Path) or (
        isinstance(spine, str) and not spine.lstrip()[:6].upper().startswith(("SELECT", "WITH"))
    ):
        return _from_path(spark, Path(spine))
    if isinstance(spine, str):
        return spark.sql(spine)
    raise UsageError(
        f"A spine cannot be a {type(spine).__name__}.",
        "Give a DataFrame, a path of Parquet or Delta files, or a SELECT.",
    )


def _from_path(spark: SparkSession, path: object) -> DataFrame:
    from pathlib import Path

    from pyspark.errors import AnalysisException

    assert isinstance(path, Path)
    kind = "delta" if (path / "_delta_log").is_dir() else "parquet"
    try:
        return spark.read.format(kind).load(str(path))
    except AnalysisException as error:
        raise UsageError(f"The spine {path} cannot be read.", "Give Parquet files or a Delta table.") from error


def _from_pandas(spark: SparkSession, frame: object) -> DataFrame:
    import pandas as pd
    import pyarrow as pa

    assert isinstance(frame, pd.DataFrame)
    for name, kind in frame.dtypes.items():
        if pd.api.types.is_datetime64_dtype(kind):
            raise _naive(str(name))
    return spark.createDataFrame(pa.Table.from_pandas(frame, preserve_index=False))


def _naive(name: str) -> UsageError:
    return UsageError(
        f"The spine's {name} has no time zone.",
        "Make it an instant in UTC, e.g. with .dt.tz_localize('UTC') in pandas.",
    )


def _check_columns(spine: DataFrame, keys: Sequence[Field], request: Sequence[Field]) -> None:
    found = dict(spine.dtypes)
    if TIMESTAMP_COLUMN not in found:
        raise UsageError(
            f"The spine has no column {TIMESTAMP_COLUMN}; it has {', '.join(found)}.",
            f"Name the column of the instants {TIMESTAMP_COLUMN}.",
        )
    if found[TIMESTAMP_COLUMN] == "timestamp_ntz":
        raise _naive(TIMESTAMP_COLUMN)
    if found[TIMESTAMP_COLUMN] not in ("timestamp", "bigint"):
        raise UsageError(
            f"The spine's {TIMESTAMP_COLUMN} is a {found[TIMESTAMP_COLUMN]}.",
            "Make it a timestamp in UTC, or an integer of microseconds since the epoch.",
        )
    for field, role in [*((key, "key") for key in keys), *((item, "request input") for item in request)]:
        _check_column(field, role, found)


def _check_column(field: Field, role: str, found: dict[str, str]) -> None:
    if field.name not in found:
        raise UsageError(
            f"The spine has no column {field.name}, a {role} of this service; it has {', '.join(found)}.",
            f"Add {field.name} ({field.type}).",
        )
    numeric = found[field.name] in (*_INTEGERS, "float", "double") or found[field.name].startswith("decimal")
    wanted = sql_type(field.type).lower()
    fits = found[field.name] in _INTEGERS if field.type.kind is Kind.INT64 else found[field.name] == wanted
    if role == "request input" and field.type.kind in (Kind.INT64, Kind.FLOAT64, Kind.DECIMAL):
        fits = numeric
    if not fits:
        raise UsageError(
            f"The spine's {field.name} is a {found[field.name]}; this {role} is a {field.type}.",
            f"Cast it to {wanted}.",
        )


def _instant_sql(spine: DataFrame) -> str:
    column = quoted(TIMESTAMP_COLUMN)
    return column if dict(spine.dtypes)[TIMESTAMP_COLUMN] == "bigint" else f"UNIX_MICROS({column})"


def _check_rows(frame: DataFrame, keys: Sequence[str]) -> tuple[int, int, int]:
    """Rows, earliest and latest instant."""
    nulls = [f"COUNT_IF({quoted(name)} IS NULL)" for name in (*keys, TIMESTAMP_COLUMN)]
    found = frame.selectExpr("COUNT(*)", f"MIN({Q})", f"MAX({Q})", *nulls).first()
    assert found is not None
    for name, number in zip((*keys, TIMESTAMP_COLUMN), found[3:], strict=True):
        if number:
            raise UsageError(f"{number} rows of the spine have no {name}.", "Leave them out, or fill them in.")
    return found[0], found[1] or 0, found[2] or 0
