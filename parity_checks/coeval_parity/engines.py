"""Which engine recomputes the values of a parity run, and the log that it reads. Spark is started last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from coeval.errors import NeedsSparkError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval_parity.expected import Log
from coeval_parity.local_log import open_local_log, service_of
from coeval_parity.spark_log import open_spark_log
from coeval_pipelines.offline.choice import AUTO, LOCAL, choose
from coeval_pipelines.offline.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OpenLog = Callable[[bool], Log]
"""Opens the log as it is now; told whether the topics are to be read too."""


@contextmanager
def engine(
    settings: Settings,
    manifest: Manifest,
    views: Sequence[View],
    rows: int,
    wanted: str = AUTO,
    spark: SparkSession | None = None,
    say: Callable[[str], None] = lambda message: None,
    applied: Manifest | None = None,
) -> Iterator[OpenLog]:
    """What opens the logs of some views, for about so many rows to be computed.

    `wanted` is auto, local or spark; a `spark` session that is there already is used whatever the sizes are, unless
    "local" is wanted. `applied` is the manifest by which Spark reads topics into the log (default: `manifest`).

    Raises:
        NeedsSparkError: "local" is wanted, and cannot be.
        UsageError: `wanted` is no engine.
    """
    choice = choose(settings, service_of(manifest, views), rows, "spark" if spark and wanted == AUTO else wanted)
    say(choice.why)
    with ExitStack() as stack:
        session = spark

        def by_spark(ingest: bool) -> Log:
            nonlocal session
            session = session or stack.enter_context(spark_session(settings))
            return open_spark_log(session, settings, manifest, views, (applied or manifest) if ingest else None)

        def by_this_process(ingest: bool) -> Log:
            try:
                return open_local_log(settings, manifest, views, ingest=ingest)
            except NeedsSparkError as error:
                if wanted == LOCAL:
                    raise
                say(f"{error.reason} Spark reads it.")
                return by_spark(ingest)

        yield by_this_process if choice.engine == LOCAL else by_spark
