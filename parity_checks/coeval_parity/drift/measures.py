"""Distances between a baseline and a window, and how large each is by chance alone. Pure; it knows numpy and scipy.

Values are float64 with NaN for null; categories are their codes. The `..._noise` functions give what a distance stays
below with probability 1 - alpha where nothing changed, for n baseline and m window rows that are independent.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial import distance

Floats: TypeAlias = NDArray[np.float64]
_EMPTY = 0.5
"""What an empty bin counts as in the index: it would be infinite."""


def psi(baseline: Floats, window: Floats) -> float:
    """The population stability index of counts by bin: the sum of (w - b) ln(w / b) over shares w and b."""
    b, w = (np.where(counts > 0, counts, _EMPTY) / max(counts.sum(), 1.0) for counts in (baseline, window))
    return float(np.sum((w - b) * np.log(w / b)))


def jensen_shannon(baseline: Floats, window: Floats) -> float:
    """The Jensen-Shannon distance of counts by bin, to base 2: 0 (alike) to 1 (nothing in common)."""
    return float(distance.jensenshannon(baseline, window, base=2))


def kolmogorov_smirnov(baseline: Floats, window: Floats) -> float:
    """The largest difference of the two distribution functions, 0 to 1."""
    return float(stats.ks_2samp(baseline, window, method="asymp").statistic)


def wasserstein(baseline: Floats, window: Floats) -> float:
    """The earth mover's distance in standard deviations of the baseline: how far a value moved, on average.

    Of a baseline that never varies, the unit is its size (1 where that is 0).
    """
    return float(stats.wasserstein_distance(baseline, window)) / spread(baseline)


def spread(values: Floats) -> float:
    """The standard deviation; of what never varies its size, or 1."""
    deviation, centre = float(np.std(values)), abs(float(np.mean(values)))
    # A deviation that rounding alone made is none.
    return deviation if deviation > 1e-12 * centre else centre or 1.0


def difference(baseline: int, of_baseline: int, window: int, of_window: int) -> float:
    """How far two shares are apart, 0 to 1."""
    return abs(baseline / max(of_baseline, 1) - window / max(of_window, 1))


def distinct_in(counts: Floats, rows: int) -> float:
    """How many distinct values `rows` rows drawn from these counts show on average (Hurlbert's rarefaction)."""
    return float(np.sum(_seen(counts, rows)))


def distinct_change(baseline: Floats, window: Floats) -> float:
    """How the number of distinct values changed, in equally many rows: 0 none, 0.5 half or double, 1 all."""
    rows = int(min(baseline.sum(), window.sum()))
    few, many = sorted((distinct_in(baseline, rows), distinct_in(window, rows)))
    return 1 - few / many if many else 0.0


def _seen(counts: Floats, rows: int) -> Floats:
    """The probability that each value is among `rows` rows drawn without replacement."""
    total = counts.sum()
    rest = total - counts
    possible = rest >= rows
    missed = np.zeros(len(counts))
    left = rest[possible]
    missed[possible] = np.exp(
        special.gammaln(left + 1)
        - special.gammaln(left - rows + 1)
        - special.gammaln(total + 1)
        + special.gammaln(total - rows + 1)
    )
    seen: Floats = 1 - missed
    return seen


def psi_noise(bins: int, n: float, m: float, alpha: float) -> float:
    """Where nothing changed the index is chi-squared over the rows, to first order (Yurdakul, 2018)."""
    return float(stats.chi2.isf(alpha, max(bins - 1, 1))) * (1 / n + 1 / m)


def jensen_shannon_noise(bins: int, n: float, m: float, alpha: float) -> float:
    """The divergence is an eighth of the index to second order, here to base 2; the distance is its root."""
    return min(1.0, math.sqrt(psi_noise(bins, n, m, alpha) / (8 * math.log(2))))


def kolmogorov_smirnov_noise(n: float, m: float, alpha: float) -> float:
    """Smirnov's bound: sqrt(-ln(alpha / 2) / 2 * (n + m) / (n m))."""
    return min(1.0, math.sqrt(-math.log(alpha / 2) / 2 * (1 / n + 1 / m)))


def wasserstein_noise(values: Floats, n: float, m: float, alpha: float) -> float:
    """The mean of the distance between two samples of these values, and Borell's bound on how far it exceeds that."""
    ordered = np.sort(values)
    below = np.arange(1, len(ordered)) / len(ordered)
    mean = math.sqrt(2 / math.pi) * float(np.sum(np.diff(ordered) * np.sqrt(below * (1 - below))))
    excess = math.sqrt(2 * math.log(1 / alpha)) * float(np.std(ordered))
    return math.sqrt(1 / n + 1 / m) * (mean + excess) / spread(values)


def difference_noise(
    baseline: int, of_baseline: int, window: int, of_window: int, n: float, m: float, alpha: float
) -> float:
    """Two shares of one population, by the normal distribution."""
    pooled = (baseline + window) / max(of_baseline + of_window, 1)
    return float(stats.norm.isf(alpha / 2)) * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))


def distinct_noise(counts: Floats, rows: int, dependence: float, alpha: float) -> float:
    """How far the distinct values of `rows` rows stray from their mean, as a share of it.

    `dependence` is how many rows say as much as one that is independent of all others.
    """
    seen = _seen(counts, rows)
    expected = float(seen.sum())
    # What is seen makes other values less likely to be, so this variance is an upper bound.
    deviation = math.sqrt(2 * dependence * float(np.sum(seen * (1 - seen))))
    return min(1.0, float(stats.norm.isf(alpha / 2)) * deviation / expected) if expected else 1.0
