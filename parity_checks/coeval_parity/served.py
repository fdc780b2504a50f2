"""The serving log as a table: what was answered, taken from its topic exactly once. It knows Kafka and deltalake.

A row is identified by (topic, partition, offset). A batch is one commit, one writer at a time, and says what is read
next: so a row is there once, however often and wherever an ingest ends, and whatever is forgotten later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from coeval.errors import BrokerError
from coeval.serving_log import SCHEMA
from coeval.settings import Settings
from coeval.spec.erasure import Erasure
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field
from coeval.spec.records import Record
from coeval.spec.time import DAY
from coeval.spec.types import Kind, Physical, micros, parse_literal
from coeval_parity.topics import topic_records
from coeval_pipelines.erasures import ErasureTable
from coeval_pipelines.journal import ingest_journal
from coeval_pipelines.offline.arrow_files import delta_files
from coeval_pipelines.offline.event_log import topic_ends
from coeval_pipelines.offline.tables import latest_version
from coeval_pipelines.streaming.names import served_topic

if TYPE_CHECKING:
    from deltalake import DeltaTable

_AT_ONCE = 100_000
_TABLE = "served"
_TEXTS = ("service", "manifest", "entities", "features", "statuses")
_COLUMNS = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("at", pa.int64()),
        *((name, pa.string()) for name in _TEXTS),
    ]
)


@dataclass(frozen=True, slots=True)
class Response:
    """What was served to one entity at an instant (microseconds UTC): JSON values and statuses by view__feature."""

    at: int
    manifest: str
    entities: Mapping[str, Any]
    features: Mapping[str, Any]
    statuses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServedReport:
    """What an ingest of the serving log did."""

    rows: int = 0
    unreadable: int = 0
    erased: int = 0
    let_go: int = 0


def served_path(settings: Settings, tenant: str) -> Path:
    """Where the table is."""
    return settings.table_root / tenant / _TABLE


def ingest_served(settings: Settings, manifest: Manifest) -> ServedReport:
    """Take what is new in the serving log into its table, and rows of erased subjects and those too old out of it.

    Raises:
        BrokerError: the broker does not answer, or nothing was ever logged.
    """
    topic, path = served_topic(manifest.tenant), served_path(settings, manifest.tenant)
    with ingest_journal(settings, manifest.tenant, _TABLE).locked():
        begin, end = _ends(settings, topic)
        known = _next_offsets(path, end)
        start = {part: max(known.get(part, 0), first) for part, first in begin.items()}
        rows = unreadable = 0
        records = topic_records(settings, topic, start, end)
        while batch := list(islice(records, _AT_ONCE)):
            parsed = [_row(topic, record) for record in batch]
            good = [row for row in parsed if row is not None]
            _append(path, good)
            rows, unreadable = rows + len(good), unreadable + len(batch) - len(good)
        return replace(_forget(settings, manifest), rows=rows, unreadable=unreadable)


def forget(settings: Settings, manifest: Manifest) -> ServedReport:
    """Take the rows of erased subjects and those too old out of the table and its files, without the topic."""
    with ingest_journal(settings, manifest.tenant, _TABLE).locked():
        return _forget(settings, manifest)


def _ends(settings: Settings, topic: str) -> tuple[dict[int, int], dict[int, int]]:
    try:
        return topic_ends(settings, topic)
    except BrokerError as error:
        if "There is no topic" not in error.reason:
            raise
        raise BrokerError(
            f"Nothing was logged of what is served: there is no topic {topic}.",
            "Log a share of it: COEVAL_SERVER__SERVING_LOG=0.01 coeval serve",
        ) from error


def _next_offsets(path: Path, partitions: Iterable[int]) -> dict[int, int]:
    """The next offset to read of each partition that was read, from what the commits say."""
    from deltalake import DeltaTable

    if latest_version(path) is None:
        return {}
    table = DeltaTable(str(path))
    found = {part: table.transaction_version(_reader(part)) for part in partitions}
    return {part: offset for part, offset in found.items() if offset is not None}


def _reader(partition: int) -> str:
    return f"coeval-served-{partition}"


def _row(topic: str, record: Record) -> dict[str, Any] | None:
    """A row of the table; None where the record is no row of a serving log that this release reads."""
    try:
        document = json.loads(record.value or b"")
        if document["schema"] != SCHEMA:
            return None
        at = micros(datetime.fromisoformat(document["at"]))
        texts = {name: document[name] for name in ("service", "manifest")}
        texts |= {name: json.dumps(document[name]) for name in ("entities", "features", "statuses")}
    except (ValueError, KeyError, TypeError):
        return None
    return {"topic": topic, "partition": record.partition, "offset": record.offset, "at": at, **texts}


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    from deltalake import CommitProperties, Transaction, write_deltalake

    if not rows:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    reached = {row["partition"]: row["offset"] + 1 for row in sorted(rows, key=lambda row: row["offset"])}
    read = [Transaction(_reader(part), offset) for part, offset in reached.items()]
    write_deltalake(
        str(path),
        pa.Table.from_pylist(rows, _COLUMNS),
        mode="append",
        # Statistics stand in the table's log, which keeps them when the rows are gone: of texts there are none.
        configuration={"delta.dataSkippingStatsColumns": "partition,offset,at"},
        commit_properties=CommitProperties(app_transactions=read),
    )


def _forget(settings: Settings, manifest: Manifest) -> ServedReport:
    """Take the rows of erased subjects and those too old out of the table and its files; how many there were."""
    path, days = served_path(settings, manifest.tenant), settings.server.serving_log_days
    erasures = ErasureTable(settings, manifest.tenant).erasures()
    if not (erasures or days) or latest_version(path) is None:
        return ServedReport()
    from deltalake import DeltaTable

    table = DeltaTable(str(path))
    erased = _erase(table, path, manifest, erasures) if erasures else 0
    let_go = _let_go(table, time.time_ns() // 1000 - int(days * DAY)) if days else 0
    # Even where nothing is found: whoever found it last may not have come so far.
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    return ServedReport(erased=erased, let_go=let_go)


def _let_go(table: DeltaTable, before: int) -> int:
    """Take out the rows of before an instant (microseconds UTC)."""
    return int(table.delete(f'"at" < {before}')["num_deleted_rows"])


def _erase(table: DeltaTable, path: Path, manifest: Manifest, erasures: Sequence[Erasure]) -> int:
    rows = delta_files(path).read(["partition", "offset", "entities"]).to_pylist()
    mine = [row for row in rows if names_erased(manifest, json.loads(row["entities"]), erasures)]
    for part in sorted({row["partition"] for row in mine}):
        offsets = ", ".join(str(row["offset"]) for row in mine if row["partition"] == part)
        table.delete(f'"partition" = {part} AND "offset" IN ({offsets})')
    return len(mine)


def names_erased(manifest: Manifest, entities: Mapping[str, Any], erasures: Iterable[Erasure]) -> bool:
    """Whether entities, as JSON has them, name an erased subject."""
    fields = {entity.key.name: entity.key for entity in manifest.entities}
    return any(
        item.column in fields and _physical_or_none(fields[item.column], entities.get(item.column)) == item.value
        for item in erasures
    )


def _physical_or_none(field: Field, value: Any) -> Physical:
    try:
        return physical(field, value)
    except ValueError:
        return None


def responses(settings: Settings, manifest: Manifest, since: int | None, until: int | None) -> Iterator[Response]:
    """What was served from an instant on, and before another (microseconds UTC), in no order; None: no bound."""
    path = served_path(settings, manifest.tenant)
    if latest_version(path) is None:
        return
    condition = pc.scalar(True)
    if since is not None:
        condition &= ds.field("at") >= since
    if until is not None:
        condition &= ds.field("at") < until
    table = delta_files(path).read(["at", *_TEXTS], condition)
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            parts = (json.loads(row[name]) for name in ("entities", "features", "statuses"))
            yield Response(row["at"], row["manifest"], *parts)


def physical(field: Field, value: Any) -> Physical:
    """The physical value of what JSON says of a feature or key.

    Raises:
        ValueError: it is not of the field's type.
    """
    if value is None:
        return None
    match field.type.kind:
        case Kind.TIMESTAMP:
            return micros(datetime.fromisoformat(value))
        case Kind.FLOAT64:
            return float(value)
        case Kind.BOOL:
            return int(value)
        case Kind.STRING:
            return str(value)
    return parse_literal(field.type, str(value))
