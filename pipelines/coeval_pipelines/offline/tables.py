"""The Delta tables: where each is, its columns, idempotent appends, pinned reads. It knows Spark and Delta."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from coeval.errors import CatalogError, UsageError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, Field
from coeval.spec.records import Reason
from coeval.spec.types import Kind
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.columns import logical_sql, physical_sql, quoted, sql_type
from coeval_pipelines.offline.erased import REMOVED, without_erased

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ENVELOPE = {
    "event_id": "STRING",
    "event_ts": "BIGINT",
    "available_at": "BIGINT",
    "topic": "STRING",
    "partition": "INT",
    "offset": "BIGINT",
    "declared_ts": "BIGINT",
    "batch": "BIGINT",
}
"""Of every event: its identity, its times (microseconds UTC), its position in the log (files: '', partition -1)."""

SOURCE_TABLES = {
    "log": "event_ts",
    "duplicates": "event_ts",
    "rejects": "available_at",
    "dropped": "event_ts",
    "removed": "event_ts",
}
"""The kinds of tables that a source has, and the time that says how old a row is (a reject: only when it came)."""

Keep: TypeAlias = "Callable[[DataFrame], DataFrame]"

FILE_PARTITION = -1
ORDER = ("event_ts", "available_at", "partition", "offset")
"""The total order of events."""


def payload(source: EventSource | BatchSource) -> tuple[Field, ...]:
    """The fields that are columns of their own: an event id or time that is named as the envelope names it is in there.

    Raises:
        CatalogError: another field has an envelope column's name.
    """
    known_as = {"event_ts": source.event_ts, "event_id": getattr(source, "event_id", "")}
    known_as["available_at"] = getattr(source, "available_at", "")
    for field in source.fields:
        if field.name in ENVELOPE and known_as.get(field.name) != field.name:
            raise CatalogError(
                f"The field {field.name} of {source.name} has the name of a column that every event log has.",
                "Rename the field.",
            )
    return tuple(field for field in source.fields if field.name not in ENVELOPE)


TIMES = {"event_ts": "declared_ts", "available_at": "available_at"}
"""Where the log keeps a time field that is named as the envelope names it: as declared, in microseconds."""


def physical_of(field: Field) -> str:
    """The Spark SQL of a field's physical value in a log."""
    return TIMES[field.name] if field.name in TIMES else physical_sql(field, quoted(field.name))


def logical_of(field: Field) -> str:
    """The Spark SQL of a field's logical value in a log."""
    return logical_sql(field.type, TIMES[field.name]) if field.name in TIMES else quoted(field.name)


def log_schema(source: EventSource | BatchSource) -> str:
    """The columns of an event log as DDL."""
    fields = {field.name: sql_type(field.type) for field in payload(source)}
    return ddl({**ENVELOPE, **fields})


def ddl(columns: Mapping[str, str]) -> str:
    """Columns by name as Spark's DDL."""
    return ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())


def table_path(settings: Settings, manifest: Manifest, kind: str, name: str) -> Path:
    """Where a table is: kind is log, rejects, duplicates, removed, dropped, quarantine, ingest or training_sets."""
    return settings.table_root / manifest.tenant / kind / name


def latest_version(path: Path) -> int | None:
    """The newest version of a table, by its log's file names; None where there is no table."""
    commits = [int(item.stem) for item in (path / "_delta_log").glob("*.json") if item.stem.isdigit()]
    return max(commits, default=None)


def append(frame: DataFrame, path: Path, application: str, version: int) -> None:
    """Append once: a second append of the same application and version does nothing.

    The table takes new columns, and decimals of more digits before the point; both are null or as they were in old
    rows.

    Raises:
        UsageError: a column of the table has another type.
    """
    is_new = latest_version(path) is None
    frame = frame if is_new else _fitted(frame, path)
    writer = frame.write.format("delta").mode("append").option("mergeSchema", "true")
    if is_new:
        # Training sets name versions: Delta forgets them after a month if it is not told otherwise.
        writer = writer.option("delta.logRetentionDuration", "interval 3650 days")
    writer.option("txnAppId", application).option("txnVersion", version).save(str(path))


