"""What is checked, as frames: a batch of a log, or a table of features; by pandas, or by Spark where it is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from coeval.arrow import arrow_type
from coeval.settings import Settings
from coeval.spec.erasure import concerning
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval_parity.drift.tables import TRAINING, Table
from coeval_parity.drift.windows import Span
from coeval_parity.quality.rules import AHEAD
from coeval_parity.served import served_path
from coeval_parity.served_features import RAW, ServedFiles, expander
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.arrow_events import Facts, not_erased
from coeval_pipelines.offline.arrow_files import delta_files
from coeval_pipelines.offline.columns import quoted, sql_type
from coeval_pipelines.offline.tables import ENVELOPE, ORDER, ddl, payload, read_log, table_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def arrow_batch(settings: Settings, manifest: Manifest, source: EventSource, batch: int) -> pa.Table:
    """The events of a batch that were not erased, with how far each was declared ahead.

    Raises:
        NeedsSparkError: only Spark reads the log.
    """
    files = delta_files(table_path(settings, manifest, "log", source.name))
    fields = {field.name: field for field in payload(source)}
    rows = files.read([*ENVELOPE, *(name for name in fields if name in files.types)], ds.field("batch") == batch)
    for name in fields.keys() - files.types.keys():  # The catalog gained it, and nothing was ingested since.
        rows = rows.append_column(name, pa.nulls(rows.num_rows, arrow_type(fields[name].type)))
    event_ts, available_at, partition, offset = (rows.column(name).to_numpy() for name in ORDER)
    erasures = concerning(source, ErasureTable(settings, manifest.tenant).erasures())
    kept = not_erased(Facts(event_ts, available_at, partition, offset, rows), source, erasures).columns
    return kept.append_column(AHEAD, pc.subtract(kept.column("declared_ts"), kept.column("available_at")))


def spark_batch(
    spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource, batch: int
) -> DataFrame:
    """The same as a Spark frame."""
    log = read_log(spark, settings, manifest, source).where(f"batch = {batch}")
    return log.selectExpr("*", f"declared_ts - available_at AS `{AHEAD}`")


def spark_table(
    spark: SparkSession, settings: Settings, manifest: Manifest, table: Table, span: Span | None
) -> DataFrame:
    """The rows of a table of features, or those in a span of time, as a Spark frame."""
    frame = _spark_rows(spark, settings, manifest, table)
    if span is None:
        return frame
    is_instant = pa.types.is_timestamp(table.files.types[table.time])
    start, end = (f"timestamp_micros({value})" if is_instant else str(value) for value in span)
    return frame.where(f"{quoted(table.time)} >= {start} AND {quoted(table.time)} < {end}")


def _spark_rows(spark: SparkSession, settings: Settings, manifest: Manifest, table: Table) -> DataFrame:
    from delta.tables import DeltaTable

    path = table.name
    if isinstance(table.files, ServedFiles):
        columns = table.files.columns
        kinds = {name: sql_type(field.type) for name, field in columns.fields.items()}
        raw = spark.read.format("delta").load(str(served_path(settings, manifest.tenant)))
        mine = raw.where(raw["service"] == columns.service).select(*RAW)
        return mine.mapInArrow(expander(columns), ddl(kinds))
    if path.startswith(TRAINING):
        path = str(table_path(settings, manifest, "training_sets", path.removeprefix(TRAINING)))
    kind = "delta" if DeltaTable.isDeltaTable(spark, path) else "parquet"
    return spark.read.format(kind).load(path)


def batch_columns(source: EventSource) -> list[str]:
    """The columns of a batch, those that are computed included."""
    return [*ENVELOPE, *(field.name for field in payload(source)), AHEAD]


def batch_rows(settings: Settings, manifest: Manifest, source: EventSource, batch: int) -> int:
    """How many events of a batch are in the log, erased or not."""
    files = delta_files(table_path(settings, manifest, "log", source.name))
    return int(files.data.count_rows(filter=ds.field("batch") == batch))


def to_pandas(table: pa.Table) -> Any:
    """As pandas, with whole numbers and truth values that stay such beside nulls, instants in UTC without a zone."""
    import pandas as pd

    plain = [
        pa.field(item.name, pa.timestamp("us")) if pa.types.is_timestamp(item.type) else item for item in table.schema
    ]
    kept = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    return table.cast(pa.schema(plain)).to_pandas(types_mapper=kept.get)
