"""Row views over a spine: the latest visible row, by one window function over events and spine. It knows Spark.

An event enters at the instant from which it is visible, and the greatest in the total order so far is the answer: exact
however late it came, because no event is available before it happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.spec.model import FeatureRef, RowView
from coeval_pipelines.offline.columns import quoted
from coeval_pipelines.offline.spine import ROW, Q, StagedSpine
from coeval_pipelines.offline.tables import ORDER, logical_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def row_features(view: RowView, events: DataFrame, spine: StagedSpine, knowledge: str = "available") -> DataFrame:
    """One row per spine row: its number and the view's features, named view__feature.

    Streams are strict (available_at < q), batch views inclusive (event_ts <= q and available_at <= q).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    keys = [quoted(field.name) for field in view.key]
    known_at = "GREATEST(event_ts, available_at)" if knowledge == "available" else "event_ts"
    # Of equal instants the lower tag comes first: an event before the spine row sees it, one after does not.
    event_tag, spine_tag = (1, 0) if view.stream else (0, 1)
    content = ", ".join(f"{logical_of(field)} AS f{index}" for index, field in enumerate(view.features))
    not_null = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    facts = (
        events.where(not_null)
        .where(f"{known_at} <= {spine.latest}")
        .selectExpr(
            *keys,
            f"{known_at} AS __at",
            f"{event_tag} AS __tag",
            f"STRUCT({', '.join(map(quoted, ORDER))}, {content}) AS __latest",
            f"CAST(NULL AS BIGINT) AS {ROW}",
        )
    )
    asked = spine.keyed(view.key).selectExpr(*keys, f"{Q} AS __at", f"{spine_tag} AS __tag", ROW)
    so_far = (
        Window.partitionBy(*keys).orderBy("__at", "__tag").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    answered = (
        facts.unionByName(asked, allowMissingColumns=True)
        .withColumn("__latest", F.max("__latest").over(so_far))
        .where(f"{ROW} IS NOT NULL")
    )
    alive = f"__latest.event_ts >= __at - {view.ttl}" if view.ttl else "TRUE"
    return answered.selectExpr(
        ROW,
        *(
            f"IF({alive}, __latest.f{index}, NULL) AS {quoted(FeatureRef(view.name, field.name).full_name)}"
            for index, field in enumerate(view.features)
        ),
    )
