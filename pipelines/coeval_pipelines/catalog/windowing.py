"""Aggregations spelled out: which functions of which columns over which windows, as Feast's aggregations and fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from feast import Field as FeastField
from feast import KafkaSource
from feast.aggregation import Aggregation

from coeval.aggregations import AGGREGATIONS
from coeval.spec.model import Expected, Field
from coeval.spec.time import parse_duration
from coeval.spec.types import INT64
from coeval_pipelines.catalog.errors import DefinitionError
from coeval_pipelines.catalog.offered import (
    ComputedColumn,
    KnownColumns,
    feast_field,
    known_columns,
    refused,
    selection,
)
from coeval_pipelines.catalog.schema import Refused
from coeval_pipelines.catalog.tags import as_duration
from coeval_pipelines.catalog.views import check_function


@dataclass(frozen=True, slots=True)
class Ask:
    """Some functions of one column (empty: of events) over some windows."""

    column: str
    functions: tuple[str, ...]
    per: tuple[str, ...]
    pii: str


@dataclass(frozen=True, slots=True)
class Windowed:
    """What a windowed view passes to Feast: the aggregations, a field for each output, the tags of its selection."""

    aggregations: list[Aggregation]
    schema: list[FeastField]
    tags: dict[str, str]


def count(*, per: Sequence[str], pii: str) -> Ask:
    """The number of events in each of these windows."""
    return Ask("", ("count",), tuple(per), pii)


def of(name: str, *functions: str, per: Sequence[str], pii: str = "") -> Ask:
    """These functions of a column, in each of these windows. The PII class is the column's, unless told."""
    return Ask(name, functions, tuple(per), pii)


def windowed(source: KafkaSource, *asked: Ask, where: str = "", columns: Sequence[ComputedColumn] = ()) -> Windowed:
    """Spell out aggregations over a source: `sum_amount_24h` is the sum of amount over the last 24 hours.

    `where` and `columns` go to the view with its tags: `tags=sla(...) | windowed(...).tags`. What cannot be asked
    becomes a field that says so, which the compiler reports with all other mistakes.
    """
    known = known_columns(source, columns)
    outputs = [
        output
        for ask in asked
        if not (ask.column and known.is_refused(ask.column))
        for function in ask.functions
        for output in _outputs(known, ask, function)
    ]
    return Windowed(
        [aggregation for aggregation, _ in outputs if aggregation],
        [feast_field(field) for _, field in outputs],
        selection(where, columns),
    )


def _outputs(known: KnownColumns, ask: Ask, function: str) -> list[tuple[Aggregation | None, Field]]:
    """A function of a column over each window, or the one thing that is wrong with asking for it."""
    read = known.column(ask.column) if ask.column else None
    name = "_".join(part for part in (function, ask.column) if part)
    if isinstance(read, Refused):
        return [(None, replace(read, name=name))]
    try:
        result = _result(name, read, function)
    except DefinitionError as error:
        return [(None, refused(name, error))]
    return [_output(replace(result, pii=ask.pii or result.pii), ask, function, window) for window in ask.per]


_CHOSEN = ("min", "max", "first", "last")
"""Functions whose result is one of the column's values: what is expected of the column is expected of it too."""


def _result(name: str, read: Field | None, function: str) -> Field:
    canonical = check_function(f"feature {name}", function, read)
    if read is None:
        return Field(name, INT64, pii="")
    expected = read.expected if canonical in _CHOSEN else Expected()
    return Field(name, AGGREGATIONS[canonical].result(read.type), pii=read.pii, expected=expected)


def _output(result: Field, ask: Ask, function: str, window: str) -> tuple[Aggregation | None, Field]:
    name = f"{result.name}_{as_duration(window)}"
    try:
        length = timedelta(microseconds=parse_duration(window))
    except ValueError as error:
        return None, refused(name, DefinitionError("window", str(error), "Correct per=."))
    what = f"{function} of {ask.column or 'events'} over the last {window}"
    aggregation = Aggregation(column=ask.column, function=function, time_window=length, name=name)
    return aggregation, replace(result, name=name, description=what)
