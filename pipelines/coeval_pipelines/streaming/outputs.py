"""From good events to changelog topics, as Flink SQL: the tiles that the stream owns per granularity, or rows. Pure.

A changelog value is CSV: the hop of its tile in microseconds, or `ROW_MARKER`; then the columns named here; then
components or features. The key of the message is the encoded entity key.
"""

from __future__ import annotations

from collections.abc import Mapping

from coeval.aggregations.ops import OrderColumns
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.spec.dialects import render, render_condition
from coeval.spec.keys import key_sql
from coeval.spec.model import EventSource, Field, RowView, View, WindowedView, with_columns
from coeval_pipelines.streaming.literals import lines, physical_column, quote, sql_type, table
from coeval_pipelines.streaming.literals import view as sql_view

ROW_MARKER = 0
"""The first column of a changelog value that is a row."""
TILE_COLUMNS = ("tile", "events", "newest_event_ts", "newest_available_at")
"""Of a changelog value that is a tile: what follows the hop, before the components."""
ROW_COLUMNS = ("event_ts", "available_at", "log_partition", "log_offset")
"""Of a changelog value that is a row: what follows the marker, before the features."""
STRING_MARK = "="
"""Stands before every text, so that an absent one and an empty one differ."""
_ORDER = OrderColumns("event_ts", "available_at", "log_partition", "log_offset")
_TILE_AGGREGATES = (
    "COUNT(*) AS events",
    "MAX(event_ts) AS newest_event_ts",
    "MAX(available_at) AS newest_available_at",
)


def outputs(
    view: View, source: EventSource, since: int, topic: str, kafka: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """The statements that a view needs before, and the inserts that fill its changelog."""
    source = with_columns(source, view)
    if isinstance(view, RowView):
        sink, insert = _rows(view, source, topic, kafka)
        return [sink], [insert]
    statements: list[str] = []
    inserts: list[str] = []
    for granularity in tile_plan(view, source).granularities:
        tiles, sink, insert = _tiles(view, source, granularity, since, topic, kafka)
        statements += [tiles, sink]
        inserts.append(insert)
    return statements, inserts


def _tiles(
    view: WindowedView, source: EventSource, granularity: Granularity, since: int, topic: str, kafka: Mapping[str, str]
) -> tuple[str, str, str]:
    hop = granularity.hop
    name = f"{view.name}@{hop}"
    states = [
        f"{item.sql(physical_column(item.column), _ORDER)} AS {quote(item.name)}" for item in granularity.components
    ]
    inputs = sorted({item.column for item in granularity.components})
    first = granularity.first_owned(since) * hop
    tiles = sql_view(
        name,
        f"SELECT entity_key, tile, {lines([*_TILE_AGGREGATES, *states])}\n"  # noqa: S608
        f"FROM (\n  SELECT {_key(view)} AS entity_key, {_floor_div('event_ts', hop)} AS tile,\n"
        f"    {lines([*_ORDER, *(_input(view, name) for name in inputs)])}\n"
        f"  FROM {quote(source.name + '@good')}\n"
        f"  WHERE {_selection(view)} AND event_ts >= {first}\n"
        ")\n"
        f"WHERE available_at < (tile + 1) * {hop} + {source.allowed_lateness}\n"
        "GROUP BY entity_key, tile",
    )
    # An upsert sink takes the updates of an aggregate: absolute values, each replacing the one before. The key of its
    # messages is the entity alone. (TO_CHANGELOG would append them, but it makes mini-batch wait for watermarks, which
    # this job has none of, and so for the next checkpoint.)
    columns = ["entity_key STRING", "key_tile BIGINT", "marker BIGINT", *(f"{item} BIGINT" for item in TILE_COLUMNS)]
    columns += [f"{quote(item.name)} {item.storage.value}" for item in granularity.components]
    chosen = ", ".join([*TILE_COLUMNS, *(quote(item.name) for item in granularity.components)])
    insert = (
        f"INSERT INTO {quote(name + '@changelog')}\n"
        f"SELECT entity_key, tile, CAST({hop} AS BIGINT), {chosen} FROM {quote(name)}"
    )
    columns.append("PRIMARY KEY (entity_key, key_tile) NOT ENFORCED")
    return tiles, _sink(name + "@changelog", columns, topic, {"connector": "upsert-kafka"}, kafka), insert


def _rows(view: RowView, source: EventSource, topic: str, kafka: Mapping[str, str]) -> tuple[str, str]:
    name = f"{view.name}@changelog"
    features = [source.field(feature.name) for feature in view.features]
    columns = ["entity_key STRING", "marker BIGINT", *(f"{item} BIGINT" for item in ROW_COLUMNS)]
    columns += [f"{physical_column(field.name)} {sql_type(field.type)}" for field in features]
    values = [_marked(field, _value(view, field.name)) for field in features]
    insert = (
        f"INSERT INTO {quote(name)}\n"
        f"SELECT {_key(view)}, CAST({ROW_MARKER} AS BIGINT), {lines([*ROW_COLUMNS, *values])}\n"
        f"FROM {quote(source.name + '@good')}\nWHERE {_selection(view)}"
    )
    return _sink(name, columns, topic, {"connector": "kafka", "key.fields": "entity_key"}, kafka), insert


def _marked(field: Field, column: str) -> str:
    return f"CONCAT('{STRING_MARK}', {column})" if sql_type(field.type) == "STRING" else column


def _sink(name: str, columns: list[str], topic: str, connector: Mapping[str, str], kafka: Mapping[str, str]) -> str:
    options = {
        **connector,
        "topic": topic,
        **{f"properties.{name}": value for name, value in kafka.items()},
        "properties.linger.ms": "5",
        "key.format": "first-column",
        "value.format": "csv",
        "value.fields-include": "EXCEPT_KEY",
        "value.csv.null-literal": "",
        "value.csv.write-bigdecimal-in-scientific-notation": "false",
        # At least once: values are absolute and guarded, so nothing waits for a checkpoint to be seen.
        "sink.delivery-guarantee": "at-least-once",
    }
    return table(name, columns, options)


def _key(view: View) -> str:
    return key_sql(view.key, lambda field: physical_column(field.name))


def _selection(view: View) -> str:
    """Which good events the view sees."""
    has_key = [f"{physical_column(field.name)} IS NOT NULL" for field in view.key]
    chosen = [render_condition(view.where, "flink", physical_column)] if view.where else []
    return " AND ".join([*has_key, *chosen])


def _value(view: View, name: str) -> str:
    """The physical value of a column: of the event, or computed by the view."""
    computed = {item.field.name: item.expression for item in view.columns}
    return render(computed[name], "flink", physical_column) if name in computed else physical_column(name)


def _input(view: View, name: str) -> str:
    value = _value(view, name)
    return value if value == physical_column(name) else f"{value} AS {physical_column(name)}"


def _floor_div(column: str, hop: int) -> str:
    # SQL division truncates; a tile before the epoch must be floored.
    return f"({column} - MOD(MOD({column}, {hop}) + {hop}, {hop})) / {hop}"
