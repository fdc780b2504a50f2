"""Whether a feature drifted: each distance beside what matters, what chance reaches, and what is usual. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coeval_parity.drift import measures
from coeval_parity.drift.bins import Bins, bins_of
from coeval_parity.drift.features import Feature
from coeval_parity.drift.measures import Floats
from coeval_parity.drift.result import Bin, FeatureDrift, Measure
from coeval_parity.drift.rules import Kind, Limits, Rules

MIN_EARLIER = 3
"""Windows of the same weekday before, without which nothing is usual."""
_MEASURES = 6
_DRAWS = 5
"""Samples of each earlier window that a window of far fewer rows is held to."""
_LIKE = 0.5
"""The share of a window's rows that another must have to show as many distinct values."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What is the same for every feature: to which earlier window each baseline row belongs (-1: to none), how many
    rows say as much as an independent one on either side, and how many features are compared."""

    earlier: NDArray[np.int64]
    baseline_dependence: float
    window_dependence: float
    features: int

    @property
    def windows(self) -> list[int]:
        """The earlier windows that have rows."""
        return [int(number) for number in np.unique(self.earlier) if number >= 0]


def compare(feature: Feature, sides: Sides, rules: Rules) -> FeatureDrift:
    """Compare one feature."""
    limits, _ = rules.of(feature.name)
    rows, baseline_rows = len(feature.window), len(feature.baseline)
    if min(rows, baseline_rows) < rules.rows:
        few = f"fewer than {rules.rows} rows on one side"
        return FeatureDrift(feature.name, feature.kind, baseline_rows, rows, note=few)
    found = _distances(feature, rules)
    noise = _noise(feature, sides, rules)
    usual = _usual(feature, sides, rules)
    if feature.kind is not Kind.NUMBER and "distinct" not in usual:
        # Rows of a time come in bunches of the same names: only a window of its like says how many names it has.
        found.pop("distinct", None)
    measured = _measured(found, limits, noise, usual)
    if any(item.over for item in measured):
        measured = _measured(found, limits, noise, _usual(feature, sides, rules, draws=_DRAWS))
    return FeatureDrift(feature.name, feature.kind, baseline_rows, rows, measured, _picture(feature, rules))


def _measured(
    found: dict[str, float], limits: Limits, noise: dict[str, float], usual: dict[str, float]
) -> tuple[Measure, ...]:
    return tuple(
        Measure(name, value, getattr(limits, name), noise.get(name, 0.0), usual.get(name))
        for name, value in found.items()
    )


def _distances(feature: Feature, rules: Rules) -> dict[str, float]:
    """Every distance that the kind of feature has; where one side is null throughout, the share of nulls alone."""
    b, w = _present(feature.baseline), _present(feature.window)
    found = {"nulls": measures.difference(*_nulls(feature.baseline), *_nulls(feature.window))}
    if not len(b) or not len(w):
        return found
    found["distinct"] = measures.distinct_change(_multiplicities(b), _multiplicities(w))
    if feature.kind is Kind.IDENTIFIER:
        return found
    bins = bins_of(feature, rules)
    counts = bins.counts(b), bins.counts(w)
    found |= {"psi": measures.psi(*counts), "js": measures.jensen_shannon(*counts)}
    if feature.kind is Kind.NUMBER:
        found |= {"ks": measures.kolmogorov_smirnov(b, w), "wasserstein": measures.wasserstein(b, w)}
    return found


def _noise(feature: Feature, sides: Sides, rules: Rules) -> dict[str, float]:
    """What each distance stays below by chance: the whole run's alpha is shared by all features and measures."""
    alpha = rules.alpha / (sides.features * _MEASURES)
    b, w = _present(feature.baseline), _present(feature.window)
    whole = len(feature.baseline) / sides.baseline_dependence, len(feature.window) / sides.window_dependence
    nulls = (*_nulls(feature.baseline), *_nulls(feature.window))
    found = {"nulls": measures.difference_noise(*nulls, *whole, alpha)}
    if not len(b) or not len(w):
        return found
    n, m = max(1.0, len(b) / sides.baseline_dependence), max(1.0, len(w) / sides.window_dependence)
    fewer, dependence = min(len(b), len(w)), max(sides.baseline_dependence, sides.window_dependence)
    found["distinct"] = measures.distinct_noise(_multiplicities(b), fewer, dependence, alpha)
    if feature.kind is Kind.IDENTIFIER:
        return found
    bins = _filled(bins_of(feature, rules), b)
    found |= {
        "psi": measures.psi_noise(bins, n, m, alpha),
        "js": measures.jensen_shannon_noise(bins, n, m, alpha),
    }
    if feature.kind is Kind.NUMBER:
        found |= {
            "ks": measures.kolmogorov_smirnov_noise(n, m, alpha),
            "wasserstein": measures.wasserstein_noise(b, n, m, alpha),
        }
    return found


