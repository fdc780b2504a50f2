"""The features of a list for a spine, as one Arrow table, for callers who keep no training set. It knows Spark.

The other rooms reach it by its entry point, `historical`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coeval.client import read_manifest
from coeval.errors import UsageError
from coeval.settings import Settings
from coeval.spec.model import BatchSource
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.service_features import service_features
from coeval_pipelines.offline.session import lasting_session, spark_errors
from coeval_pipelines.offline.spine import read_spine, staged
from coeval_pipelines.offline.tables import latest_version, table_path

if TYPE_CHECKING:
    import pyarrow as pa

_ORDER = "__order"


def historical_features(settings: Settings, names: Sequence[str], spine: object) -> pa.Table:
    """The spine's columns and rows in their order, then `view__feature` for each name (or `view:feature`) in theirs.

    `spine` is what a training set takes: a pandas or Spark DataFrame, a path, or a SELECT, with the keys, the
    request-time inputs and `event_timestamp`. Values are those that were visible at its instant, by the applied
    manifest. The Spark session that this takes stays open until the process ends.

    Raises:
        UnknownFeatureError: there is no feature of a name.
        UsageError: the spine lacks something, or has a column that is named as a feature.
        EngineError: Spark fails.
    """
    from pyspark.sql import functions as F

    manifest = read_manifest(settings.manifest_path)
    asked = Asked.of_features(manifest, names)
    spark = lasting_session(settings)
    with spark_errors(settings):
        frame = read_spine(spark, spine)
        taken = sorted({*frame.columns} & {*asked.outputs, *asked.stored})
        if taken:
            raise UsageError(f"The spine already has columns named {', '.join(taken)}.", "Rename them.")
        numbered = frame.withColumn(_ORDER, F.monotonically_increasing_id())
        inputs = Inputs(_log_versions(settings, asked), ErasureTable(settings, manifest.tenant).version)
        with staged(spark, settings, numbered, asked.views, asked.request) as rows:
            found = service_features(spark, settings, asked, rows, inputs, "available").toArrow()
    wanted = [name.replace(":", "__", 1) for name in names]
    return found.sort_by(_ORDER).select([*frame.columns, *dict.fromkeys(wanted)])


def _log_versions(settings: Settings, asked: Asked) -> dict[str, int | None]:
    """The newest version of each log that is read, so that every view sees the same one."""
    manifest = asked.manifest
    return {
        name: None
        if isinstance(manifest.sources[name], BatchSource)
        else latest_version(table_path(settings, manifest, "log", name))
        for name in asked.sources
    }
