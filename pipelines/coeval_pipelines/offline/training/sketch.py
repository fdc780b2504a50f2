"""What a column's values are like: mergeable in any order to the same profile, in any engine. Pure; it knows Arrow.

Edges are the same for every column and every set, so that profiles can be compared bucket by bucket.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coeval.spec.types import iso, micros
from coeval_pipelines.arrow import single
from coeval_pipelines.offline.columns import derived_input
from coeval_pipelines.offline.training.digest import value_words

MOST_ROWS = 1 << 16
"""Rows that a sketch takes at once: the sums of so many limbs are exact in a double."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TOP = 20
_DISTINCT = 4096
"""Distinct values that are counted exactly; the smallest of their hashes tell how many there are beyond."""
_FINE, _COARSE = 45, 50
"""Bits of a double that buckets leave out: quantiles have 8 significant ones, histograms 3 (four buckets an octave)."""
_SCALE = 1200
"""Binary digits after the point in which sums are kept: those of the smallest double, and room."""
_GUARD = 64
"""Binary digits more for a root."""
_LIMB = 18
_LONGEST = 100
_DAY = 86_400_000_000
_FIRST, _LAST = (micros(end.replace(tzinfo=UTC)) for end in (datetime.min, datetime.max))
"""Times beyond the years 1 to 9999 are counted at these ends."""


@dataclass(slots=True)
class Sketch:
    """The values of one column. `kind`: number, time, category, or other (of which only nulls are counted)."""

    kind: str
    rows: int = 0
    nulls: int = 0
    least: Any = None
    greatest: Any = None
    total: int = 0
    """The sum of the finite numbers, times 2**1200, and of their squares, times 2**2400: exact."""
    squares: int = 0
    finite: int = 0
    buckets: Counter[float] = field(default_factory=Counter)
    """Numbers cut to eight significant bits, or days since the epoch."""
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    """The smallest hashes of distinct values, sorted, and how often each value came."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    texts: dict[int, str] = field(default_factory=dict)
    """The values of a category by their hashes."""

    @staticmethod
    def of(column: pa.Array) -> Sketch:
        """The sketch of at most 65,536 values."""
        array = single(column)
        found = Sketch(_kind(array.type), len(array), array.null_count)
        if found.kind == "other" or found.nulls == found.rows:
            return found
        found._count(array)
        if found.kind == "number":
            found._measure(_numbers(array.drop_null()))
        elif found.kind == "time":
            found._date(_micros(array.drop_null()))
        return found

    def merge(self, other: Sketch) -> None:
        """Add what another sketch of the column has seen."""
        self.rows += other.rows
        self.nulls += other.nulls
        self.least = min((x for x in (self.least, other.least) if x is not None), default=None)
        self.greatest = max((x for x in (self.greatest, other.greatest) if x is not None), default=None)
        self.total += other.total
        self.squares += other.squares
        self.finite += other.finite
        self.buckets.update(other.buckets)
        self.texts |= other.texts
        self._keep(np.append(self.hashes, other.hashes), np.append(self.counts, other.counts))

    def _count(self, array: pa.Array) -> None:
        valid, words = value_words(array)
        hashes = _mixed(words)
        found = pc.value_counts(pa.array(hashes[valid]))
        if self.kind == "category":
            first = np.unique(hashes[valid], return_index=True)
            values = array.drop_null().take(pa.array(first[1])).cast(pa.string()).to_pylist()
            self.texts = {int(h): value[:_LONGEST] for h, value in zip(first[0], values, strict=True)}
        self._keep(found.field("values").to_numpy(), found.field("counts").to_numpy())

    def _keep(self, hashes: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
        """The smallest hashes. What is among them was so wherever it came: its count is whole."""
        self.hashes, where = np.unique(hashes, return_inverse=True)
        self.counts = np.bincount(where, weights=counts, minlength=len(self.hashes)).astype(np.int64)
        self.hashes, self.counts = self.hashes[: _DISTINCT + 1], self.counts[: _DISTINCT + 1]
        if len(self.texts) > len(self.hashes):
            self.texts = {h: self.texts[h] for h in self.hashes.tolist() if h in self.texts}

    def _measure(self, numbers: NDArray[np.float64]) -> None:
        numbers = numbers[np.isfinite(numbers)] + 0.0
        self.finite = len(numbers)
        if not self.finite:
            return
        self.least, self.greatest = float(numbers.min()), float(numbers.max())
        self.total, self.squares = _moments(numbers)
        values, counts = np.unique(_cut(numbers, _FINE), return_counts=True)
        self.buckets = Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def _date(self, times: NDArray[np.int64]) -> None:
        self.least, self.greatest = int(times.min()), int(times.max())
        values, counts = np.unique(times // _DAY, return_counts=True)
        self.buckets = Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def document(self, private: bool = False) -> dict[str, Any]:
        """The profile of the column; with `private`, what tells of no value: as if there were none."""
        found: dict[str, Any] = {"kind": self.kind, "nulls": self.nulls}
        if self.kind == "other":
            return found
        told = Sketch(self.kind) if private else self
        return found | self._distinct() | told.values()

    def values(self) -> dict[str, Any]:
        """What of the profile tells of values."""
        match self.kind:
            case "category":
                return {"top": self._top()}
            case "number":
                return self._numbers()
            case _:
                return self._times()

    def _distinct(self) -> dict[str, Any]:
        if len(self.hashes) <= _DISTINCT:
            return {"distinct": len(self.hashes), "distinct_is_exact": True}
        estimate = (_DISTINCT - 1) * 2**64 // (int(self.hashes[_DISTINCT - 1]) + 1)
        return {"distinct": estimate, "distinct_is_exact": False}

    def _top(self) -> list[list[Any]]:
        """The most frequent values, where there are few enough to know."""
        if len(self.hashes) > _DISTINCT:
            return []
        found = [[self.texts[h], count] for h, count in zip(self.hashes.tolist(), self.counts.tolist(), strict=True)]
        return sorted(found, key=lambda item: (-item[1], item[0]))[:TOP]

    def _numbers(self) -> dict[str, Any]:
        if not self.finite:
            return {"min": None, "max": None, "mean": None, "std": None, "quantiles": {}, "histogram": []}
        n = self.finite
        histogram: Counter[float] = Counter()
        for value, count in self.buckets.items():
            histogram[float(_cut(np.array([value]), _COARSE)[0])] += count
        found: dict[str, Any] = {"min": self.least, "max": self.greatest}
        deviation = math.isqrt((n * self.squares - self.total**2) << 2 * _GUARD)
        found["mean"] = float(Fraction(self.total, n << _SCALE))
        found["std"] = float(Fraction(deviation, n << _SCALE + _GUARD))
        return found | {
            "quantiles": self._quantiles(),
            "histogram": [[edge, histogram[edge]] for edge in sorted(histogram)],
        }

    def _times(self) -> dict[str, Any]:
        if not self.buckets:
            return {"min": None, "max": None, "quantiles": {}, "histogram": []}
        histogram: Counter[str] = Counter()
        for value, count in self.buckets.items():
            histogram[_day(value).strftime("%Y-%m")] += count
        quantiles = {name: _day(value).isoformat() for name, value in self._quantiles().items()}
        edges = {"min": iso(self.least), "max": iso(self.greatest)}
        return edges | {"quantiles": quantiles, "histogram": [[month, histogram[month]] for month in sorted(histogram)]}

    def _quantiles(self) -> dict[str, float]:
        """The bucket in which each quantile is: of numbers, its edge towards zero."""
        values = sorted(self.buckets)
        until = np.cumsum([self.buckets[value] for value in values])
        places = np.searchsorted(until, [math.ceil(q * until[-1]) for q in QUANTILES])
        return {f"{q:g}": values[place] for q, place in zip(QUANTILES, places.tolist(), strict=True)}


def _kind(data_type: pa.DataType) -> str:
    if pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal128(data_type):
        return "number"
    if pa.types.is_timestamp(data_type) or pa.types.is_date32(data_type):
        return "time"
    texts = pa.types.is_string(data_type) or pa.types.is_large_string(data_type)
    return "category" if texts or pa.types.is_boolean(data_type) else "other"


def _numbers(array: pa.Array) -> NDArray[np.float64]:
    if pa.types.is_integer(array.type):
        return array.to_numpy().astype(np.float64)  # type: ignore[no-any-return]
    return derived_input(array)


def _micros(array: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_date32(array.type):
        days = array.cast(pa.int32()).to_numpy().astype(np.int64)
        return days.clip(_FIRST // _DAY, _LAST // _DAY) * _DAY  # type: ignore[no-any-return]
    return array.cast(pa.int64()).to_numpy().clip(_FIRST, _LAST)  # type: ignore[no-any-return]


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Well-spread hashes of a few words each (splitmix64)."""
    found = np.zeros(len(words), dtype=np.uint64)
    for place in range(words.shape[1]):
        found = found + words[:, place] + np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found = found ^ (found >> np.uint64(31))
    return found


