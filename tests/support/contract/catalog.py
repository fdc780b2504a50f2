"""The catalog that contract cases are about: small views that use every function, type, hop and kind of key.

Adding a function or a type is adding a name to `FUNCTIONS` or a field to `VALUES`: what the aggregations do not take is
left out by their own rule (`check_aggregation`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coeval.aggregations import AGGREGATIONS, check_aggregation
from coeval.spec.manifest import Manifest, with_version
from coeval.spec.model import (
    Aggregate,
    BatchSource,
    Computed,
    Entity,
    EventSource,
    Field,
    RowView,
    View,
    WindowedView,
    columns_read,
    with_columns,
)
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND, duration, hop_of
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType
from coeval_pipelines.catalog.expressions import parse_condition, parse_value

FUNCTIONS = tuple(AGGREGATIONS)
PARTITIONS = 2
"""Of the topic; a case's records are in 0 and 1."""

CASE = Field("c", INT64, nullable=False)
"""The number of the case (negative: another entity of the same case). It keeps the cases of a run apart."""
KEYS = (
    CASE,
    Field("a", STRING, nullable=False),
    Field("b", STRING, nullable=False),
    Field("text", STRING, nullable=False),
    Field("flag", BOOL, nullable=False),
    Field("day", DATE, nullable=False),
)
VALUES = (
    Field("whole", INT64),
    Field("money", DataType.parse("decimal(9,2)")),
    Field("fee", DataType.parse("decimal(18,3)")),
    Field("huge", DataType.parse("decimal(38,10)")),
    Field("ratio", FLOAT64),
    Field("yes", BOOL),
    Field("seen", TIMESTAMP),
    Field("born", DATE),
)
NOTE = Field("note", STRING)

EVENTS = EventSource(
    name="events",
    topic="events",
    fields=(
        Field("event_id", STRING, nullable=False),
        Field("happened_at", TIMESTAMP, nullable=False),
        *KEYS,
        *VALUES,
        NOTE,
    ),
    event_id="event_id",
    event_ts="happened_at",
)
FACTS = BatchSource(
    name="facts",
    path="facts.parquet",
    format="parquet",
    fields=(
        Field("stated_at", TIMESTAMP, nullable=False),
        Field("loaded_at", TIMESTAMP, nullable=False),
        *KEYS,
        *VALUES,
        NOTE,
    ),
    event_ts="stated_at",
    available_at="loaded_at",
)


def _windowed(name: str, key: tuple[Field, ...], spans: Iterable[tuple[str, str, int, int | None]]) -> WindowedView:
    """`spans` are (function, column, window, declared slide)."""
    aggregates = tuple(
        Aggregate("_".join(filter(None, (function, column, duration(window)))), function, column, window,
                  hop_of(window, slide))
        for function, column, window, slide in spans
    )  # fmt: skip
    features = tuple(
        Field(item.feature, AGGREGATIONS[item.function].result(EVENTS.field(item.column).type if item.column else None))
        for item in aggregates
    )
    view = WindowedView(
        name, tuple(field.name for field in key), key, EVENTS.name, aggregates, features, partitions=PARTITIONS
    )
    return with_version(view, EVENTS)  # type: ignore[return-value]


def _choosy(name: str, where: str, columns: dict[str, str], functions: Iterable[str]) -> tuple[WindowedView, RowView]:
    """A windowed view and a row view of what a condition selects, over columns that are computed of each event."""
    computed = tuple(
        Computed(Field(column, parsed.type), parsed)
        for column, text in columns.items()
        for parsed in (parse_value(name, text, EVENTS.fields),)
    )
    condition = parse_condition(name, where, EVENTS.fields)
    fields = tuple(item.field for item in computed)
    aggregates = tuple(
        Aggregate(f"{function}_{item.name}_1h", function, item.name, HOUR, hop_of(HOUR))
        for item in fields
        for function in functions
        if takes(function, item)
    )
    features = tuple(
        Field(item.feature, AGGREGATIONS[item.function].result(field.type))
        for item in aggregates
        for field in fields
        if field.name == item.column
    )
    shared: dict[str, Any] = {"where": condition, "columns": computed, "partitions": PARTITIONS}
    windows = WindowedView(f"{name}_windows", (CASE.name,), (CASE,), EVENTS.name, aggregates, features, **shared)
    rows = RowView(f"{name}_rows", (CASE.name,), (CASE,), EVENTS.name, (*fields, NOTE), stream=True, **shared)
    return with_version(windows, EVENTS), with_version(rows, EVENTS)  # type: ignore[return-value]


