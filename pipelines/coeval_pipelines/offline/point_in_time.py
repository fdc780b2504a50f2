"""The features of views for a spine, as they could have been known at each row's instant. It knows Spark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, RowView, View, WindowedView
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asof import row_features
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.erased import without_erased
from coeval_pipelines.offline.spine import ROW, StagedSpine, staged
from coeval_pipelines.offline.tables import read_batch_source, read_log
from coeval_pipelines.offline.windows import window_features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def point_in_time(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    view: View,
    spine: DataFrame,
    events: DataFrame | None = None,
    knowledge: str = "available",
) -> DataFrame:
    """The spine with the view's features as columns view__feature, exactly one row per spine row, kept in memory.

    `spine` needs the view's keys and `event_timestamp` (an instant, or BIGINT microseconds UTC). `events` replaces the
    source's log, e.g. by a part of it, to ask what would have been.

    Raises:
        UsageError: the spine lacks something.
    """
    with staged(spark, settings, spine, [view]) as asked:
        facts = source_events(spark, settings, manifest, view) if events is None else events
        (answers,) = view_features(manifest, [view], {view.source: facts}, asked, knowledge)
        columns = [quoted(name) for name in asked.columns]
        result = asked.frame.select(*columns, ROW).join(answers, ROW).drop(ROW)
        return result.localCheckpoint(eager=True)  # the staged spine goes


def source_events(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    view: View,
    versions: Mapping[str, int | None] | None = None,
    erased: int | None = None,
) -> DataFrame:
    """What a view is computed from: its source's log, or the rows of its batch source, without what was erased.

    `versions` pins logs by source, `erased` the version of the erasures (None: as they are now).
    """
    source = manifest.sources[view.source]
    if isinstance(source, BatchSource):
        erasures = ErasureTable(settings, manifest.tenant).erasures(erased)
        return without_erased(read_batch_source(spark, settings, source), source, erasures)
    return read_log(spark, settings, manifest, source, None, (versions or {}).get(source.name), erased)


def view_features(
    manifest: Manifest,
    views: Sequence[View],
    events: Mapping[str, DataFrame],
    spine: StagedSpine,
    knowledge: str = "available",
) -> list[DataFrame]:
    """What each of a few shuffles gives of the views: the spine's row numbers, and features named view__feature.

    `events` are what the views' sources hold, by source.
    """
    found = []
    for together in _together(views):
        rows = [view for view in together if isinstance(view, RowView)]
        windows = [view for view in together if isinstance(view, WindowedView)]
        if rows:
            found.append(row_features(manifest, rows, events, spine, knowledge))
        if windows:
            found.append(window_features(manifest, windows, events[windows[0].source], spine, knowledge))
    return found


def _together(views: Sequence[View]) -> list[list[View]]:
    """Views that are answered in one shuffle: of one key, that of the events themselves; windows of one source too."""
    groups: dict[tuple[object, ...], list[View]] = defaultdict(list)
    for view in views:
        computed = {item.field.name for item in view.columns}
        own = view.name if any(field.name in computed for field in view.key) else ""
        key = tuple((field.name, field.type) for field in view.key)
        groups[key, own, view.source if isinstance(view, WindowedView) else ""].append(view)
    return list(groups.values())
