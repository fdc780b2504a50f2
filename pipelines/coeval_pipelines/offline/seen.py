"""The events of a source as a view sees them: what it selects, with the columns that it computes. It knows Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from coeval.spec.dialects import render, render_condition
from coeval.spec.model import BatchSource, EventSource, View
from coeval_pipelines.offline.columns import logical_sql, physical_sql, quoted
from coeval_pipelines.offline.tables import ENVELOPE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def seen_by(view: View, source: EventSource | BatchSource, events: DataFrame) -> DataFrame:
    """Good events (or the rows of a batch source) that the view selects, its computed columns beside the others."""
    physical = _reader(source)
    if view.where:
        events = events.where(render_condition(view.where, "spark", physical))
    computed = (
        f"{logical_sql(item.field.type, render(item.expression, 'spark', physical))} AS {quoted(item.field.name)}"
        for item in view.columns
    )
    return events.selectExpr("*", *computed)


def _reader(source: EventSource | BatchSource) -> Callable[[str], str]:
    """How an expression reads a column, as a physical value: an envelope column of that name is one already."""

    def read(name: str) -> str:
        if name in ENVELOPE:
            return "declared_ts" if name == source.event_ts else quoted(name)
        return physical_sql(source.field(name), quoted(name))

    return read
