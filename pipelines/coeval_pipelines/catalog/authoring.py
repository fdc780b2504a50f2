"""What catalog files import beside Feast: typed helpers for what Feast has no field for. It knows Feast, no engine.

They return Feast's own values (fields, aggregations, formats, tags), so that a catalog stays a plain Feast repository.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence

from feast import Field as FeastField
from feast.data_format import JsonFormat
from feast.data_source import DataSource

from coeval.spec.model import Field
from coeval_pipelines.catalog import tags
from coeval_pipelines.catalog.imported import derived_view
from coeval_pipelines.catalog.lenient import read_on
from coeval_pipelines.catalog.offered import ComputedColumn, computed, feast_field, known_columns, selection
from coeval_pipelines.catalog.schema import column, to_json_schema
from coeval_pipelines.catalog.tags import as_duration, deprecated, sla
from coeval_pipelines.catalog.windowing import count, of, windowed

__all__ = [
    "batch_tags", "column", "computed", "count", "deprecated", "derived_view", "entity_tags", "event_tags", "feature",
    "json_events", "of", "selection", "sla", "take", "windowed",
]  # fmt: skip

# Feast says of stream and on-demand views that they are experimental: its engines for them are, and none is used here.
warnings.filterwarnings("ignore", message=".*is an experimental feature|.*are experimental features", module="feast")


read_on()


def json_events(*columns: Field) -> JsonFormat:
    """The format of a topic of flat JSON objects with these columns."""
    return JsonFormat(to_json_schema(columns))


def event_tags(
    event_id: str,
    max_future_skew: str = "5m",
    *,
    dedup: bool = True,
    expected_rate: float = 0.0,
    canary: Mapping[str, object] | None = None,
) -> dict[str, str]:
    """The tags of an event source: the column that identifies an event, and how far a clock may run ahead.

    `dedup=False` spares the stream to look for duplicates, where producers are idempotent; the log looks anyway.
    `expected_rate` is events a second, on average; 0 means: not said. `canary` names columns and their values of a
    synthetic event that measures freshness: at least a key that is nobody's.
    """
    stated = {tags.EVENT_ID: event_id, tags.SKEW: as_duration(max_future_skew)}
    stated |= ({} if dedup else {tags.DEDUP: "off"}) | ({tags.RATE: repr(expected_rate)} if expected_rate else {})
    return stated | ({tags.CANARY: json.dumps(canary)} if canary else {})


def batch_tags(*columns: Field) -> dict[str, str]:
    """The tags of a batch source with these columns."""
    return {tags.SCHEMA: to_json_schema(columns)}


def entity_tags(pii: str) -> dict[str, str]:
    """The tags of an entity: the PII class of its key."""
    return {tags.PII_CLASS: pii}


def feature(
    name: str,
    data_type: str,
    description: str,
    *,
    pii: str,
    low: object = "",
    high: object = "",
    allowed: Iterable[object] = (),
) -> FeastField:
    """A typed Feast field with its PII class and what it should hold, as `column` takes them."""
    return feast_field(column(name, data_type, description, pii=pii, low=low, high=high, allowed=allowed))


def take(source: DataSource, *names: str, columns: Sequence[ComputedColumn] = ()) -> list[FeastField]:
    """The fields of a row view: these columns of its source, with type, description and PII class as declared there.

    Columns that the view computes are given too, and stated to the view with `tags=selection(columns=...)`.
    """
    known = known_columns(source, columns)
    return [feast_field(known.column(name)) for name in names if not known.is_refused(name)]
