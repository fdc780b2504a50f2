"""Every feature of a service for a spine: its views, joined by row, then what is derived of them. It knows Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa

from coeval.derived import run_derived
from coeval.settings import Settings
from coeval.spec.model import DerivedView, Field
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.columns import derived_input, derived_output, quoted, sql_type
from coeval_pipelines.offline.point_in_time import source_events, view_features
from coeval_pipelines.offline.retention import check_begins
from coeval_pipelines.offline.spine import ROW, StagedSpine
from coeval_pipelines.offline.tables import ddl
from coeval_pipelines.quarantine import check_quarantine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def service_features(
    spark: SparkSession, settings: Settings, asked: Asked, spine: StagedSpine, inputs: Inputs, knowledge: str
) -> DataFrame:
    """The spine's columns and rows, then view__feature in the service's order, derived features too.

    Raises:
        UsageError: the spine asks for values that would need events that were let go.
        CheckFailedError: a batch of a log is quarantined.
    """
    check_quarantine(settings, asked.manifest.tenant, asked.views)
    if spine.rows:
        check_begins(settings, asked.manifest, asked.views, spine.earliest, inputs.logs)
    events = {
        view.source: source_events(spark, settings, asked.manifest, view, inputs.logs, inputs.erasures)
        for view in asked.views
    }
    answers = view_features(asked.manifest, asked.views, events, spine, knowledge)
    columns = [quoted(name) for name in spine.columns]
    joined = reduce(lambda left, right: left.join(right, ROW), answers, spine.frame.select(ROW, *columns))
    frame = joined.select(*columns, *map(quoted, asked.stored))
    for view in asked.derived:
        frame = with_derived(frame, view)
    return frame.select(*columns, *map(quoted, asked.outputs))


def with_derived(frame: DataFrame, view: DerivedView) -> DataFrame:
    """Add the features of a derived view, computed by the function that also serves them."""
    outputs = {f"{view.name}__{field.name}": field for field in view.features}
    kinds = dict(frame.dtypes) | {name: sql_type(f.type) for name, f in outputs.items()}
    return frame.mapInArrow(_derive(view, outputs), ddl(kinds))


def _derive(
    view: DerivedView, outputs: Mapping[str, Field]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    inputs = [*(ref.full_name for ref in view.inputs), *(field.name for field in view.request)]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            computed = run_derived(view, {name: derived_input(batch.column(name)) for name in inputs})
            added = [derived_output(field.type, computed[field.name]) for field in outputs.values()]
            yield pa.RecordBatch.from_arrays([*batch.columns, *added], [*batch.schema.names, *outputs])

    return run
