"""Row views over a spine: the latest visible row, by one window function over events and spine. It knows Spark.

An event enters at the instant from which it is visible, and the greatest in the total order so far is the answer: exact
however late it came, because no event is available before it happened. All views of one key share one shuffle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from coeval.spec.manifest import Manifest
from coeval.spec.model import FeatureRef, RowView
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.seen import Sight, seen_together
from coeval_pipelines.offline.spine import ROW, Q, StagedSpine
from coeval_pipelines.offline.tables import ORDER, logical_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BATCH, _SPINE, _STREAM = 0, 1, 2
"""What comes first of equal instants: a spine row sees a batch row of its own instant, and no event of a stream."""


def row_features(
    manifest: Manifest,
    views: Sequence[RowView],
    events: Mapping[str, DataFrame],
    spine: StagedSpine,
    knowledge: str = "available",
) -> DataFrame:
    """One row per spine row: its number and the features of views that have one key, named view__feature.

    `events` are what the views' sources hold, by source. Streams are strict (available_at < q), batch views inclusive
    (event_ts <= q and available_at <= q).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    known_at = "GREATEST(event_ts, available_at)" if knowledge == "available" else "event_ts"
    keys = [quoted(field.name) for field in views[0].key]
    latest = {view.name: f"__latest{number}" for number, view in enumerate(views)}
    facts = []
    for source in dict.fromkeys(view.source for view in views):
        mine = [view for view in views if view.source == source]
        frame, sights = seen_together(mine, manifest.sources[source], events[source])
        facts.append(
            frame.where(" AND ".join(f"{key} IS NOT NULL" for key in keys))
            .where(f"{known_at} <= {spine.latest}")
            .selectExpr(
                *keys,
                f"{known_at} AS __at",
                f"{_STREAM if mine[0].stream else _BATCH} AS __tag",
                *(f"{_content(view, sight)} AS {latest[view.name]}" for view, sight in zip(mine, sights, strict=True)),
            )
        )
    asked = spine.keyed(views[0].key).selectExpr(*keys, f"{Q} AS __at", f"{_SPINE} AS __tag", ROW)
    both = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), facts, asked)
    so_far = (
        Window.partitionBy(*keys).orderBy("__at", "__tag").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    answered = both.select("__at", ROW, *(F.max(name).over(so_far).alias(name) for name in latest.values()))
    columns = [column for view in views for column in _features(view, latest[view.name])]
    return answered.where(f"{ROW} IS NOT NULL").selectExpr(ROW, *columns)


def _content(view: RowView, sight: Sight) -> str:
    """What is kept of an event, in the total order; null where the view does not see it."""
    order = [f"{quoted(name)} AS o{number}" for number, name in enumerate(ORDER)]
    values = [
        f"{quoted(sight.column(field.name)) if field.name in sight.names else logical_of(field)} AS f{number}"
        for number, field in enumerate(view.features)
    ]
    content = f"STRUCT({', '.join([*order, *values])})"
    return content if sight.condition == "TRUE" else f"IF({sight.condition}, {content}, NULL)"


def _features(view: RowView, latest: str) -> list[str]:
    alive = f"{latest}.o0 >= __at - {view.ttl}" if view.ttl else "TRUE"
    return [
        f"IF({alive}, {latest}.f{number}, NULL) AS {quoted(FeatureRef(view.name, field.name).full_name)}"
        for number, field in enumerate(view.features)
    ]
