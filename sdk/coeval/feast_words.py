"""Results in the words of Feast, for code that is written against it. It does not know Feast itself. Pure.

Feast has no status for a value that holds by rule (a count of nothing is 0): it is PRESENT. What has no value is
NULL_VALUE, NOT_FOUND, OUTSIDE_MAX_AGE (expired) or INVALID (unavailable, or beyond its type).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from coeval.errors import RequestError
from coeval.online.result import FeatureResult, Status
from coeval.service import ServicePlan
from coeval.spec.model import Field

_WORDS = {
    Status.EXPIRED: "OUTSIDE_MAX_AGE",
    Status.NOT_FOUND: "NOT_FOUND",
    Status.OVERFLOW: "INVALID",
    Status.UNAVAILABLE: "INVALID",
}
_PRESENT, _NULL = "PRESENT", "NULL_VALUE"


class Vector(NamedTuple):
    """An entity key or a feature: logical values, Feast's names of their statuses, event times in microseconds UTC."""

    name: str
    field: Field
    values: Sequence[Any]
    statuses: Sequence[str]
    times: Sequence[int]


def divided(
    columns: Mapping[str, Sequence[Any]], plan: ServicePlan
) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
    """Entities and request-time inputs, which Feast has in one."""
    inputs = {name: values for name, values in columns.items() if name in plan.requested}
    return {name: values for name, values in columns.items() if name not in inputs}, inputs


def vectors(plan: ServicePlan, result: FeatureResult, full_names: bool) -> Iterator[Vector]:
    """The entities, then the features. Without full names, a feature is called without its view.

    Raises:
        RequestError: two of them are called the same.
    """
    names = {name: name if full_names else name.partition("__")[2] for name in result.names}
    shown = [*result.entities, *names.values()]
    if twice := sorted({name for name in shown if shown.count(name) > 1}):
        raise RequestError(f"Several features are called {twice[0]}.", "Ask with full_feature_names=true.")
    values = result.to_dict()
    now = [result.at] * len(result)
    for name in plan.keys:
        yield Vector(name, plan.keys[name], values[name], [_PRESENT] * len(result), now)
    times = {view: found.tolist() for view, found in result.event_ts.items()}
    for name, codes in zip(result.names, result.codes.T.tolist(), strict=True):
        statuses = [
            _PRESENT if value is not None else _WORDS.get(Status(code), _NULL)
            for value, code in zip(values[name], codes, strict=True)
        ]
        yield Vector(names[name], plan.fields[name], values[name], statuses, times.get(name.partition("__")[0], now))
