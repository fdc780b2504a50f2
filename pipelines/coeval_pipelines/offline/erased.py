"""Events without what was erased: one join, wherever the offline engine reads events. It knows Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from coeval.spec.erasure import Erasure, subject_field
from coeval.spec.model import BatchSource, EventSource
from coeval.spec.types import Kind, Physical
from coeval_pipelines.offline.columns import physical_sql, quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ERASED = "__erased"
"""Of a marked frame: whether the event does not exist any more."""
REMOVED = "__removed"
"""Of what stands in the place of a removed event: the columns by whose subjects it was erased; null in an event."""


def without_erased(events: DataFrame, source: EventSource | BatchSource, erasures: Iterable[Erasure]) -> DataFrame:
    """The events of a source that were not erased."""
    marked = marked_erased(events, source, erasures)
    return events if marked is events else marked.where(f"NOT {ERASED}").drop(ERASED)


def marked_erased(events: DataFrame, source: EventSource | BatchSource, erasures: Iterable[Erasure]) -> DataFrame:
    """The events of a source with the column `__erased`; the frame itself where no erasure concerns the source."""
    from pyspark.sql import functions as F

    conditions: list[str] = []
    for number, (column, limits) in enumerate(limits_of(source, erasures).items()):
        field = subject_field(source, column)
        assert field is not None
        kind = "STRING" if field.type.kind is Kind.STRING else "BIGINT"
        subject, until = f"__subject{number}", f"__until{number}"
        table = events.sparkSession.createDataFrame(list(limits.items()), f"{subject} {kind}, {until} BIGINT")
        same = F.expr(physical_sql(field, quoted(field.name))) == F.col(subject)
        events = events.join(F.broadcast(table), same, "left").drop(subject)
        conditions.append(f"COALESCE(available_at <= {until}, FALSE)")
        if REMOVED in events.columns:
            conditions.append(f"COALESCE(ARRAY_CONTAINS({REMOVED}, '{column}'), FALSE)")
    if not conditions:
        return events
    marked = events.withColumn(ERASED, F.expr(" OR ".join(conditions)))
    return marked.drop(*(name for name in marked.columns if name.startswith("__until")))


def limits_of(source: EventSource | BatchSource, erasures: Iterable[Erasure]) -> Mapping[str, Mapping[Physical, int]]:
    """By column of the source, the latest instant of each subject's erasures (microseconds UTC)."""
    found: dict[str, dict[Physical, int]] = {}
    for item in erasures:
        if subject_field(source, item.column):
            limits = found.setdefault(item.column, {})
            limits[item.value] = max(item.at, limits.get(item.value, item.at))
    return found
