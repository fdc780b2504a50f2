"""Aggregations: one module each, with partial state, scalar and numpy forms and SQL side by side. Pure (and numpy)."""

from __future__ import annotations

from coeval.aggregations.count import COUNT
from coeval.aggregations.extremes import MAX, MIN
from coeval.aggregations.mean import MEAN
from coeval.aggregations.partial import Aggregation
from coeval.aggregations.total import SUM
from coeval.spec.model import Field
from coeval.spec.types import Kind

AGGREGATIONS: dict[str, Aggregation] = {item.name: item for item in (COUNT, SUM, MEAN, MIN, MAX)}

_ALIASES = {"avg": "mean"}
_LATER = {
    "variance": "its squared sums need a wider state than this release keeps",
    "stddev": "its squared sums need a wider state than this release keeps",
    "first": "its state must carry the order of events, which this release does not store in tiles",
    "last": "its state must carry the order of events, which this release does not store in tiles",
    "count_distinct": "it needs a mergeable sketch, a state of variable width",
    "approx_count_distinct": "it needs a mergeable sketch, a state of variable width",
    "approx_percentile": "it needs a mergeable sketch, a state of variable width",
    "last_k": "it needs a state of variable width",
}


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
    if column is not None:
        _check_column(name, column)
    return name


def _check_column(name: str, column: Field) -> None:
    kind = column.type.kind
    if name == "count":
        return
    if kind is Kind.FLOAT64:
        raise ValueError(f"{name} of the float {column.name} is not supported yet: declare it as a decimal")
    if name in ("sum", "mean") and not column.type.is_exact_number:
        raise ValueError(f"{name} takes int64 or decimal; {column.name} is a {column.type}")
    if not column.type.fixed_width:
        raise ValueError(f"{name} takes a type of at most 8 bytes; {column.name} is a {column.type}")