def append_once_more(frame: DataFrame, path: Path, application: str) -> None:
    """Append under the application's next version, which a table that only its lock's holder writes to gives."""
    version = latest_version(path)
    append(frame, path, application, 1 if version is None else version + 2)


def _fitted(frame: DataFrame, path: Path) -> DataFrame:
    """The frame with types that the table has, or can be widened to; the table is told that it may be."""
    spark = frame.sparkSession
    there = dict(spark.read.format("delta").load(str(path)).dtypes)
    differing = {name: kind for name, kind in frame.dtypes if there.get(name, kind) != kind}
    for name, kind in differing.items():
        if not (widens(there[name], kind) or widens(kind, there[name])):
            raise UsageError(
                f"The table {path} has the column {name} as {there[name]}, not as {kind}.",
                "Declare what is new under a source name of its own, or move the table away and ingest anew.",
            )
    if any(widens(there[name], kind) for name, kind in differing.items()):
        spark.sql(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
    wider = {name: there[name] for name, kind in differing.items() if widens(kind, there[name])}
    return frame.selectExpr(
        *(f"CAST({quoted(n)} AS {wider[n]}) AS {quoted(n)}" if n in wider else quoted(n) for n in frame.columns)
    )


_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def widens(narrow: str, wide: str) -> bool:
    """Whether a decimal type of Spark has the scale and fewer digits than another."""
    one, other = _DECIMAL.fullmatch(narrow), _DECIMAL.fullmatch(wide)
    return bool(one and other) and one[2] == other[2] and int(one[1]) < int(other[1])  # type: ignore[index]


def read_table(spark: SparkSession, path: Path, schema: str, version: int | None = None) -> DataFrame:
    """A table with exactly these columns, absent ones null, decimals as wide; without rows where it does not exist.

    `version` pins the read, so that several reads of one run see the same table.
    """
    if latest_version(path) is None:
        return spark.createDataFrame([], schema)
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return _conform(reader.load(str(path)), schema)


FILE = "__file"
"""Of a physical read: the name of the file that a row stands in."""


def read_physical(spark: SparkSession, path: Path, schema: str) -> DataFrame:
    """Every row of every data file in a table's directory, also of those that no version names, with its `__file`."""
    columns = spark.read.format("delta").load(str(path)).schema
    files = spark.read.schema(columns).parquet(str(path)).selectExpr("*", f"_metadata.file_name AS {FILE}")
    return _conform(files, f"{schema}, {FILE} STRING")


def _conform(frame: DataFrame, schema: str) -> DataFrame:
    from pyspark.sql.types import StructType

    wanted = StructType.fromDDL(schema)
    assert isinstance(wanted, StructType)
    present = dict(frame.dtypes)

    def column(name: str) -> str:
        kind = wanted[name].dataType.simpleString()
        if name in present and not widens(present[name], kind):
            return quoted(name)
        return f"CAST({quoted(name) if name in present else 'NULL'} AS {kind}) AS {quoted(name)}"

    return frame.selectExpr(*map(column, wanted.fieldNames()))


def read_log(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    up_to: Mapping[int, int] | None = None,
    version: int | None = None,
    erased: int | None = None,
) -> DataFrame:
    """The good events of a source that were not erased. `up_to` keeps those below an offset by partition, and files.

    `version` pins the log, `erased` the version of the erasures (None: as they are now).
    """
    frame = read_kept_log(spark, settings, manifest, source, up_to, version)
    return without_erased(frame, source, ErasureTable(settings, manifest.tenant).erasures(erased))


def read_whole_log(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    up_to: Mapping[int, int] | None = None,
    version: int | None = None,
) -> DataFrame:
    """The good events of a source, the erased ones too, which are to be taken away from what was made of them.

    Of those that were removed from the log, what stands in their place: `read_removed`, with the column `__removed`.
    """
    kept = read_kept_log(spark, settings, manifest, source, up_to, version)
    if latest_version(table_path(settings, manifest, "removed", source.name)) is None:
        return kept
    removed = _reached(read_removed(spark, settings, manifest, source), up_to)
    return kept.unionByName(removed, allowMissingColumns=True)


def read_kept_log(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    source: EventSource,
    up_to: Mapping[int, int] | None = None,
    version: int | None = None,
) -> DataFrame:
    """The good events of a source that stand in its log, erased or not."""
    path = table_path(settings, manifest, "log", source.name)
    return _reached(read_table(spark, path, log_schema(source), version), up_to)


def _reached(events: DataFrame, up_to: Mapping[int, int] | None) -> DataFrame:
    from pyspark.sql import functions as F

    if up_to is None:
        return events
    reached = [(F.col("partition") == part) & (F.col("offset") < end) for part, end in up_to.items()]
    return events.where(reduce(lambda a, b: a | b, reached, F.col("partition") == FILE_PARTITION))


def removed_schema(source: EventSource) -> str:
    """What stands in the place of a removed event: the log's columns, and the columns by whose subjects it was erased.

    Its event id is a hash, and of its payload there are the entity keys of others than the erased subject.
    """
    return f"{log_schema(source)}, {REMOVED} ARRAY<STRING>"


def read_removed(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> DataFrame:
    """What stands in the place of the events that were removed from a log because they were erased."""
    return read_table(spark, table_path(settings, manifest, "removed", source.name), removed_schema(source))


def read_dropped(spark: SparkSession, settings: Settings, manifest: Manifest, source: EventSource) -> DataFrame:
    """The events that were taken out of a log because they break a rule of data quality."""
    return read_table(spark, table_path(settings, manifest, "dropped", source.name), log_schema(source))


def read_files(
    spark: SparkSession, settings: Settings, name: str, path: str, fields: Iterable[Field], file_format: str = "parquet"
) -> DataFrame:
    """The declared columns of Parquet files (or a Delta table), with their declared types.

    A relative path is relative to the state directory (COEVAL_HOME).

    Raises:
        UsageError: the files are not there, or a column is missing or of a type that may lose something.
    """
    from pyspark.errors import AnalysisException

    place = settings.data_path(path)
    try:
        frame = spark.read.format(file_format).load(place)
    except AnalysisException as error:
        raise unreadable(name, place, file_format) from error
    found = dict(frame.dtypes)
    return frame.selectExpr(*(_typed_column(name, field, found) for field in fields))


def unreadable(name: str, place: str, file_format: str) -> UsageError:
    """The error of files that are not there, or are something else."""
    return UsageError(f"The files of {name} cannot be read: {place}.", f"Are they {file_format} files?")


_WIDENING = {"BIGINT": ("tinyint", "smallint", "int", "bigint"), "DOUBLE": ("float", "double")}


def _typed_column(name: str, field: Field, found: Mapping[str, str]) -> str:
    check_typed(name, field, found)
    wanted = sql_type(field.type)
    # There is one zero: what is read must not say which one a file held.
    zero = " + 0D" if wanted == "DOUBLE" else ""
    return f"CAST({quoted(field.name)} AS {wanted}){zero} AS {quoted(field.name)}"


def check_typed(name: str, field: Field, found: Mapping[str, str]) -> None:
    """See to it that files with these columns (name to type) hold a field in a type that loses nothing.

    Raises:
        UsageError: they do not.
    """
    wanted, is_type = sql_type(field.type), found.get(field.name)
    if is_type is None:
        raise UsageError(
            f"The files of {name} have no column {field.name}; they have {', '.join(found)}.",
            f"Add {field.name} ({field.type}), or correct the source's schema.",
        )
    if is_type not in _WIDENING.get(wanted, (wanted.lower(),)) and not widens(is_type, wanted.lower()):
        hint = " An instant needs a time zone: write it as UTC." if is_type == "timestamp_ntz" else ""
        raise UsageError(
            f"{field.name} of {name} is declared {field.type}, but the files hold {is_type}.{hint}",
            "Write the files with the declared type, or correct the source's schema.",
        )


def read_batch_source(spark: SparkSession, settings: Settings, source: BatchSource) -> DataFrame:
    """The rows of a batch source with the envelope of events; ties are ordered by the fields as declared."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    frame = read_files(spark, settings, source.name, source.path, source.fields, source.format or "parquet")
    times = [source.event_ts, source.available_at or source.event_ts]
    known = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in times)
    valid = f"({typed_reason(source)} IS NULL AND {known})"
    refused = frame.where(f"NOT {valid}").count()
    warn_of_refused(source, refused)
    frame = frame.where(valid)
    # Only rows of one time are told apart by their ordinal, so it counts within that time.
    ties = Window.partitionBy(F.col(quoted(times[0]))).orderBy(*(F.col(quoted(field.name)) for field in source.fields))
    envelope = {
        "event_id": "''",
        "event_ts": f"UNIX_MICROS({quoted(times[0])})",
        "available_at": f"UNIX_MICROS({quoted(times[1])})",
        "topic": "''",
        "partition": f"{FILE_PARTITION}",
        "offset": "__ordinal",
        "declared_ts": f"UNIX_MICROS({quoted(times[0])})",
        "batch": "0L",
    }
    return frame.withColumn("__ordinal", F.row_number().over(ties) - 1).selectExpr(
        *(f"CAST({value} AS {ENVELOPE[name]}) {name}" for name, value in envelope.items()),
        *(quoted(field.name) for field in payload(source)),
    )


def warn_of_refused(source: BatchSource, rows: int) -> None:
    """Say how many rows of a batch source are no events."""
    if rows:
        import structlog  # takes a tenth of the time in which a spine is answered without Spark

        structlog.get_logger().warning(
            "rows of a batch source are left out: a required value is null, or a number not finite",
            source=source.name,
            rows=rows,
        )


def typed_reason(source: EventSource | BatchSource) -> str:
    """Why a row of typed columns is no event, as Spark SQL: NULL where it is one. Fields are asked in their order."""
    rules = [
        f"WHEN {quoted(field.name)} IS NULL THEN '{Reason.NULL_REQUIRED}'"
        for field in source.fields
        if not field.nullable
    ]
    rules += [
        f"WHEN ABS({quoted(field.name)}) IN (DOUBLE('NaN'), DOUBLE('Infinity')) THEN '{Reason.BAD_LITERAL}'"
        for field in source.fields
        if field.type.kind is Kind.FLOAT64
    ]
    return f"CASE {' '.join(rules)} END" if rules else "CAST(NULL AS STRING)"


def numbered(frame: DataFrame, order: list[str], keep: Keep) -> DataFrame:
    """Add `__ordinal`, the place of each row in that order, from 0: a sort in ranges, and the sizes of the ranges."""
    from pyspark.sql import functions as F

    ranged = frame.repartitionByRange(*map(F.col, order)).sortWithinPartitions(*map(F.col, order))
    ranged = ranged.withColumn("__part", F.spark_partition_id()).withColumn("__id", F.monotonically_increasing_id())
    ranged = keep(ranged)
    sizes = {row["__part"]: row["count"] for row in ranged.groupBy("__part").count().collect()}
    # The id's upper bits are the partition, its lower 33 the row's place in it.
    starts = {part: sum(size for other, size in sizes.items() if other < part) for part in sizes}
    pairs = ", ".join(f"{part}, {start}L" for part, start in starts.items()) or "0, 0L"
    return ranged.withColumn("__ordinal", F.expr(f"MAP({pairs})[__part] + (__id & {2**33 - 1}L)")).drop(
        "__part", "__id"
    )


@contextmanager
def keeping() -> Iterator[Keep]:
    """A function that keeps a frame in memory (or on local disk) until the context ends."""
    kept: list[DataFrame] = []

    def keep(frame: DataFrame) -> DataFrame:
        kept.append(frame.persist())
        return kept[-1]

    try:
        yield keep
    finally:
        for frame in kept:
            frame.unpersist()
