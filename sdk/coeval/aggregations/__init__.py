"""Aggregations: one module each, with partial state, scalar and numpy forms and SQL side by side. Pure (and numpy)."""

from __future__ import annotations

from coeval.aggregations.chosen import FIRST, LAST, MAX, MIN
from coeval.aggregations.count import COUNT
from coeval.aggregations.mean import MEAN
from coeval.aggregations.partial import Aggregation
from coeval.aggregations.total import SUM
from coeval.aggregations.variance import STDDEV, VARIANCE
from coeval.spec.model import Field
from coeval.spec.types import Kind

AGGREGATIONS: dict[str, Aggregation] = {
    item.name: item for item in (COUNT, SUM, MEAN, MIN, MAX, VARIANCE, STDDEV, FIRST, LAST)
}

_ALIASES = {"avg": "mean", "var": "variance", "var_pop": "variance", "std": "stddev", "stddev_pop": "stddev"}
_SKETCH = "it needs a mergeable sketch, a state of variable width"
_LATER = {
    "count_distinct": _SKETCH,
    "approx_count_distinct": _SKETCH,
    "approx_percentile": _SKETCH,
    "percentile": _SKETCH,
    "quantile": _SKETCH,
    "median": _SKETCH,
    "last_k": "it needs a state of variable width",
    "var_samp": "variances are of the population; use variance",
    "stddev_samp": "standard deviations are of the population; use stddev",
}
_ARITHMETIC = frozenset({"sum", "mean", "variance", "stddev"})


def check_aggregation(function: str, column: Field | None) -> str:
    """The canonical name of an aggregation that can run over a column (None: over events).

    Raises:
        ValueError: it is unknown, not yet supported, or does not take this column; the message says which and why.
    """
    name = _ALIASES.get(function, function)
    if name in _LATER:
        raise ValueError(f"{function} is not supported yet: {_LATER[name]}")
    if name not in AGGREGATIONS:
        raise ValueError(f"{function} is not an aggregation; known are {', '.join(AGGREGATIONS)}")
    if column is None and name != "count":
        raise ValueError(f"{function} needs a column")
    if column is not None and name != "count":
        _check_column(name, column)
    return name


def _check_column(name: str, column: Field) -> None:
    kind = column.type.kind
    if name in _ARITHMETIC and kind not in (Kind.INT64, Kind.DECIMAL, Kind.FLOAT64):
        raise ValueError(f"{name} takes int64, decimal or float64; {column.name} is a {column.type}")
    if name in ("variance", "stddev") and column.type.is_wide:
        raise ValueError(
            f"{name} takes at most 18 digits, so that squares stay exact; {column.name} is a {column.type}"
        )
    if kind is Kind.STRING:
        raise ValueError(f"{name} takes a type of fixed width; {column.name} is a {column.type}")
