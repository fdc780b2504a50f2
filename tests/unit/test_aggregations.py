"""Laws of the aggregations: partial states are commutative monoids, and scalar, vector and plain forms agree."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.aggregations.ops import SPLIT, Order, high_part, low_part
from coeval.aggregations.partial import COUNT_OP, Component, fold
from coeval.aggregations.states import Storage, quotients, to_wide
from coeval.aggregations.tiles import tile_plan
from coeval.reference.aggregate import BeyondTypeError, aggregate, agree, tolerance
from coeval.spec.model import Field, WindowedView
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType
from tests.support import catalog

TYPES = [
    *(INT64, FLOAT64, BOOL, TIMESTAMP, DATE),
    *(DataType.parse(f"decimal({size})") for size in ("4,1", "9,2", "18,3", "19,0", "38,6")),
]
CASES = [(name, kind) for name in sorted(AGGREGATIONS) for kind in TYPES]
"""Every function over every type; those that do not go together are refused."""


def _supported() -> list[tuple[str, DataType]]:
    found = []
    for name, kind in CASES:
        try:
            check_aggregation(name, Field("x", kind))
        except ValueError:
            continue
        found.append((name, kind))
    return found


SUPPORTED = _supported()
IDS = [f"{name}-{kind}" for name, kind in SUPPORTED]


def _values(kind: DataType) -> st.SearchStrategy[Any]:
    if kind == FLOAT64:
        return st.floats(-1e100, 1e100).map(lambda value: value + 0.0) | st.sampled_from([0.1, 1e16, -1e16, 1.0])
    if kind == BOOL:
        return st.integers(0, 1)
    low, high = kind.limits
    return st.integers(low, high) | st.sampled_from([low, high, 0, 1, -1]) | st.integers(-100, 100)


def _pairs(data: st.DataObject, kind: DataType, size: int) -> list[tuple[Order, Any]]:
    """Values with distinct places in the total order, in any order."""
    values = data.draw(st.lists(_values(kind), max_size=size))
    places = data.draw(st.permutations(range(len(values))))
    return [((place // 3, place // 2, 0, place), value) for place, value in zip(places, values, strict=True)]


@pytest.mark.parametrize(("name", "kind"), SUPPORTED, ids=IDS)
@given(data=st.data())
def test_merging_is_associative_commutative_and_has_an_identity(name: str, kind: DataType, data: st.DataObject) -> None:
    pairs = _pairs(data, kind, 12)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=4)))
    parts = [pairs[a:b] for a, b in zip([0, *cuts], [*cuts, len(pairs)], strict=True)]
    for component in AGGREGATIONS[name].components(Field("x", kind)):
        op: Any = component.op
        states = [_state(op, part) for part in parts]
        merged = op.initial
        for state in data.draw(st.permutations(states)):
            merged = op.merge(merged, state)
        whole = _state(op, pairs)
        bound = tolerance("variance" if "squares" in op.name else "sum", [value for _, value in pairs], kind)
        assert agree("sum", op.stored(merged), op.stored(whole), bound * max(len(pairs), 1))
        assert op.merge(whole, op.initial) == op.merge(op.initial, whole) == whole


def _state(op: Any, pairs: Sequence[tuple[Order, Any]]) -> Any:
    state = op.initial
    for order, value in pairs:
        state = op.add(state, value, order)
    return state


@pytest.mark.parametrize(("name", "kind"), SUPPORTED, ids=IDS)
@given(data=st.data())
def test_what_tiles_finalise_to_is_what_the_plain_form_says(name: str, kind: DataType, data: st.DataObject) -> None:
    pairs = sorted(_pairs(data, kind, 14))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=4)))
    tiles = [pairs[a:b] for a, b in zip([0, *cuts], [*cuts, len(pairs)], strict=True)]
    seen = data.draw(st.lists(st.booleans(), min_size=len(tiles), max_size=len(tiles)))
    kept = [pair for tile, is_seen in zip(tiles, seen, strict=True) if is_seen for pair in tile]
    column, aggregation = Field("x", kind), AGGREGATIONS[name]
    result = aggregation.result(kind)
    values = [value for _, value in kept]
    try:
        plain: Any = aggregate(name, values, len(kept), kind, result)
    except BeyondTypeError:
        plain = BeyondTypeError
    bound = tolerance(name, values, kind)
    vector = aggregation.finalise(np.array([len(kept)]), _reduced(aggregation.components(column), tiles, seen), kind)
    if plain is BeyondTypeError:
        assert vector.overflow[0] and vector.null[0]
        return
    assert vector.overflow[0] == False  # noqa: E712
    found = None if vector.null[0] else np.asarray(vector.values).tolist()[0]
    assert agree(name, found, plain, bound), (found, plain)


def _reduced(
    components: Sequence[Component], tiles: Sequence[Sequence[tuple[Order, Any]]], seen: Sequence[bool]
) -> dict[str, Any]:
    """As the online reader does it: stored slots in any place of a ring, masked by what holds a value."""
    places = list(range(len(tiles)))
    random.Random(len(tiles)).shuffle(places)
    index = np.array([places])
    mask = np.array([[seen[place] and bool(tiles[place]) for place in places]])
    return {
        item.op.name: item.op.reduce(_stored(item, [tiles[place] for place in places]), mask, index)
        for item in components
    }


def _stored(component: Component, tiles: Sequence[Sequence[tuple[Order, Any]]]) -> np.ndarray:  # type: ignore[type-arg]
    states = [fold(component, tile) for tile in tiles]
    if component.storage is Storage.WIDE:
        return to_wide(np.array(states, dtype=object))[None, :]
    return np.array(states, dtype=component.dtype)[None, :]


@given(st.integers(-(10**38) + 1, 10**38 - 1))
def test_a_split_total_loses_nothing(value: int) -> None:
    assert high_part(value) * SPLIT + low_part(value) == value
    halves = high_part(np.array([value], dtype=object)), low_part(np.array([value], dtype=object))
    assert halves[0][0] * SPLIT + halves[1][0] == value


@given(st.lists(st.tuples(st.integers(-(2**70), 2**70), st.integers(1, 2**70)), min_size=1))
def test_a_quotient_is_rounded_once(pairs: list[tuple[int, int]]) -> None:
    numerators, denominators = (np.array(column, dtype=object) for column in zip(*pairs, strict=True))
    assert quotients(numerators, denominators).tolist() == [above / below for above, below in pairs]


def test_the_variance_of_what_hardly_varies_is_exact() -> None:
    kind = DataType.parse("decimal(18,0)")
    components = AGGREGATIONS["variance"].components(Field("x", kind))
    tile = [((at, at, 0, at), 10**17 + step) for at, step in enumerate((0, 1, 2))]
    found = AGGREGATIONS["variance"].finalise(np.array([3]), _reduced(components, [tile], [True]), kind)
    assert found.values.tolist() == [2 / 3]


@pytest.mark.parametrize("function", ["count_distinct", "median", "last_k", "stddev_samp", "first_value"])
def test_what_is_not_supported_is_refused_by_name(function: str) -> None:
    with pytest.raises(ValueError, match=function):
        check_aggregation(function, Field("x", INT64))


@pytest.mark.parametrize("name", sorted(AGGREGATIONS.keys() - {"count"}))
def test_no_text_is_aggregated_but_counted(name: str) -> None:
    with pytest.raises(ValueError, match="x is a string"):
        check_aggregation(name, Field("x", STRING))
    assert check_aggregation("count", Field("x", STRING)) == "count"


def test_components_are_shared_and_only_kept_where_needed() -> None:
    view = catalog.CARD_SPEND
    assert isinstance(view, WindowedView)
    plan = tile_plan(view, catalog.PAYMENTS)
    assert [item.name for item in plan.granularities] == ["24h", "1h", "5m"]
    assert [item.slots for item in plan.granularities] == [32, 170, 14]
    names = [item.name for item in plan.granularities[0].components]
    assert names == sorted(set(names))
    assert plan.bytes_per_key == sum(item.slots * item.dtype.itemsize for item in plan.granularities)
    mine = [item.name for name in ("mean", "variance") for item in AGGREGATIONS[name].components(Field("x", FLOAT64))]
    assert sorted(set(mine)) == ["count_x", "squares_x", "sum_x"] and COUNT_OP.name == "count"
