"""Which rows of a training set are not what they are when they are computed again, and in which features. Pure.

It knows Arrow. Both engines compare values as the content hash does, so what it tells apart is found here, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from coeval.aggregations.states import Mask
from coeval_pipelines.offline.training.digest import value_words

AGAIN = "again:"
"""What the columns that were computed again are called before their names."""
SHOWN = 20
"""Rows that differ, and values of them, that are shown."""


@dataclass(frozen=True, slots=True)
class ValueApart:
    """A value as it is kept and as it is computed again, both as text (None: null), with the key and instant of its
    row."""

    key: Mapping[str, str]
    feature: str
    kept: str | None
    again: str | None


@dataclass(frozen=True, slots=True)
class Apart:
    """How many rows differ, in how many of them each feature does, and the first values."""

    rows: int
    features: Mapping[str, int]
    values: tuple[ValueApart, ...]

    def plus(self, other: Apart) -> Apart:
        """Both together: of another part of the same set."""
        names = [*self.features, *(name for name in other.features if name not in self.features)]
        features = {name: self.features.get(name, 0) + other.features.get(name, 0) for name in names}
        return Apart(self.rows + other.rows, features, (*self.values, *other.values)[:SHOWN])


NOTHING = Apart(0, {}, ())


def side_by_side(stored: pa.Table, again: pa.Table, features: Sequence[str]) -> pa.Table:
    """The rows as they are kept, each with its features computed again beside it; both are in the same order."""
    for name in features:
        stored = stored.append_column(AGAIN + name, again.column(name))
    return stored


def rows_apart(rows: pa.RecordBatch, features: Sequence[str]) -> pa.RecordBatch:
    """Those of the rows in which a feature differs."""
    differ = np.zeros(rows.num_rows, dtype=bool)
    for name in features:
        differ |= _differs(rows, name)
    return rows.filter(pa.array(differ))


def features_apart(rows: pa.RecordBatch | pa.Table, features: Sequence[str]) -> dict[str, int]:
    """In how many of the rows each feature differs that does in any."""
    counts = {name: int(_differs(rows, name).sum()) for name in features}
    return {name: count for name, count in counts.items() if count}


def apart(count: int, features: Mapping[str, int], rows: pa.Table, keys: Sequence[str]) -> Apart:
    """What is said of `count` rows that differ, in how many of them each feature does, and of the first of them."""
    masks = {name: _differs(rows, name) for name in features}
    values: list[ValueApart] = []
    for number in range(min(rows.num_rows, SHOWN)):
        row = rows.slice(number, 1)
        key = {name: str(row.column(name)[0].as_py()) for name in keys}
        values += [
            ValueApart(key, name, _text(row.column(name)[0].as_py()), _text(row.column(AGAIN + name)[0].as_py()))
            for name in features
            if masks[name][number]
        ]
    return Apart(count, features, tuple(values[:SHOWN]))


def _differs(rows: pa.RecordBatch | pa.Table, name: str) -> Mask:
    valid, words = value_words(rows.column(name))
    valid_again, words_again = value_words(rows.column(AGAIN + name))
    differs: Mask = (valid != valid_again) | (words != words_again).any(axis=1)
    return differs


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