def _usual(feature: Feature, sides: Sides, rules: Rules, draws: int = 0) -> dict[str, float]:
    """The worst distance of each earlier window from the rest of the baseline, and some more.

    With `draws`, of a window that has far more rows than that which is judged so many samples of its size are taken
    instead: few rows stray further, and no formula says how far where values are many, rare or extreme.
    """
    windows = sides.windows
    if len(windows) < MIN_EARLIER:
        return {}
    rows, worst = len(feature.window), dict[str, float]()
    for number in windows:
        mine = sides.earlier == number
        if mine.sum() < rules.rows or (~mine).sum() < rules.rows:
            continue
        like_it = [mine] if not draws or rows >= _LIKE * mine.sum() else _samples(mine, rows, draws)
        for chosen in like_it:
            for name, value in _distances(feature.within(~mine, chosen), rules).items():
                if name != "distinct" or mine.sum() >= _LIKE * rows:
                    worst[name] = max(value, worst.get(name, 0.0))
    return {name: rules.rhythm * value for name, value in worst.items()}


def _samples(rows: NDArray[np.bool_], size: int, draws: int) -> Iterator[NDArray[np.bool_]]:
    """Some of these rows, chosen at random, the same every time."""
    random, there = np.random.default_rng(size), np.flatnonzero(rows)
    for _ in range(draws):
        chosen = np.zeros_like(rows)
        chosen[random.choice(there, size, replace=False)] = True
        yield chosen


def _picture(feature: Feature, rules: Rules) -> tuple[Bin, ...]:
    b, w = _present(feature.baseline), _present(feature.window)
    if feature.kind is Kind.IDENTIFIER or not len(b):
        return ()
    bins = bins_of(feature, rules)
    sizes = len(feature.baseline), max(len(feature.window), 1)
    shares = [(bins.counts(side) / size).tolist() for side, size in zip((b, w), sizes, strict=True)]
    rows = [Bin(*row) for row in zip(bins.labels, *shares, strict=True)]
    null = Bin("null", 1 - len(b) / sizes[0], 1 - len(w) / sizes[1])
    kept = [item for item in rows if item.baseline or item.window]
    return (*kept, null) if null.baseline or null.window else tuple(kept)


def _filled(bins: Bins, values: Floats) -> int:
    return int(np.count_nonzero(bins.counts(values)))


def _present(values: Floats) -> Floats:
    present: Floats = values[~np.isnan(values)]
    return present


def _nulls(values: Floats) -> tuple[int, int]:
    return int(np.isnan(values).sum()), len(values)


def _multiplicities(values: Floats) -> Floats:
    """How often each distinct value occurs."""
    counts: Floats = np.unique(values, return_counts=True)[1].astype(np.float64)
    return counts


def dependence(sizes: Floats) -> float:
    """How many rows say as much as an independent one, where rows of one group are alike (Kish's design effect)."""
    return float(np.sum(sizes**2) / np.sum(sizes)) if len(sizes) else 1.0
