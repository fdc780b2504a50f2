"""Content hashes, profiles and their differences: the same in any order and cut, and near what numpy says."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coeval.errors import UsageError
from coeval.settings import Settings
from coeval_pipelines.offline.training.diff import stability
from coeval_pipelines.offline.training.registry import set_path
from coeval_pipelines.offline.training.sketch import Sketch
from coeval_pipelines.offline.training.summary import Summary

SEED = 20261122


def _table(rows: int = 20_000) -> pa.Table:
    rng = np.random.default_rng(SEED)
    holes = rng.random(rows) < 0.1
    return pa.table(
        {
            "number": pa.array(rng.normal(50, 20, rows), mask=holes),
            "count": pa.array(rng.poisson(7, rows)),
            "text": pa.array([f"t{n}" for n in rng.integers(0, 50, rows)]),
            "name": pa.array([f"name {n}" for n in range(rows)]),
            "at": pa.array(rng.integers(0, 10**14, rows), pa.timestamp("us", tz="UTC")),
            "money": pa.array(
                [Decimal(int(n)) / 100 for n in rng.integers(-(10**6), 10**6, rows)], pa.decimal128(12, 2)
            ),
            "flag": pa.array(rng.random(rows) < 0.3),
            "items": pa.array([[int(n)] for n in range(rows)]),
        }
    )


def _summary(table: pa.Table, size: int = 60_000) -> Summary:
    return Summary.of(table.schema, table.to_batches(size))


def test_order_and_partitioning_change_neither_hash_nor_profile() -> None:
    table = _table()
    shuffled = table.take(pa.array(np.random.default_rng(SEED).permutation(len(table))))
    parts = [_summary(shuffled.slice(start, 7000), 999) for start in range(0, len(table), 7000)]
    for part in parts[:0:-1]:
        parts[0].merge(part)
    whole = _summary(table)
    assert parts[0].hash == whole.hash
    assert parts[0].profile() == whole.profile()


@pytest.mark.parametrize(
    "changed",
    [
        lambda t: t.slice(1),
        lambda t: pa.concat_tables([t, t.slice(0, 1)]),
        lambda t: t.rename_columns(["other", *t.column_names[1:]]),
        lambda t: t.set_column(1, "count", pa.array(t.column("count").to_pylist(), pa.int32())),
        lambda t: t.set_column(2, "text", pa.array(["t51", *t.column("text").to_pylist()[1:]])),
        lambda t: t.select(t.column_names[::-1]),
        lambda t: pa.concat_tables(
            [t.slice(0, 2).set_column(1, "count", t.slice(0, 2).column("count").take([1, 0])), t.slice(2)]
        ),
    ],
)
def test_other_rows_names_or_types_have_another_hash(changed: object) -> None:
    table = _table(50).set_column(1, "count", pa.array(range(50)))
    assert callable(changed)
    other = changed(table)
    assert Summary.of(other.schema, other.to_batches()).hash != _summary(table).hash


def test_a_null_is_not_a_zero_nor_an_empty_text() -> None:
    for kind, value in ((pa.int64(), 0), (pa.float64(), 0.0), (pa.string(), ""), (pa.bool_(), False)):
        null, zero = (pa.table({"a": pa.array([item], kind)}) for item in (None, value))
        assert _summary(null).hash != _summary(zero).hash


def test_a_profile_is_what_numpy_says() -> None:
    table = _table()
    found = _summary(table).profile()["columns"]
    numbers = table.column("number").drop_null().to_numpy()
    assert found["number"]["nulls"] == table.column("number").null_count
    assert found["number"]["mean"] == pytest.approx(numbers.mean(), rel=1e-12)
    assert found["number"]["std"] == pytest.approx(numbers.std(), rel=1e-12)
    for name, value in found["number"]["quantiles"].items():
        assert value == pytest.approx(np.quantile(numbers, float(name)), rel=0.01, abs=0.5)
    assert sum(count for _, count in found["number"]["histogram"]) == len(numbers)
    assert found["number"]["distinct"] == pytest.approx(len(numbers), rel=0.08)
    assert not found["number"]["distinct_is_exact"]
    counts = table.column("count").to_numpy()
    assert (found["count"]["min"], found["count"]["max"]) == (counts.min(), counts.max())
    assert found["count"]["quantiles"]["0.5"] == np.quantile(counts, 0.5, method="inverted_cdf")
    assert (found["count"]["distinct"], found["count"]["distinct_is_exact"]) == (len(set(counts)), True)
    assert found["text"]["distinct"] == 50
    values, often = np.unique(table.column("text").to_pylist(), return_counts=True)
    assert found["text"]["top"][0][1] == often.max()
    assert (
        dict(map(tuple, found["text"]["top"])).items()
        <= dict(zip(values.tolist(), often.tolist(), strict=True)).items()
    )
    assert found["name"]["top"] == []  # too many to count
    assert found["flag"]["distinct"] == 2
    assert found["money"]["mean"] == pytest.approx(
        float(sum(table.column("money").to_pylist())) / len(table), rel=1e-12
    )
    assert datetime.fromisoformat(found["at"]["min"]).tzinfo == UTC
    assert found["items"].keys() == {"type", "kind", "nulls"}


def test_of_private_columns_no_value_is_told() -> None:
    table = _table(100)
    found = _summary(table).profile(set(table.column_names))["columns"]
    for name, column in found.items():
        told = {key: value for key, value in column.items() if key not in ("type", "kind", "nulls")}
        assert told.pop("distinct", 2) > 1, name
        assert told.pop("distinct_is_exact", True), name
        assert not any(told.values()), name


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.integers(1, 29))
def test_sums_are_exact_however_the_numbers_are_cut(numbers: list[float], cut: int) -> None:
    whole = Sketch.of(pa.array(numbers))
    parts = Sketch.of(pa.array(numbers[cut:], pa.float64()))
    parts.merge(Sketch.of(pa.array(numbers[:cut])))
    assert (parts.total, parts.squares) == (whole.total, whole.squares)
    mean = whole.document()["mean"]
    if all(abs(number) < 1e300 for number in numbers):
        assert mean == pytest.approx(math.fsum(numbers) / len(numbers), rel=1e-12, abs=1e-300)


def test_nothing_and_odd_values_have_a_profile() -> None:
    table = pa.table({"a": pa.array([], pa.float64()), "b": pa.array([], pa.timestamp("us", tz="UTC"))})
    assert _summary(table).profile()["rows"] == 0
    odd = Sketch.of(pa.array([math.inf, math.nan, -0.0, 2.0, None, 2**1000.0]))
    found = odd.document()
    assert (found["min"], found["max"], found["nulls"]) == (0.0, 2.0**1000, 1)
    assert Sketch.of(pa.array([math.nan])).document()["mean"] is None
    wide = Sketch.of(pa.array([2**63 - 1, -(2**63)])).document()
    assert wide["max"] == 2.0**63


def test_the_stability_index_is_nothing_for_the_same_and_large_for_another_distribution() -> None:
    rng = np.random.default_rng(SEED)
    one, near, far = (Sketch.of(pa.array(rng.normal(mean, 10, 20_000))).document() for mean in (50, 50.5, 80))
    rows = (20_000, 20_000)
    assert stability(one, one, rows) == 0
    assert stability(one, near, rows) < 0.1
    assert stability(one, far, rows) > 0.25
    texts = [Sketch.of(pa.array(["a"] * a + ["b"] * (100 - a))).document() for a in (50, 90)]
    assert stability(texts[0], texts[1], (100, 100)) > 0.25
    holes = [Sketch.of(pa.array([1.0] * a + [None] * (100 - a), pa.float64())).document() for a in (50, 90)]
    assert stability(holes[0], holes[1], (100, 100)) > 0.25


def test_the_stability_index_of_categories_says_nothing_that_a_profile_does_not() -> None:
    # Thirty values, of which each profile names the twenty most frequent: other ones, though they hardly differ.
    texts = [
        Sketch.of(pa.array([f"{n:02}" for n in range(30) for _ in range(100 + sign * n)])).document()
        for sign in (-1, 1)
    ]
    rows = tuple(sum(100 + sign * n for n in range(30)) for sign in (-1, 1))
    assert {value for value, _ in texts[0]["top"]} != {value for value, _ in texts[1]["top"]}
    assert stability(texts[0], texts[1], (rows[0], rows[1])) < 0.1
    # A value that one of them has not at all is another matter.
    few = [Sketch.of(pa.array(["a"] * 50 + [name] * 50)).document() for name in "bc"]
    assert stability(few[0], few[1], (100, 100)) > 0.25


def test_the_stability_index_sees_what_moved_in_a_sparse_column() -> None:
    rng = np.random.default_rng(SEED)
    holes = pa.nulls(19_000, pa.float64())
    one, far = (
        Sketch.of(pa.concat_arrays([holes, pa.array(rng.normal(mean, 10, 1000))])).document() for mean in (50, 80)
    )
    assert stability(one, far, (20_000, 20_000)) > 0.1


@pytest.mark.parametrize("name", ["", ".hidden", "_x", "a/b", "..", "a b"])
def test_a_set_has_a_name_that_a_directory_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a training set"):
        set_path(Settings(), "bank", name)
