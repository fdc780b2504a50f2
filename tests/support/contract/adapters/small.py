"""The offline path without Spark: each view as a service of its own, over a Delta log, a Parquet file and erasures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from coeval.settings import Settings
from coeval.spec.model import FeatureService, ServiceView, View
from coeval.spec.records import Event
from coeval.spec.types import to_physical
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.offline.asked import Asked, Inputs
from coeval_pipelines.offline.columns import logical_array
from coeval_pipelines.offline.small import small_features
from coeval_pipelines.offline.tables import table_path
from tests.support.contract import catalog
from tests.support.contract.adapters import by_view
from tests.support.contract.cases import Case, good
from tests.support.contract.compare import Answers, everything
from tests.support.delta_log import write_log


@dataclass
class Small:
    """`coeval_pipelines.offline.small`. It sees all events, also those that are not visible at q."""

    name: str = "small"

    def takes(self, case: Case) -> bool:
        # Rows of a file have no offsets: what is alike in time and availability is told apart by what it says.
        times = {(event.at, event.available_at) for event in case.events}
        return not catalog.is_batch(catalog.VIEWS[case.view]) or len(times) == len(case.events)

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return everything(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        with TemporaryDirectory() as home:
            settings = Settings(home=Path(home))
            inputs = _write(settings, cases)
            found: list[Answers] = [{} for _ in cases]
            for name, places in by_view(cases).items():
                view = catalog.VIEWS[name]
                table = small_features(settings, _asked(view), _spine(view, cases, places), inputs)
                for place, row in zip(places, table.to_pylist(), strict=True):
                    values = {f.name: to_physical(f.type, row[f"{name}__{f.name}"]) for f in view.features}
                    found[place] = {feature: (value, None) for feature, value in values.items()}
            return found


def _write(settings: Settings, cases: Sequence[Case]) -> Inputs:
    """Everything that the cases say, in one log and one file."""
    manifest = catalog.manifest()
    streamed = [event for case in cases if not catalog.is_batch(catalog.VIEWS[case.view]) for event in good(case)]
    stated = [event for case in cases if catalog.is_batch(catalog.VIEWS[case.view]) for event in good(case)]
    write_log(table_path(settings, manifest, "log", catalog.EVENTS.name), catalog.EVENTS, streamed)
    facts = {f.name: logical_array(f.type, [event.values[f.name] for event in stated]) for f in catalog.FACTS.fields}
    pq.write_table(pa.table(facts), settings.home / catalog.FACTS.path)
    erasures = ErasureTable(settings, manifest.tenant)
    for erasure in {item for case in cases for item in case.erasures}:
        erasures.record(erasure, erasure.at, lambda: 0)
    return Inputs({catalog.EVENTS.name: 0, catalog.FACTS.name: None}, erasures.version)


def _asked(view: View) -> Asked:
    features = tuple(field.name for field in view.features)
    return Asked(catalog.manifest(), FeatureService("all", (ServiceView(view.name, view.version, features),)), ())


def _spine(view: View, cases: Sequence[Case], places: Sequence[int]) -> pa.Table:
    keys = {
        field.name: logical_array(field.type, [cases[place].key[index] for place in places])
        for index, field in enumerate(view.key)
    }
    return pa.table({**keys, "event_timestamp": pa.array([cases[place].q for place in places], pa.int64())})