def takes(function: str, field: Field) -> bool:
    """Whether a function can run over a column."""
    try:
        check_aggregation(function, field)
    except ValueError:
        return False
    return True


def _over(field: Field, *windows: int) -> WindowedView:
    """Every function that takes a column, over some windows."""
    spans = [(name, field.name, window, None) for window in windows for name in FUNCTIONS if takes(name, field)]
    return _windowed(f"of_{field.name}", (CASE,), spans)


def _row(name: str, key: tuple[Field, ...], *, stream: bool, ttl: int) -> RowView:
    source = EVENTS if stream else FACTS
    view = RowView(
        name, tuple(field.name for field in key), key, source.name, (*VALUES, NOTE), stream, ttl, partitions=PARTITIONS
    )
    return with_version(view, source)  # type: ignore[return-value]


_CHOSEN, _CHOSEN_ROWS = _choosy(
    "chosen",
    "yes OR whole >= 0 AND note <> 'x'",
    {"gross": "money * 2 + COALESCE(fee, 0)", "sign": "CASE WHEN whole < 0 THEN -1 WHEN whole > 0 THEN 1 END"},
    ("count", "sum", "mean", "max", "last"),
)
_NAMED = {field.name: field for field in KEYS}
_LENGTHS = (5 * MINUTE, HOUR, 11 * HOUR + 55 * MINUTE, 12 * HOUR, DAY, 7 * DAY, 12 * DAY, 30 * DAY)
_SLIDES = ((MINUTE, SECOND), (10 * MINUTE, 30 * SECOND), (HOUR, 15 * MINUTE), (DAY, 6 * HOUR), (6 * DAY, 2 * DAY))
"""Windows and their declared slides."""
_BASIC = (("count", ""), ("count", "whole"), ("sum", "whole"), ("max", "money"))
_COUNTED = (*_BASIC, ("count", "note"))
"""A text that is only counted beside them."""

WINDOWED = (
    # Two granularities where many rules meet, else one: each is a sink in the stream's job.
    *(_over(field, HOUR, DAY if field.name in ("whole", "ratio") else 6 * HOUR) for field in VALUES),
    _windowed("spans", (CASE,), [(*item, window, None) for window in _LENGTHS for item in _BASIC]),
    _windowed("slides", (CASE,), [(*item, window, slide) for window, slide in _SLIDES for item in _BASIC]),
    _windowed("by_pair", (CASE, _NAMED["a"], _NAMED["b"]), [(*item, 7 * DAY, None) for item in _COUNTED]),
    _windowed("by_kinds", (_NAMED["flag"], CASE, _NAMED["day"]), [(*item, HOUR, None) for item in _COUNTED]),
    _CHOSEN,
    _windowed("by_text", (_NAMED["text"],), [(*item, DAY, None) for item in _BASIC]),
)
ROWS = (
    _row("latest", (CASE,), stream=True, ttl=0),
    _row("recent", (CASE,), stream=True, ttl=HOUR),
    _row("pair_latest", (_NAMED["b"], _NAMED["a"], CASE), stream=True, ttl=2 * DAY),
    _row("kinds_latest", (_NAMED["day"], _NAMED["flag"], CASE), stream=True, ttl=0),
    _CHOSEN_ROWS,
    _row("fact", (CASE,), stream=False, ttl=0),
    _row("fresh_fact", (CASE, _NAMED["a"]), stream=False, ttl=2 * DAY),
)
VIEWS: dict[str, View] = {view.name: view for view in sorted((*WINDOWED, *ROWS), key=lambda view: view.name)}


def manifest() -> Manifest:
    """The manifest of this catalog."""
    return Manifest(
        project="contract",
        tenant="contract",
        entities=tuple(Entity(field.name, field) for field in sorted(KEYS, key=lambda field: field.name)),
        event_sources=(EVENTS,),
        batch_sources=(FACTS,),
        windowed_views=tuple(sorted(WINDOWED, key=lambda view: view.name)),
        row_views=tuple(sorted(ROWS, key=lambda view: view.name)),
    )


def source_of(view: View) -> EventSource | BatchSource:
    """The source of a view, with the columns that the view computes."""
    return with_columns(EVENTS if view.source == EVENTS.name else FACTS, view)


def stream_of(view: View) -> EventSource:
    """The event source of a view, with the columns that the view computes."""
    return with_columns(EVENTS, view)


def is_batch(view: View) -> bool:
    """Whether a view reads the batch source."""
    return view.source == FACTS.name


def read_by(view: View) -> tuple[Field, ...]:
    """The value columns of its source that a view reads."""
    used = columns_read(view)
    return tuple(field for field in (*VALUES, NOTE) if field.name in used)
