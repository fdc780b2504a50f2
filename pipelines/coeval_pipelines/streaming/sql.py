"""The stream job of one event source, as Flink SQL computed from the manifest. Pure: text in, text out.

source table -> good events (validated, deduplicated, physical columns) -> per view and granularity the tiles that the
stream owns, or rows -> changelog topics. Lateness is decided per event and tile from the log alone, so that a replay
decides alike: an event counts in a tile iff available_at < tile_end + allowed_lateness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.spec.keys import key_sql
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field, RowView, View, WindowedView
from coeval.spec.time import HOUR
from coeval_pipelines.streaming.literals import is_valid, physical, quote, sql_type, text
from coeval_pipelines.streaming.names import changelog_topic, group_id, job_name, stream_views

STATE_SLACK = HOUR
"""Processing time that a job may be down or behind beyond hop and lateness before its state is no longer whole."""
ROW_MARKER = 0
"""The first column of a changelog value: the hop of its tile in microseconds, or this for a row."""

_TIMESTAMP, _PARTITION, _OFFSET, _ARRIVAL = (
    f"coeval:{name}" for name in ("timestamp", "partition", "offset", "arrival")
)


@dataclass(frozen=True, slots=True)
class SourceJob:
    """The job of one source. `graph` is the hash of what its state depends on: a checkpoint fits only the same one."""

    source: str
    name: str
    group: str
    graph: str
    state_ttl: int
    """Microseconds of processing time that state is kept."""
    statements: tuple[str, ...]


def source_job(manifest: Manifest, source_name: str, since: Mapping[str, int], bootstrap: str) -> SourceJob:
    """The job of an event source; `since` is, by view name, from when on the stream owns tiles (microseconds UTC)."""
    source = manifest.sources[source_name]
    assert isinstance(source, EventSource)
    views = stream_views(manifest, source_name)
    group = group_id(manifest, source_name)
    inserts: list[str] = []
    statements = [_source_table(source, group, bootstrap), _good_events(source, views)]
    for view in views:
        topic = changelog_topic(manifest, view)
        made, insert = _outputs(view, source, since.get(view.name, 0), topic, bootstrap)
        statements += made
        inserts += insert
    statements.append("EXECUTE STATEMENT SET BEGIN\n" + ";\n".join(inserts) + ";\nEND")
    return SourceJob(
        source=source_name,
        name=job_name(manifest, source_name),
        group=group,
        graph=hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16],
        state_ttl=state_ttl(source, views),
        statements=tuple(statements),
    )


def state_ttl(source: EventSource, views: tuple[View, ...]) -> int:
    """How long state is kept: a duplicate or an event that comes after it is late for every tile by rule."""
    hops = [
        item.hop for view in views if isinstance(view, WindowedView) for item in tile_plan(view, source).granularities
    ]
    return max(hops, default=HOUR) + source.allowed_lateness + source.max_future_skew + STATE_SLACK


def _source_table(source: EventSource, group: str, bootstrap: str) -> str:
    columns = [f"{quote(field.name)} STRING" for field in source.fields]
    columns += [
        f"{quote(_TIMESTAMP)} TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL",
        f"{quote(_PARTITION)} INT METADATA FROM 'partition' VIRTUAL",
        f"{quote(_OFFSET)} BIGINT METADATA FROM 'offset' VIRTUAL",
        f"{quote(_ARRIVAL)} AS PROCTIME()",
    ]
    options = {
        "connector": "kafka",
        "topic": source.topic,
        "properties.bootstrap.servers": bootstrap,
        "properties.group.id": group,
        "scan.startup.mode": "earliest-offset",
        "value.format": "json",
        "value.json.ignore-parse-errors": "true",
    }
    return _table(f"{source.name}@topic", columns, options)


def _good_events(source: EventSource, views: tuple[View, ...]) -> str:
    """Valid events, once each, with physical columns and the effective event time."""
    used = _used_fields(source, views)
    # 1970-based seconds and the rest: exact beyond 2038, where a difference in a finer unit overflows an INT.
    available = (
        f"EXTRACT(EPOCH FROM {quote(_TIMESTAMP)}) * 1000000 + EXTRACT(MILLISECOND FROM {quote(_TIMESTAMP)}) * 1000"
    )
    valid = _lines([is_valid(field) for field in source.fields], " AND\n    ")
    identity, declared = source.field(source.event_id), source.field(source.event_ts)
    columns = [
        f"{physical(identity)} AS event_identity",
        f"{physical(declared)} AS declared_ts",
        f"{available} AS available_at",
        f"{quote(_PARTITION)} AS log_partition",
        f"{quote(_OFFSET)} AS log_offset",
        *(f"{physical(field)} AS {_column(field.name)}" for field in used),
    ]
    names = ["available_at", "log_partition", "log_offset", *(_column(field.name) for field in used)]
    return (
        f"CREATE TEMPORARY VIEW {quote(source.name + '@good')} AS\n"  # noqa: S608
        f"SELECT {_lines(['LEAST(declared_ts, available_at) AS event_ts', *names])}\n"
        "FROM (\n"
        # A running count, not ROW_NUMBER() = 1: with mini-batch, Flink 2.3 takes the latter for an updating result.
        "  SELECT *, COUNT(*) OVER (PARTITION BY event_identity, declared_ts ORDER BY arrival\n"
        "    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS copy_number\n"
        "  FROM (\n"
        f"    SELECT {_lines(columns)}, {quote(_ARRIVAL)} AS arrival\n"
        f"    FROM {quote(source.name + '@topic')}\n    WHERE {valid}\n"
        "  )\n"
        f"  WHERE declared_ts <= available_at + {source.max_future_skew}\n"
        ")\nWHERE copy_number = 1"
    )


def _used_fields(source: EventSource, views: tuple[View, ...]) -> list[Field]:
    names: set[str] = set()
    for view in views:
        names |= {field.name for field in view.key}
        if isinstance(view, WindowedView):
            names |= {aggregate.column for aggregate in view.aggregates if aggregate.column}
        else:
            names |= {field.name for field in view.features}
    return [field for field in source.fields if field.name in names]


def _outputs(view: View, source: EventSource, since: int, topic: str, bootstrap: str) -> tuple[list[str], list[str]]:
    if isinstance(view, RowView):
        table, insert = _rows(view, source, topic, bootstrap)
        return [table], [insert]
    statements: list[str] = []
    inserts: list[str] = []
    for granularity in tile_plan(view, source).granularities:
        tiles, table, insert = _tiles(view, source, granularity, since, topic, bootstrap)
        statements += [tiles, table]
        inserts.append(insert)
    return statements, inserts


def _tiles(
    view: WindowedView, source: EventSource, granularity: Granularity, since: int, topic: str, bootstrap: str
) -> tuple[str, str, str]:
    hop = granularity.hop
    name = f"{view.name}@{hop}"
    states = [f"{item.sql(_column(item.column))} AS {quote(item.name)}" for item in granularity.components]
    inputs = sorted({_column(item.column) for item in granularity.components})
    first = granularity.first_owned(since) * hop
    tiles = (
        f"CREATE TEMPORARY VIEW {quote(name)} AS\n"  # noqa: S608
        f"SELECT entity_key, tile, {_lines([*_TILE_AGGREGATES, *states])}\n"
        f"FROM (\n  SELECT {_key(view)} AS entity_key, {_floor_div('event_ts', hop)} AS tile,\n"
        f"    {_lines(['event_ts', 'available_at', *inputs])}\n"
        f"  FROM {quote(source.name + '@good')}\n"
        f"  WHERE {_has_key(view)} AND event_ts >= {first}\n"
        ")\n"
        f"WHERE available_at < (tile + 1) * {hop} + {source.allowed_lateness}\n"
        "GROUP BY entity_key, tile"
    )
    columns = ["entity_key STRING", "marker BIGINT", *(f"{item} BIGINT" for item in TILE_COLUMNS)]
    columns += [f"{quote(item.name)} {'DECIMAL(38, 0)' if item.wide else 'BIGINT'}" for item in granularity.components]
    chosen = ", ".join([*TILE_COLUMNS, *(quote(item.name) for item in granularity.components)])
    insert = (
        f"INSERT INTO {quote(name + '@changelog')}\n"
        f"SELECT entity_key, CAST({hop} AS BIGINT), {chosen} FROM {quote(name)}"
    )
    # An upsert sink takes the updates of an aggregate: absolute values, each replacing the one before. It also writes
    # an empty message where a value is taken back, which readers skip. (TO_CHANGELOG would spare these, but it makes
    # mini-batch wait for watermarks, which this job has none of, and so for the next checkpoint.)
    columns.append("PRIMARY KEY (entity_key) NOT ENFORCED")
    return tiles, _sink(name + "@changelog", columns, topic, {"connector": "upsert-kafka"}, bootstrap), insert


TILE_COLUMNS = ("tile", "events", "last_event_ts", "last_available_at")
"""Of a changelog value that is a tile: what follows the hop, before the components."""
ROW_COLUMNS = ("event_ts", "available_at", "log_partition", "log_offset")
"""Of a changelog value that is a row: what follows the marker, before the features."""
STRING_MARK = "="
"""Stands before every text, so that an absent one and an empty one differ."""
_TILE_AGGREGATES = (
    "COUNT(*) AS events",
    "MAX(event_ts) AS last_event_ts",
    "MAX(available_at) AS last_available_at",
)


def _rows(view: RowView, source: EventSource, topic: str, bootstrap: str) -> tuple[str, str]:
    name = f"{view.name}@changelog"
    features = [source.field(feature.name) for feature in view.features]
    columns = ["entity_key STRING", "marker BIGINT", *(f"{item} BIGINT" for item in ROW_COLUMNS)]
    columns += [f"{_column(field.name)} {sql_type(field.type)}" for field in features]
    values = [_marked(field) for field in features]
    insert = (
        f"INSERT INTO {quote(name)}\n"
        f"SELECT {_key(view)}, CAST({ROW_MARKER} AS BIGINT), {_lines([*ROW_COLUMNS, *values])}\n"
        f"FROM {quote(source.name + '@good')}\nWHERE {_has_key(view)}"
    )
    return _sink(name, columns, topic, {"connector": "kafka", "key.fields": "entity_key"}, bootstrap), insert


def _marked(field: Field) -> str:
    column = _column(field.name)
    return f"CONCAT('{STRING_MARK}', {column})" if sql_type(field.type) == "STRING" else column


def _sink(name: str, columns: list[str], topic: str, connector: Mapping[str, str], bootstrap: str) -> str:
    options = {
        **connector,
        "topic": topic,
        "properties.bootstrap.servers": bootstrap,
        "properties.linger.ms": "5",
        "key.format": "raw",
        "value.format": "csv",
        "value.fields-include": "EXCEPT_KEY",
        "value.csv.null-literal": "",
        "value.csv.write-bigdecimal-in-scientific-notation": "false",
        # At least once: values are absolute and guarded, so nothing waits for a checkpoint to be seen.
        "sink.delivery-guarantee": "at-least-once",
    }
    return _table(name, columns, options)


def _key(view: View) -> str:
    return key_sql(view.key, quote("f:{}"))


def _has_key(view: View) -> str:
    return " AND ".join(f"{_column(field.name)} IS NOT NULL" for field in view.key)


def _column(name: str) -> str:
    """The physical column of a field: prefixed, so that no field can be taken for the envelope."""
    return quote(f"f:{name}")


def _floor_div(column: str, hop: int) -> str:
    # SQL division truncates; a tile before the epoch must be floored.
    return f"({column} - MOD(MOD({column}, {hop}) + {hop}, {hop})) / {hop}"


def _table(name: str, columns: list[str], options: Mapping[str, str]) -> str:
    settings = _lines([f"{text(key)} = {text(value)}" for key, value in options.items()])
    return f"CREATE TEMPORARY TABLE {quote(name)} (\n    {_lines(columns)}\n) WITH (\n    {settings}\n)"


def _lines(items: list[str], separator: str = ",\n    ") -> str:
    return separator.join(items)
