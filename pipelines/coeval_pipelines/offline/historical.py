"""The features of a list for a spine, as one Arrow table, for callers who keep no training set.

The other rooms reach it by its entry point, `historical`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coeval.client import read_manifest
from coeval.settings import Settings
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.choice import AUTO
from coeval_pipelines.offline.training.engines import chosen, opened
from coeval_pipelines.offline.training.lineage import inputs_now

if TYPE_CHECKING:
    import pyarrow as pa


def historical_features(settings: Settings, names: Sequence[str], spine: object, engine: str = AUTO) -> pa.Table:
    """The spine's columns and rows in their order, then `view__feature` for each name (or `view:feature`) in theirs.

    `spine` is what a training set takes, in any of its forms, with the keys, the request-time inputs and
    `event_timestamp`. Values are those that were visible at its instant, by the applied manifest. The engine is chosen
    as for training sets; a Spark session that this takes stays open until the process ends.

    Raises:
        UnknownFeatureError: there is no feature of a name.
        UsageError: the spine lacks something, or has a column that is named as a feature.
        NeedsSparkError: "local" is asked for, and cannot be.
        EngineError: Spark fails.
    """
    manifest = read_manifest(settings.manifest_path)
    asked = Asked.of_features(manifest, names)
    with opened(settings, chosen(settings, asked, spine, engine)) as worker:
        rows = worker.read(spine, asked)
        found = worker.in_order(asked, rows, inputs_now(settings, asked), "available")
    wanted = dict.fromkeys(name.replace(":", "__", 1) for name in names)
    given = [name for name in found.column_names if name not in asked.outputs]
    return found.select([*given, *wanted])
