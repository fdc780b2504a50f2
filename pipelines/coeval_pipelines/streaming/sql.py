"""The stream job of one event source, as Flink SQL computed from the manifest. Pure: text in, text out.

source table -> good events (validated, deduplicated, physical columns) -> per view and granularity the tiles that the
stream owns, or rows -> changelog topics. Lateness is decided per event and tile from the log alone, so that a replay
decides alike: an event counts in a tile iff available_at < tile_end + allowed_lateness.

Flink's JSON reader is more lenient than `coeval.spec.records.parse_record`, which judges raw bytes in the log. Only the
stream takes: a key that stands twice, anything after the closing brace, an array of objects (each as an event), an
object or array where a text is declared, bare control characters inside a text, a byte order mark, UTF-16 or UTF-32,
ill-formed UTF-8 in some forms. Only the log takes: an undeclared field with a number of over 1000 digits. Such records
differ until batch has written the tile anew. (VARIANT would catch the first, but rewrites 1.50 to 1.5 and 1e5 to
100000.0 before a literal can be judged, fails the job on an array, and takes trailing text as well.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field, View, WindowedView, columns_read
from coeval.spec.time import HOUR
from coeval_pipelines.streaming.literals import is_valid, lines, physical, physical_column, quote, table
from coeval_pipelines.streaming.names import changelog_topic, group_id, job_name, stream_views
from coeval_pipelines.streaming.outputs import outputs

STATE_SLACK = HOUR
"""Processing time that a job may be down or behind beyond hop and lateness before its state is no longer whole."""


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
        made, insert = outputs(view, source, since.get(view.name, 0), topic, bootstrap)
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
    hops = [item.hop for view in views if isinstance(view, WindowedView) for item in view.aggregates]
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
    return table(f"{source.name}@topic", columns, options)


def _good_events(source: EventSource, views: tuple[View, ...]) -> str:
    """Valid events, once each, with physical columns and the effective event time."""
    used = _used_fields(source, views)
    # 1970-based seconds and the rest: exact beyond 2038, where a difference in a finer unit overflows an INT.
    available = (
        f"EXTRACT(EPOCH FROM {quote(_TIMESTAMP)}) * 1000000 + EXTRACT(MILLISECOND FROM {quote(_TIMESTAMP)}) * 1000"
    )
    valid = lines([is_valid(field) for field in source.fields], " AND\n    ")
    identity, declared = source.field(source.event_id), source.field(source.event_ts)
    columns = [
        f"{physical(identity)} AS event_identity",
        f"{physical(declared)} AS declared_ts",
        f"{available} AS available_at",
        f"{quote(_PARTITION)} AS log_partition",
        f"{quote(_OFFSET)} AS log_offset",
        *(f"{physical(field)} AS {physical_column(field.name)}" for field in used),
    ]
    names = ["available_at", "log_partition", "log_offset", *(physical_column(field.name) for field in used)]
    return (
        f"CREATE TEMPORARY VIEW {quote(source.name + '@good')} AS\n"  # noqa: S608
        f"SELECT {lines(['LEAST(declared_ts, available_at) AS event_ts', *names])}\n"
        "FROM (\n"
        # A running count, not ROW_NUMBER() = 1: with mini-batch, Flink 2.3 takes the latter for an updating result.
        "  SELECT *, COUNT(*) OVER (PARTITION BY event_identity, declared_ts ORDER BY arrival\n"
        "    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS copy_number\n"
        "  FROM (\n"
        f"    SELECT {lines(columns)}, {quote(_ARRIVAL)} AS arrival\n"
        f"    FROM {quote(source.name + '@topic')}\n    WHERE {valid}\n"
        "  )\n"
        f"  WHERE declared_ts <= available_at + {source.max_future_skew}\n"
        ")\nWHERE copy_number = 1"
    )


def _used_fields(source: EventSource, views: tuple[View, ...]) -> list[Field]:
    names = frozenset[str]().union(*(columns_read(view) for view in views))
    return [field for field in source.fields if field.name in names]
