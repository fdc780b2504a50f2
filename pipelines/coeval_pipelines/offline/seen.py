"""The events of a source as its views see them: what they select, and what they compute. It knows Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coeval.spec.dialects import render, render_condition
from coeval.spec.model import BatchSource, EventSource, View
from coeval_pipelines.offline.columns import logical_sql, quoted
from coeval_pipelines.offline.erased import REMOVED
from coeval_pipelines.offline.tables import physical_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, slots=True)
class Sight:
    """How one view sees a frame that several share: the condition of what it selects, and names of its own columns."""

    condition: str
    names: Mapping[str, str]

    def column(self, name: str) -> str:
        """What a column of the view is called in the frame."""
        return self.names.get(name, name)


def seen_by(view: View, source: EventSource | BatchSource, events: DataFrame) -> DataFrame:
    """Good events (or the rows of a batch source) that the view selects, its computed columns beside the others.

    What stands in the place of a removed event is kept wherever its key is known: the view may have selected it.
    """
    removed = f"{REMOVED} IS NOT NULL" if REMOVED in events.columns else "FALSE"
    if view.where:
        events = events.where(f"({_condition(view, source)}) OR {removed}")
    seen = events.selectExpr("*", *(f"{sql} AS {quoted(name)}" for name, sql in _computed(view, source).items()))
    known = " AND ".join(f"{quoted(field.name)} IS NOT NULL" for field in view.key)
    return seen.where(f"NOT ({removed}) OR ({known})") if REMOVED in events.columns else seen


def seen_together(
    views: Sequence[View], source: EventSource | BatchSource, events: DataFrame
) -> tuple[DataFrame, list[Sight]]:
    """What any of the views of one source selects, once, and how each of them sees it."""
    conditions = [f"COALESCE({_condition(view, source)}, FALSE)" if view.where else "TRUE" for view in views]
    sights, added = [], []
    for number, view in enumerate(views):
        computed = _computed(view, source)
        names = {name: f"__of{number}_{name}" if len(views) > 1 else name for name in computed}
        added += [f"{sql} AS {quoted(names[name])}" for name, sql in computed.items()]
        if view.where:
            added.append(f"{conditions[number]} AS __sees{number}")
        sights.append(Sight(f"__sees{number}" if view.where else "TRUE", names))
    if all(view.where for view in views):
        events = events.where(" OR ".join(conditions))
    return events.selectExpr("*", *added), sights


def _condition(view: View, source: EventSource | BatchSource) -> str:
    assert view.where is not None
    return render_condition(view.where, "spark", lambda name: physical_of(source.field(name)))


def _computed(view: View, source: EventSource | BatchSource) -> dict[str, str]:
    """The SQL of the logical values of the columns that the view computes."""
    return {
        item.field.name: logical_sql(
            item.field.type, render(item.expression, "spark", lambda name: physical_of(source.field(name)))
        )
        for item in view.columns
    }
