"""Every Spark property that we set, for each kind of master, and the user's own over them. It knows the file system."""

from __future__ import annotations

import os
from importlib.resources import files

from coeval.errors import EngineError
from coeval.settings import Settings, SparkSettings

DATABRICKS = "databricks"
"""The master that stands for Databricks Connect, or for the session that a Databricks job finds."""

_VALUES = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Any instant that an event may carry is written as it is, also before the calendar's reform.
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
}
"""What values depend on, on whatever runs them."""


def is_remote(spark: SparkSettings) -> bool:
    """Whether the driver is elsewhere, and called over the net."""
    return spark.master == DATABRICKS or spark.master.startswith("sc://")


def is_local(spark: SparkSettings) -> bool:
    """Whether driver and executors are one process on this machine."""
    return spark.master.startswith("local")


def remote_config(settings: Settings) -> dict[str, str]:
    """The properties that can be set in a session which somebody else started."""
    tuned = {"spark.sql.shuffle.partitions": str(settings.spark.shuffle_partitions)}
    return {**_VALUES, **tuned, **settings.spark.conf}


def session_config(settings: Settings) -> dict[str, str]:
    """The properties of a session that this process is the driver of.

    Raises:
        EngineError: the Java artefacts are not in the cache.
    """
    home = settings.home.resolve() / "spark"
    home.mkdir(parents=True, exist_ok=True)
    here = {"spark.local.dir": str(home / "scratch")} if is_local(settings.spark) else {}
    return {
        **_VALUES,
        **_jars(settings),
        **_places(settings.spark),
        **here,
        "spark.driver.memory": settings.spark.driver_memory,
        "spark.driver.extraJavaOptions": " ".join(_java_options(settings)),
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # The default plans 50 tasks for each snapshot of a table's log.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.shuffle.partitions": str(settings.spark.shuffle_partitions),
        "spark.default.parallelism": str(settings.spark.shuffle_partitions),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **settings.spark.conf,
    }


def _places(spark: SparkSettings) -> dict[str, str]:
    """Where this process listens to its executors (to nobody else, where they are within it), and their time zone."""
    if is_local(spark):
        return {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    executors = {"spark.executor.extraJavaOptions": "-Duser.timezone=UTC"}
    return executors | ({"spark.driver.host": spark.driver_host} if spark.driver_host else {})


def _java_options(settings: Settings) -> tuple[str, ...]:
    log4j = files("coeval_pipelines.offline").joinpath("log4j2.properties")
    home = settings.home.resolve() / "spark"
    options = (f"-Dlog4j2.configurationFile=file:{log4j}", f"-Dderby.system.home={home}", "-Duser.timezone=UTC")
    if not is_local(settings.spark):
        return options
    # A local session is short: the optimising compiler costs a third of its CPU and never pays it back.
    # That level also shrinks the code cache, which many small queries then fill.
    return (*options, "-XX:+UseParallelGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=240m")


def _jars(settings: Settings) -> dict[str, str]:
    """Delta and Kafka: on the class path of this process, or shipped to the executors of a cluster without them."""
    if not is_local(settings.spark) and not settings.spark.ship_jars:
        return {}
    directory = settings.jars / "spark"
    jars = sorted(str(path) for path in directory.glob("*.jar"))
    if not jars:
        raise EngineError(f"The Java artefacts of Spark are not in {directory}.", "Fetch them: coeval up")
    if is_local(settings.spark):
        return {"spark.driver.extraClassPath": os.pathsep.join(jars)}
    return {"spark.jars": ",".join(jars)}
