"""The bins of a baseline, and the counts of values in them. Pure; it knows numpy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from coeval_parity.drift.features import Feature
from coeval_parity.drift.measures import Floats
from coeval_parity.drift.rules import Kind, Rules

OTHER, UNSEEN = "other", "never seen before"


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins of numbers: (..., e1], (e1, e2], ..., (en, ...); of categories: a code each, the others, those never seen.

    `seen` are the codes of the baseline.
    """

    edges: Floats
    codes: Floats | None
    labels: tuple[str, ...]
    seen: Floats | None = None

    def counts(self, values: Floats) -> Floats:
        """How many of the values, none of them null, are in each bin."""
        if self.codes is None or self.seen is None:
            found = np.searchsorted(self.edges, values, side="left")
            return np.bincount(found, minlength=len(self.labels)).astype(np.float64)
        order = np.argsort(self.codes)
        at = np.searchsorted(self.codes, values, sorter=order).clip(max=len(self.codes) - 1)
        known = self.codes[order[at]] == values
        other = len(self.codes) + ~np.isin(values, self.seen)
        found = np.where(known, order[at], other)
        return np.bincount(found, minlength=len(self.labels)).astype(np.float64)


def bins_of(feature: Feature, rules: Rules) -> Bins:
    """The bins of a feature's baseline, which has values that are not null."""
    values = feature.baseline[~np.isnan(feature.baseline)]
    if feature.kind is Kind.NUMBER:
        return number_bins(values, rules.bins)
    found, counts = np.unique(values, return_counts=True)
    top = found[np.argsort(-counts, kind="stable")][: rules.categories]
    return Bins(np.empty(0), top, (*(feature.labels[int(code)] for code in top), OTHER, UNSEEN), found)


def number_bins(values: Floats, bins: int) -> Bins:
    """Of few different values a bin each, and one on either side; else as many rows in each as ties allow.

    A value that many rows share ends a bin, so it is parted from those above it.
    """
    different = np.unique(values)
    if len(different) <= bins:
        gaps = (different[1:] + different[:-1]) / 2
        edges = np.concatenate([[np.nextafter(different[0], -np.inf)], gaps, [different[-1]]])
        named = (f"below {_short(different[0])}", *map(_short, different), f"above {_short(different[-1])}")
        return Bins(edges, None, named)
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    if edges[-1] == different[-1]:
        edges = edges[:-1] if len(edges) > 1 else np.array([different[-2]])
    return Bins(edges, None, _ranges(edges))


def _ranges(edges: Floats) -> tuple[str, ...]:
    between = [f"{_short(low)} .. {_short(high)}" for low, high in pairwise(edges.tolist())]
    return (f"up to {_short(edges[0])}", *between, f"above {_short(edges[-1])}")


def _short(value: float) -> str:
    return f"{value:,.6g}"
