"""What the online store should hold of a view, computed from the log: final tiles per granularity, latest rows.

It knows Spark. The components' own SQL aggregates, over physical values, as the stream does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.aggregations.ops import OrderColumns
from coeval.aggregations.tiles import Granularity
from coeval.spec.keys import key_sql
from coeval.spec.model import EventSource, RowView, View, WindowedView
from coeval_pipelines.offline.columns import physical_sql, quoted
from coeval_pipelines.offline.erased import ERASED
from coeval_pipelines.offline.tables import ORDER, physical_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = "__key"
_ORDER = OrderColumns("event_ts", "available_at", "`partition`", "`offset`")


def batch_tiles(
    view: WindowedView, source: EventSource, granularity: Granularity, events: DataFrame, cut: int
) -> DataFrame:
    """The tiles of a granularity that are final at the cut and still within its ring, of what was available before it.

    Columns: __key (encoded), tile, events, newest_event_ts, newest_available_at, then one per component. A function of
    the log up to the cut alone, so that a load can be repeated, and explained. Where `events` are marked as erased or
    not, a tile whose every event was erased is there, and empty: it replaces what the store may hold of it.
    """
    from pyspark.sql import functions as F

    hop = granularity.hop
    first = cut // hop - granularity.slots + 1
    last = granularity.final_before(cut, source.allowed_lateness)
    inside = events.where(f"event_ts >= {first * hop} AND event_ts < {last * hop} AND available_at < {cut}")
    used = sorted({component.column for component in granularity.components})
    counts = f"NOT {ERASED}" if ERASED in events.columns else "TRUE"
    physical = inside.selectExpr(
        f"{encoded_key(view)} AS {KEY}",
        f"(event_ts - PMOD(event_ts, {hop}L)) DIV {hop}L AS tile",
        *_ORDER,
        f"{counts} AS __counts",
        *(f"IF({counts}, {physical_of(source.field(name))}, NULL) AS {quoted('value_' + name)}" for name in used),
    )
    states = [
        F.expr(component.sql(quoted("value_" + component.column), _ORDER)).alias(component.name)
        for component in granularity.components
    ]
    return physical.groupBy(KEY, "tile").agg(
        F.count_if("__counts").alias("events"),
        F.expr("COALESCE(MAX(IF(__counts, event_ts, NULL)), 0L)").alias("newest_event_ts"),
        F.expr("COALESCE(MAX(IF(__counts, available_at, NULL)), 0L)").alias("newest_available_at"),
        *states,
    )


def latest_rows(view: RowView, events: DataFrame, as_of: int) -> DataFrame:
    """The latest row of each key that is visible at `as_of`: __key (encoded), the total order, physical values."""
    from pyspark.sql import functions as F

    values = [f"{physical_of(field)} AS v{index}" for index, field in enumerate(view.features)]
    latest = f"MAX(STRUCT({', '.join(map(quoted, ORDER))}, {', '.join(values)}))"
    found = (
        events.where(f"{_present(view)} AND {_visible(view, as_of)}")
        .withColumn(KEY, F.expr(encoded_key(view)))
        .groupBy(KEY)
        .agg(F.expr(latest).alias("latest"))
    )
    return found.selectExpr(
        KEY,
        *(f"latest.{quoted(name)}" for name in ORDER),
        *(f"latest.v{index} AS {quoted('value_' + field.name)}" for index, field in enumerate(view.features)),
    )


def overtaken(view: RowView, events: DataFrame, as_of: int) -> DataFrame:
    """Of events that are marked as erased or not, the keys whose newest erased row is newer than what is left.

    Columns: __key (encoded), and when the erased row happened: event_ts.
    """
    from pyspark.sql import functions as F

    order = f"STRUCT({', '.join(map(quoted, ORDER))})"
    newest = events.where(_present(view)).withColumn(KEY, F.expr(encoded_key(view))).groupBy(KEY)
    found = newest.agg(
        F.expr(f"MAX(IF({ERASED}, {order}, NULL))").alias("erased"),
        F.expr(f"MAX(IF(NOT {ERASED} AND {_visible(view, as_of)}, {order}, NULL))").alias("latest"),
    )
    return found.where("erased IS NOT NULL AND (latest IS NULL OR erased > latest)").select(KEY, "erased.event_ts")


def _present(view: View) -> str:
    return " AND ".join(f"{quoted(field.name)} IS NOT NULL" for field in view.key)


def _visible(view: RowView, as_of: int) -> str:
    limit = "available_at < " if view.stream else "GREATEST(event_ts, available_at) <= "
    return f"{limit}{as_of}"


def encoded_key(view: View) -> str:
    """The SQL of the encoded entity key."""
    return key_sql(view.key, lambda field: physical_sql(field, quoted(field.name)))