def _cut(numbers: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Numbers towards zero, without the last bits of their doubles."""
    return ((numbers.view(np.int64) >> bits) << bits).view(np.float64)


def _moments(numbers: NDArray[np.float64]) -> tuple[int, int]:
    """The exact sums of numbers and of their squares, scaled by 2**1200 and 2**2400.

    A double is three limbs of 18 bits and an exponent: sums of limbs, and of their products, by exponent are exact.
    """
    mantissas, exponents = np.frexp(numbers)
    bits = np.ldexp(mantissas, 3 * _LIMB).astype(np.int64)
    mask = (1 << _LIMB) - 1
    limbs = [(bits & mask), (bits >> _LIMB) & mask, bits >> 2 * _LIMB]
    lowest = int(exponents.min())
    places = exponents - lowest
    total = squares = 0
    for one, limb in enumerate(limbs):
        total += _scaled(places, limb, lowest - 3 * _LIMB + one * _LIMB + _SCALE, 1)
        for other, factor in enumerate(limbs):
            shift = 2 * (lowest - 3 * _LIMB + _SCALE) + (one + other) * _LIMB
            squares += _scaled(places, limb * factor, shift, 2)
    return total, squares


def _scaled(places: NDArray[np.int32], values: NDArray[np.int64], shift: int, step: int) -> int:
    found = np.bincount(places, weights=values)
    return sum(int(found[place]) << shift + step * place for place in np.flatnonzero(found).tolist())


def _day(number: float) -> date:
    return date(1970, 1, 1) + timedelta(days=int(number))
