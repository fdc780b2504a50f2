"""Claims about the forms in which entities may be given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from coeval.entities import as_columns
from coeval.errors import EntityKeyError

COLUMNS = {"card_id": [1, 2], "merchant_id": ["m", "n"]}


@pytest.mark.parametrize(
    "given",
    [
        COLUMNS,
        {"card_id": (1, 2), "merchant_id": np.array(["m", "n"])},
        {"card_id": pd.Series([1, 2]), "merchant_id": pa.array(["m", "n"])},
        {"card_id": pl.Series([1, 2]), "merchant_id": iter(["m", "n"])},
        [{"card_id": 1, "merchant_id": "m"}, {"card_id": 2, "merchant_id": "n"}],
        np.array([(1, "m"), (2, "n")], dtype=[("card_id", "i8"), ("merchant_id", "U4")]),
        pa.table(COLUMNS),
        pd.DataFrame(COLUMNS),
        pl.DataFrame(COLUMNS),
    ],
    ids=["lists", "arrays", "series", "iterators", "rows", "structured", "arrow", "pandas", "polars"],
)
def test_entities_may_be_given_in_many_forms(given: Any) -> None:
    assert as_columns(given) == COLUMNS


def test_a_row_that_lacks_a_key_has_none_of_it() -> None:
    assert as_columns([{"a": 1}, {"b": 2}]) == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize("given", [{"card_id": "4711"}, {"card_id": 4711}, {"card_id": b"x"}, 4711, [1, 2], "card_id"])
def test_one_value_where_a_column_is_meant_is_refused(given: Any) -> None:
    with pytest.raises(EntityKeyError, match=r"not a column|cannot be"):
        as_columns(given)


def test_nothing_is_no_entity() -> None:
    assert as_columns([]) == {}
    assert as_columns({}) == {}
