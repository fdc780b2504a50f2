"""The interval kernel alone: the windows of all cases of a view in one call, without Spark around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coeval.aggregations.partial import Finalised
from coeval.aggregations.tiles import tile_plan
from coeval.reference.oracle import is_erased, key_of, seen_by
from coeval.spec.model import WindowedView
from coeval.spec.records import Event
from coeval.spec.types import Kind, Physical
from coeval_pipelines.offline import kernel
from tests.support.contract import catalog
from tests.support.contract.adapters import by_view
from tests.support.contract.cases import Case, good
from tests.support.contract.compare import Answers, everything


class Kernel:
    """`coeval_pipelines.offline.kernel`."""

    name = "kernel"

    def takes(self, case: Case) -> bool:
        return isinstance(catalog.VIEWS[case.view], WindowedView)

    def counts(self, case: Case, event: Event, hop: int) -> bool:
        return everything(case, event, hop)

    def answers(self, cases: Sequence[Case]) -> list[Answers]:
        found: list[Answers] = [{} for _ in cases]
        for name, places in by_view(cases).items():
            view = catalog.VIEWS[name]
            assert isinstance(view, WindowedView)
            for place, answers in zip(places, _view(view, [cases[place] for place in places]), strict=True):
                found[place] = answers
        return found


def _view(view: WindowedView, cases: Sequence[Case]) -> list[Answers]:
    codes: dict[tuple[Physical, ...], int] = {}
    source = catalog.stream_of(view)
    events = seen_by(view, [event for case in cases for event in good(case) if not is_erased(event, case.erasures)])
    keys = [codes.setdefault(key_of(view, event), len(codes)) for event in events]
    asked = [codes.setdefault(case.key, len(codes)) for case in cases]
    columns = {item.column for granularity in tile_plan(view, source).granularities for item in granularity.components}
    values = kernel.window_values(
        view,
        source,
        kernel.Events(
            _ints(keys),
            _ints([event.event_ts for event in events]),
            _ints([event.available_at for event in events]),
            {name: _column(view, name, [event.values[name] for event in events]) for name in columns},
            (_ints([event.partition for event in events]), _ints([event.offset for event in events])),
        ),
        kernel.Spine(_ints(asked), _ints([case.q for case in cases])),
    )
    return [{name: (_value(column, row), None) for name, column in values.items()} for row in range(len(cases))]


def _column(view: WindowedView, name: str, values: Sequence[Any]) -> kernel.Values:
    """Physical values as the kernel takes them; a column that is only counted needs none."""
    kind = catalog.stream_of(view).field(name).type
    counted_only = all(item.function == "count" for item in view.aggregates if item.column == name)
    dtype = np.int64 if counted_only or not (kind.kind is Kind.FLOAT64 or kind.is_wide) else np.float64
    if kind.is_wide and not counted_only:
        dtype = object  # type: ignore[assignment]
    filled = [0 if value is None or counted_only else value for value in values]
    return kernel.Values(np.array(filled, dtype=dtype), np.array([value is not None for value in values], dtype=bool))


def _ints(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def _value(column: Finalised, row: int) -> Physical:
    if column.null[row] or column.overflow[row]:
        return None
    value = column.values[row]
    return value.item() if isinstance(value, np.generic) else value
