"""The offline path: point-in-time joins and windows over an events frame, one spine per view, all cases at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coeval.settings import Settings
from coeval.spec.model import FeatureRef, Field, View
from coeval.spec.records import Event
from coeval.spec.types import Physical, to_physical
from coeval_pipelines.offline import erased
from coeval_pipelines.offline import point_in_time as front
from tests.support.contract import catalog
from tests.support.contract.adapters import by_view
from tests.support.contract.cases import Case, good
from tests.support.contract.compare import Answers, everything
from tests.support.contract.frames import PLACE, event_frame, spine_frame

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass
class Spark:
    """`coeval_pipelines.offline.point_in_time`. It sees all events, also those that are not visible at q."""

    spark: SparkSession
    settings: Settings
    name: str = "spark"

    def takes(self, case: Case) -> bool:
        return True

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return everything(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        erasures = [item for case in cases for item in case.erasures]
        events = {
            source.name: erased.without_erased(self._events(source.name, cases), source, erasures)
            for source in (catalog.EVENTS, catalog.FACTS)
        }
        found: list[Answers] = [{} for _ in cases]
        for name, places in by_view(cases).items():
            view = catalog.VIEWS[name]
            spine = spine_frame(self.spark, name, cases, places)
            frame = front.point_in_time(self.spark, self.settings, catalog.manifest(), view, spine, events[view.source])
            for row in frame.toArrow().to_pylist():
                found[row[PLACE]] = {field.name: (_value(view, field, row), None) for field in view.features}
        return found

    def _events(self, source: str, cases: Sequence[Case]) -> DataFrame:
        mine = [case for case in cases if catalog.VIEWS[case.view].source == source]
        events = [event for case in mine for event in good(case)]
        declared = catalog.manifest().sources[source]
        return event_frame(self.spark, declared, events, [0] * len(events)).cache()


def _value(view: View, field: Field, row: Mapping[str, Any]) -> Physical:
    return to_physical(field.type, row[FeatureRef(view.name, field.name).full_name])
