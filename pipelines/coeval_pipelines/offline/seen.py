"""The events of a source as a view sees them: what it selects, with the columns that it computes. It knows Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coeval.spec.dialects import render, render_condition
from coeval.spec.model import BatchSource, EventSource, View
from coeval_pipelines.offline.columns import logical_sql, quoted
from coeval_pipelines.offline.tables import physical_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def seen_by(view: View, source: EventSource | BatchSource, events: DataFrame) -> DataFrame:
    """Good events (or the rows of a batch source) that the view selects, its computed columns beside the others."""

    def physical(name: str) -> str:
        return physical_of(source.field(name))

    if view.where:
        events = events.where(render_condition(view.where, "spark", physical))
    computed = (
        f"{logical_sql(item.field.type, render(item.expression, 'spark', physical))} AS {quoted(item.field.name)}"
        for item in view.columns
    )
    return events.selectExpr("*", *computed)
