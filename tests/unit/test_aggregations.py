"""Laws of the aggregations: partial states are commutative monoids, and scalar and vector forms agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.aggregations.partial import Component, to_wide
from coeval.aggregations.tiles import tile_plan
from coeval.spec.model import Field, WindowedView
from coeval.spec.types import FLOAT64, INT64, STRING, DataType
from tests.support import catalog

COLUMNS = [Field("x", INT64), Field("x", DataType.parse("decimal(9,2)")), Field("x", DataType.parse("decimal(18,3)"))]
NAMES = sorted(AGGREGATIONS)


def _limit(column: Field) -> int:
    return 2**63 - 1 if column.type == INT64 else 10**column.type.precision - 1


def _state(component: Component, values: list[int]) -> int:
    total = component.op.identity
    for value in values:
        total = component.op.merge(total, component.op.lift(value))
    return total


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_merging_parts_gives_the_whole(name: str, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(COLUMNS))
    limit = _limit(column)
    parts = data.draw(st.lists(st.lists(st.integers(-limit, limit)), max_size=5))
    for component in AGGREGATIONS[name].components(column):
        states = [_state(component, part) for part in parts]
        merged = component.op.identity
        for state in data.draw(st.permutations(states)):
            merged = component.op.merge(merged, state)
        assert merged == _state(component, [value for part in parts for value in part])


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_the_vector_form_equals_the_scalar_form(name: str, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(COLUMNS))
    limit = _limit(column)
    tiles = data.draw(st.lists(st.lists(st.integers(-limit, limit), max_size=4), min_size=1, max_size=6))
    mask = np.array([data.draw(st.lists(st.booleans(), min_size=len(tiles), max_size=len(tiles)))])
    aggregation = AGGREGATIONS[name]
    chosen = [value for tile, seen in zip(tiles, mask[0], strict=True) if seen for value in tile]
    scalar = aggregation.finalise(
        len(chosen), {item.op.name: _state(item, chosen) for item in aggregation.components(column)}, column.type
    )
    reduced = {item.op.name: item.op.reduce(_stored(item, tiles), mask) for item in aggregation.components(column)}
    vector = aggregation.finalise_many(np.array([len(chosen)]), reduced, column.type)
    bound = {"int64": 2**63 - 1, "decimal": 10**38 - 1}[column.type.kind.value]
    if isinstance(scalar, int) and name == "sum" and not -bound - 1 <= scalar <= bound:
        assert vector.overflow[0] and vector.null[0]
    else:
        assert (
            None
            if vector.null[0]
            else vector.values[0].item()
            if hasattr(vector.values[0], "item")
            else vector.values[0]
        ) == scalar


def _stored(component: Component, tiles: list[list[int]]) -> np.ndarray:  # type: ignore[type-arg]
    states = np.array([_state(component, tile) for tile in tiles], dtype=object)
    return to_wide(states)[None, :] if component.wide else states.astype(np.int64)[None, :]


@pytest.mark.parametrize("function", ["count_distinct", "stddev", "median", "last_k"])
def test_what_is_not_supported_is_refused_by_name(function: str) -> None:
    with pytest.raises(ValueError, match=function):
        check_aggregation(function, Field("x", INT64))


@pytest.mark.parametrize("column", [Field("x", FLOAT64), Field("x", STRING)])
def test_sums_are_exact_or_refused(column: Field) -> None:
    with pytest.raises(ValueError, match="x"):
        check_aggregation("sum", column)


def test_components_are_shared_and_only_kept_where_needed() -> None:
    view = catalog.CARD_SPEND
    assert isinstance(view, WindowedView)
    plan = tile_plan(view, catalog.PAYMENTS)
    assert [item.name for item in plan.granularities] == ["24h", "1h", "5m"]
    assert [item.slots for item in plan.granularities] == [32, 170, 14]
    names = [item.name for item in plan.granularities[0].components]
    assert names == sorted(set(names))
    assert plan.bytes_per_key == sum(item.slots * item.dtype.itemsize for item in plan.granularities)
