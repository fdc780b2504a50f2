"""The stream job of one event source, as Flink SQL computed from the manifest. Pure: text in, text out.

source table -> judged records -> good events (each once) -> per view and granularity the tiles that the stream owns, or
rows -> changelog topics; and beside them the count of what was judged. A record is judged by the Java function beside
this module, by the same rules as in the log (`coeval.spec.records`). Lateness is decided per event and tile from the
log alone, so that a replay decides alike: an event counts in a tile iff available_at < tile_end + allowed_lateness.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field, View, WindowedView, columns_read
from coeval.spec.time import HOUR
from coeval_pipelines.control.model import Run
from coeval_pipelines.streaming.accounting import accounts
from coeval_pipelines.streaming.literals import lines, physical_column, quote, table, text, view
from coeval_pipelines.streaming.names import accounting_topic, changelog_topic, group_id, job_name, run_views
from coeval_pipelines.streaming.outputs import outputs

STATE_SLACK = HOUR
"""Processing time that a job may be down or behind beyond hop and lateness before its state is no longer whole."""
JUDGE = "coeval_judge"
"""What the Java function is called in SQL."""
JUDGE_FUNCTION = f"CREATE TEMPORARY SYSTEM FUNCTION IF NOT EXISTS {JUDGE} AS 'coeval.flink.EventFunction'"
_VALUE, _KEY, _HEADERS, _TIMESTAMP = "record_value", "record_key", "record_headers", "record_timestamp"


@dataclass(frozen=True, slots=True)
class SourceJob:
    """The job of one run. `graph` is the hash of what its state depends on: a checkpoint fits only the same one."""

    source: str
    name: str
    graph: str
    state_ttl: int
    """Microseconds of processing time that state is kept."""
    statements: tuple[str, ...]


def source_job(manifest: Manifest, run: Run, kafka: Mapping[str, str]) -> SourceJob:
    """The job of a run; `kafka` holds the properties of a client by which Flink reaches the broker."""
    source = manifest.sources[run.source]
    assert isinstance(source, EventSource)
    # What only says where to begin and whom to ask is no part of the graph.
    plain = _statements(manifest, source, replace(run, number=0, identity="", start={}), {})
    return SourceJob(
        source=run.source,
        name=job_name(manifest, run),
        graph=hashlib.sha256("\n".join(plain).encode()).hexdigest()[:16],
        state_ttl=state_ttl(source, run_views(manifest, run)),
        statements=_statements(manifest, source, run, kafka),
    )


def _statements(manifest: Manifest, source: EventSource, run: Run, kafka: Mapping[str, str]) -> tuple[str, ...]:
    views = run_views(manifest, run)
    inserts: list[str] = []
    used = _used_fields(source, views)
    statements = [
        JUDGE_FUNCTION,
        _source_table(source, group_id(manifest, run), run.start, kafka),
        _judged(source, used),
        _valid_events(source, used),
        _good_events(source, used),
    ]
    for item in views:
        made, insert = outputs(item, source, run.since.get(item.name, 0), changelog_topic(manifest, item), kafka)
        statements += made
        inserts += insert
    made, count = accounts(source, views, run.label, accounting_topic(manifest, source.name), kafka)
    statements += made
    inserts.append(count)
    statements.append("EXECUTE STATEMENT SET BEGIN\n" + ";\n".join(inserts) + ";\nEND")
    return tuple(statements)


def state_ttl(source: EventSource, views: tuple[View, ...]) -> int:
    """How long state is kept: a duplicate or an event that comes after it is late for every tile by rule."""
    hops = [item.hop for view in views if isinstance(view, WindowedView) for item in view.aggregates]
    return max(hops, default=HOUR) + source.allowed_lateness + source.max_future_skew + STATE_SLACK


def _source_table(source: EventSource, group: str, start: Mapping[int, int], kafka: Mapping[str, str]) -> str:
    origins = {field.origin.partition(":")[0] for field in source.fields}
    columns = [f"{_VALUE} BYTES"]
    options = {
        "connector": "kafka",
        "topic": source.topic,
        **{f"properties.{name}": value for name, value in kafka.items()},
        "properties.group.id": group,
        **_startup(start),
        "value.format": "raw",
    }
    if "key" in origins:
        columns.append(f"{_KEY} BYTES")
        options |= {"key.format": "raw", "key.fields": _KEY, "value.fields-include": "EXCEPT_KEY"}
    if "header" in origins:
        columns.append(f"{_HEADERS} MAP<STRING, BYTES> METADATA FROM 'headers' VIRTUAL")
    columns += [
        f"{_TIMESTAMP} TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL",
        "log_partition INT METADATA FROM 'partition' VIRTUAL",
        "log_offset BIGINT METADATA FROM 'offset' VIRTUAL",
        "arrival AS PROCTIME()",
    ]
    return table(f"{source.name}@topic", columns, options)


def _startup(start: Mapping[int, int]) -> dict[str, str]:
    if not start:
        return {"scan.startup.mode": "earliest-offset"}
    offsets = ";".join(f"partition:{partition},offset:{offset}" for partition, offset in sorted(start.items()))
    return {"scan.startup.mode": "specific-offsets", "scan.startup.specific-offsets": offsets}


def _judged(source: EventSource, used: Sequence[Field]) -> str:
    """Every record, once, with what is wrong with it or what it says."""
    origins = {field.origin.partition(":")[0] for field in source.fields}
    key = _KEY if "key" in origins else "CAST(NULL AS BYTES)"
    headers = _HEADERS if "header" in origins else "CAST(NULL AS MAP<STRING, BYTES>)"
    call = f"{JUDGE}({_VALUE}, {key}, {headers}, {_TIMESTAMP}, {text(declared(source, used))})"
    return view(
        f"{source.name}@judged",
        f"SELECT {lines(['reason', 'event_identity', 'declared_ts', *_event_columns(used), 'arrival'])}\n"
        f"FROM {quote(source.name + '@topic')}, LATERAL TABLE({call})",
    )


def _event_columns(used: Sequence[Field]) -> list[str]:
    return ["event_ts", "available_at", "log_partition", "log_offset", *(physical_column(field.name) for field in used)]


def declared(source: EventSource, used: Sequence[Field]) -> str:
    """What the Java function has to know of a source."""
    fields = [
        {
            "name": field.name,
            "kind": field.type.kind.value,
            "precision": field.type.precision,
            "scale": field.type.scale,
            "nullable": field.nullable,
            "origin": field.origin,
            "used": field in used,
        }
        for field in source.fields
    ]
    envelope = {"source": source.name, "event_id": source.event_id, "event_ts": source.event_ts}
    return json.dumps(envelope | {"max_future_skew": source.max_future_skew, "fields": fields}, ensure_ascii=False)


def _valid_events(source: EventSource, used: Sequence[Field]) -> str:
    """Valid events, each with whether it is the first of its identity; where nobody looks for duplicates, all are."""
    # A running count, not ROW_NUMBER() = 1: with mini-batch, Flink 2.3 takes the latter for an updating result.
    number = (
        "COUNT(*) OVER (PARTITION BY event_identity, declared_ts ORDER BY arrival\n"
        "    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    )
    judged = f"{quote(source.name + '@judged')}\nWHERE reason IS NULL"
    counted = f"(\n  SELECT *, {number} AS copy_number\n  FROM {judged}\n)"  # noqa: S608
    first = lines(["copy_number = 1 AS is_first" if source.dedup else "TRUE AS is_first", *_event_columns(used)])
    return view(f"{source.name}@valid", f"SELECT {first}\nFROM {counted if source.dedup else judged}")


def _good_events(source: EventSource, used: Sequence[Field]) -> str:
    """Valid events, once each, with physical columns and the effective event time."""
    columns = lines(_event_columns(used))
    return view(f"{source.name}@good", f"SELECT {columns}\nFROM {quote(source.name + '@valid')}\nWHERE is_first")


def _used_fields(source: EventSource, views: tuple[View, ...]) -> list[Field]:
    names = frozenset[str]().union(*(columns_read(view) for view in views))
    return [field for field in source.fields if field.name in names]
