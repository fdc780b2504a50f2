"""The Spark session: one per process, with Delta and Kafka, UTC and quiet; leaves no JVM behind. It knows Spark.

Whether Spark runs in this process, on a cluster, or is called over the net is decided by the settings alone.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coeval.errors import EngineError, MissingExtraError
from coeval.settings import Settings
from coeval_pipelines.offline.scratch import scratch_name, sweep
from coeval_pipelines.offline.session_config import DATABRICKS, is_local, is_remote, remote_config, session_config

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_JVM_GRACE_SECONDS = 20.0
_JVM_ENDS_SECONDS = 2.0
_LASTING = ExitStack()
"""Ends the session of this process that nobody closes."""


@contextmanager
def spark_session(settings: Settings) -> Iterator[SparkSession]:
    """The session of this process. Inside another `spark_session` it is that one, and stays open.

    Raises:
        MissingExtraError: pyspark is not installed.
        EngineError: Java, the Java artefacts or Spark itself is missing or fails.
    """
    try:
        from pyspark import SparkContext
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingExtraError("Spark is not installed.", "pip install 'coeval[offline]'") from error

    if SparkContext._active_spark_context is not None:  # noqa: SLF001 - there is no public way to ask
        yield SparkSession.builder.getOrCreate()
        return
    start, stop = (_connect, _disconnect) if is_remote(settings.spark) else (_start, _stop)
    session = start(settings)
    try:
        with spark_errors(settings):
            yield session
    finally:
        stop(session)


def lasting_session(settings: Settings) -> SparkSession:
    """The session of this process, which is left open until the process ends: for a notebook that asks again.

    Raises:
        MissingExtraError, EngineError: as `spark_session`.
    """
    session = _LASTING.enter_context(spark_session(settings))
    atexit.register(_LASTING.close)
    return session


@contextmanager
def spark_errors(settings: Settings) -> Iterator[None]:
    """Say in one line what Spark fails at.

    Raises:
        EngineError: it failed, or its JVM is gone.
    """
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark.errors import PySparkException

    log = settings.home.resolve() / "spark" / "spark.log"
    try:
        yield
    except Py4JJavaError as error:
        raise EngineError(f"Spark failed: {_first_line(error)}", f"Read {log}") from error
    except (PySparkException, Py4JError, ConnectionError) as error:
        if not isinstance(error, PySparkException) and _jvm_is_gone():
            raise EngineError(
                "Spark's JVM has ended: it was killed, or ran out of memory.", f"Run it again; {log} may say why."
            ) from error
        if isinstance(error, ConnectionError):
            raise
        raise EngineError(f"Spark failed: {_first_line(error)}", f"Read {log}") from error


def _jvm_is_gone() -> bool:
    """Whether the JVM of this process has ended. Its connections end a moment before it does."""
    from pyspark import SparkContext

    process: subprocess.Popen[bytes] | None = getattr(SparkContext._gateway, "proc", None)  # noqa: SLF001
    if process is None:
        return False
    try:
        process.wait(_JVM_ENDS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _first_line(error: Exception) -> str:
    """What went wrong, in one line: of a Python worker's traceback the last error, else how the message begins."""
    text = str(getattr(error, "_desc", "") or getattr(error, "_message", "") or type(error).__name__)
    raised = [line for line in text.splitlines() if re.match(r"(?!org\.|java\.)[\w.]*(Error|Exception): ", line)]
    return (raised[-1] if raised else text.strip().splitlines()[0])[:300]


def _start(settings: Settings) -> SparkSession:
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    if is_local(settings.spark):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # The properties of those names are read by spark-submit only.
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["PYSPARK_PYTHON"] = settings.spark.python or sys.executable
    config = {"spark.app.name": "coeval", "spark.master": settings.spark.master, **session_config(settings)}
    conf = SparkConf(loadDefaults=False).setAll(list(config.items()))
    log = settings.home.resolve() / "spark" / "spark.log"
    try:
        # We launch the JVM ourselves to keep what it prints off the user's terminal.
        with log.open("ab") as stderr:
            gateway: Any = launch_gateway(conf, popen_kwargs={"stderr": stderr})
        SparkContext._ensure_initialized(gateway=gateway)  # noqa: SLF001
        return SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        reason = f"Spark does not start on {settings.spark.master}: {_first_line(error)}."
        raise EngineError(reason, f"Check that Java 17 runs (java -version), and read {log}") from error


def _connect(settings: Settings) -> SparkSession:
    """A session of a cluster that is called over the net, with those of our properties that can be set there."""
    from pyspark.errors import PySparkException

    try:
        session = _remote_builder(settings.spark.master).getOrCreate()
        for name, value in remote_config(settings).items():
            session.conf.set(name, value)
    except PySparkException as error:
        reason = f"{settings.spark.master} does not answer: {_first_line(error)}."
        raise EngineError(reason, "Check COEVAL_SPARK__MASTER, and what it takes to be let in there.") from error
    return session


def _remote_builder(master: str) -> Any:
    try:
        if master == DATABRICKS:
            return import_module("databricks.connect").DatabricksSession.builder
        import pyspark.sql.connect.session  # noqa: F401 - whether it is there
        from pyspark.sql import SparkSession

        return SparkSession.builder.remote(master)
    except ImportError as error:
        package = "databricks-connect" if master == DATABRICKS else "'pyspark[connect]==4.1.1'"
        raise MissingExtraError(f"What calls {master} is not installed: {error}.", f"pip install {package}") from error


def _disconnect(session: SparkSession) -> None:
    session.stop()


def _stop(session: SparkSession) -> None:
    """Stop the session and the JVM below it, so that a later one in this process starts anew."""
    from py4j.protocol import Py4JError
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway  # noqa: SLF001
    try:
        session.stop()
    except (Py4JError, ConnectionError):
        _forget(session)
    if gateway is None:
        return
    with suppress(Py4JError, ConnectionError):
        gateway.shutdown()
    SparkContext._gateway = None  # noqa: SLF001
    SparkContext._jvm = None  # noqa: SLF001
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    if process is not None:
        _end(process)


def _forget(session: SparkSession) -> None:
    """Let go of a session whose JVM is gone, and can stop nothing any more."""
    from pyspark.sql import SparkSession

    session.sparkContext._jsc = None  # noqa: SLF001
    session.sparkContext.stop()
    SparkSession._instantiatedSession = None  # noqa: SLF001
    SparkSession._activeSession = None  # noqa: SLF001


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
    """Where Spark may keep an intermediate table: where the tables are, which every executor reaches."""
    directory = settings.table_root / "_scratch"
    directory.mkdir(parents=True, exist_ok=True)
    sweep(directory)
    return directory / scratch_name()
