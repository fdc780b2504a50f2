"""The Spark session: one per process, with Delta and Kafka, UTC and quiet; leaves no JVM behind. It knows Spark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.errors import EngineError, MissingExtraError
from coeval.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_JVM_GRACE_SECONDS = 20.0


@contextmanager
def spark_session(settings: Settings) -> Iterator[SparkSession]:
    """The session of this process. Inside another `spark_session` it is that one, and stays open.

    Raises:
        MissingExtraError: pyspark is not installed.
        EngineError: Java, the Java artefacts or Spark itself is missing or fails.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("Spark is not installed.", "pip install 'coeval[offline]'") from error
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:  # noqa: SLF001 - there is no public way to ask
        yield SparkSession.builder.getOrCreate()
        return
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    session = _start(settings)
    try:
        yield session
    except (PySparkException, Py4JError) as error:
        raise EngineError(
            f"Spark failed: {_first_line(error)}", f"Read {settings.home.resolve() / 'spark' / 'spark.log'}"
        ) from error
    finally:
        _stop(session)


def _first_line(error: Exception) -> str:
    """What went wrong, in one line: of a Python worker's traceback the last error, else how the message begins."""
    text = str(getattr(error, "_desc", "") or getattr(error, "_message", "") or type(error).__name__)
    raised = [line for line in text.splitlines() if re.match(r"(?!org\.|java\.)[\w.]*(Error|Exception): ", line)]
    return (raised[-1] if raised else text.strip().splitlines()[0])[:300]


def _start(settings: Settings) -> SparkSession:
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # The property of that name is read by spark-submit only.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    config = {"spark.app.name": "coeval", "spark.master": settings.spark.master, **session_config(settings)}
    conf = SparkConf(loadDefaults=False).setAll(list(config.items()))
    log = settings.home.resolve() / "spark" / "spark.log"
    try:
        # We launch the JVM ourselves to keep what it prints off the user's terminal.
        with log.open("ab") as stderr:
            gateway: Any = launch_gateway(conf, popen_kwargs={"stderr": stderr})
        SparkContext._ensure_initialized(gateway=gateway)  # noqa: SLF001
        return SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkException, OSError) as error:
        raise EngineError(
            f"Spark does not start: {error}.", f"Check that Java 17 runs (java -version), and read {log}"
        ) from error


def session_config(settings: Settings) -> dict[str, str]:
    """Every Spark property that we set.

    Raises:
        EngineError: the Java artefacts are not in the cache.
    """
    home = settings.home.resolve() / "spark"
    home.mkdir(parents=True, exist_ok=True)
    log4j = files("coeval_pipelines.offline").joinpath("log4j2.properties")
    return {
        **_jars(settings),
        "spark.driver.memory": settings.spark.driver_memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": " ".join(
            (
                f"-Dlog4j2.configurationFile=file:{log4j}",
                f"-Dderby.system.home={home}",
                "-Duser.timezone=UTC",
                *_java_options(settings),
            )
        ),
        "spark.local.dir": str(home / "scratch"),
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # The default plans 50 tasks for each snapshot of a table's log.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.shuffle.partitions": str(settings.spark.shuffle_partitions),
        "spark.default.parallelism": str(settings.spark.shuffle_partitions),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        # Any instant that an event may carry is written as it is, also before the calendar's reform.
        "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    }


def _java_options(settings: Settings) -> tuple[str, ...]:
    # A local session is short: the optimising compiler costs a third of its CPU and never pays it back.
    local = settings.spark.master.startswith("local")
    # That level also shrinks the code cache, which many small queries then fill.
    options = ("-XX:+UseParallelGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=240m")
    return options if local else ()


def _jars(settings: Settings) -> dict[str, str]:
    directory = settings.jars / "spark"
    jars = sorted(str(path) for path in directory.glob("*.jar"))
    if not jars:
        raise EngineError(f"The Java artefacts of Spark are not in {directory}.", "Fetch them: coeval up")
    if settings.spark.master.startswith("local"):
        return {"spark.driver.extraClassPath": os.pathsep.join(jars)}
    return {"spark.jars": ",".join(jars)}


def _stop(session: SparkSession) -> None:
    """Stop the session and the JVM below it, so that a later one in this process starts anew."""
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway  # noqa: SLF001
    session.stop()
    if gateway is None:
        return
    gateway.shutdown()
    SparkContext._gateway = None  # noqa: SLF001
    SparkContext._jvm = None  # noqa: SLF001
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    if process is not None:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The JVM ends when its standard input does."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_JVM_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def scratch(settings: Settings) -> Path:
    """Where intermediate tables may be kept; under the home, so that they are on the same disk."""
    path = settings.home.resolve() / "spark" / "staging"
    path.mkdir(parents=True, exist_ok=True)
    return path
