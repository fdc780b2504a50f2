"""Labels: which one a spine row gets, and when it is too early to tell. Pure; it knows Arrow types.

A label is read as a batch view is: by the as-of join, at `event_timestamp + delay`, and it expires after the delay, so
that of the labels with `event_timestamp < at <= event_timestamp + delay` the latest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from coeval.errors import UsageError
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, Field, RowView
from coeval.spec.time import parse_duration
from coeval.spec.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType, Kind
from coeval.training import Labels
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.columns import sql_name, sql_type
from coeval_pipelines.offline.spine_rules import key_fields

_NAME = "__labels"


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How labels are joined: a source and a view of their file, a manifest that knows both, microseconds of delay."""

    manifest: Manifest
    source: BatchSource
    view: RowView
    delay: int

    @property
    def columns(self) -> list[str]:
        """The labels."""
        return [field.name for field in self.view.features]

    def column(self, label: str) -> str:
        """What the engines call a label before it has its own name."""
        return f"{_NAME}__{label}"


def delay_of(labels: Labels) -> int:
    """The delay in microseconds.

    Raises:
        UsageError: it is no duration.
    """
    try:
        found = parse_duration(labels.delay)
    except ValueError as error:
        raise UsageError(f"{error}.", "Give the delay of the labels such as 30d or 12h.") from error
    if found <= 0:
        raise UsageError("Labels without a delay are columns of the spine.", "Give a delay such as 30d or 12h.")
    return found


def label_rule(
    asked: Asked, labels: Labels, path: Path, types: Mapping[str, pa.DataType], spine: Sequence[str]
) -> LabelRule:
    """The rule of labels that lie in a Parquet file with these columns, for a spine with those.

    Raises:
        UsageError: no key or no label is among them, or the instant is missing, a type is not known, or a name taken.
    """
    keys = [field for field in key_fields(asked.views) if field.name in types]
    names = [name for name in types if name != labels.at and name not in {field.name for field in keys}]
    if not keys or not names or labels.at not in types:
        wanted = ", ".join(field.name for field in key_fields(asked.views))
        raise UsageError(
            f"The labels have the columns {', '.join(types)}.",
            f"They need keys of the service ({wanted}), the instant {labels.at}, and a label.",
        )
    _check_types(labels, keys, types)
    others = {name.lower() for name in (*spine, *asked.outputs, *asked.stored)}
    taken = sorted(name for name in names if name.lower() in others)
    if taken:
        raise UsageError(
            f"The spine or the service already has columns named {', '.join(taken)}.", "Rename the labels."
        )
    features = tuple(Field(name, _type(name, types[name])) for name in names)
    own = tuple(replace(field, nullable=False) for field in keys)
    source = BatchSource(
        _NAME, str(path), "parquet", (*own, Field(labels.at, TIMESTAMP, nullable=False), *features), labels.at
    )
    delay = delay_of(labels)
    entities = tuple(entity.name for entity in asked.manifest.entities if entity.key.name in types)
    # A label of the instant itself is what the row already says.
    view = RowView(_NAME, entities, own, _NAME, features, stream=False, ttl=delay - 1)
    manifest = replace(asked.manifest, batch_sources=(*asked.manifest.batch_sources, source))
    return LabelRule(manifest, source, view, delay)


def _check_types(labels: Labels, keys: Sequence[Field], types: Mapping[str, pa.DataType]) -> None:
    found = {name: sql_name(kind) for name, kind in types.items()}
    if found[labels.at] != "timestamp":
        raise UsageError(
            f"The labels' {labels.at} is a {found[labels.at]}.",
            "Make it an instant with a time zone: a timestamp in UTC.",
        )
    for field in keys:
        integers = field.type.kind is Kind.INT64 and pa.types.is_signed_integer(types[field.name])
        if not integers and found[field.name] != sql_type(field.type).lower():
            raise UsageError(
                f"The labels' {field.name} is a {found[field.name]}; this key is a {field.type}.",
                f"Cast it to {sql_type(field.type).lower()}.",
            )


def _type(name: str, arrow: pa.DataType) -> DataType:
    if pa.types.is_integer(arrow):
        return INT64
    if pa.types.is_floating(arrow):
        return FLOAT64
    if pa.types.is_decimal(arrow):
        return DataType(Kind.DECIMAL, arrow.precision, arrow.scale)
    if pa.types.is_timestamp(arrow) and arrow.tz:
        return TIMESTAMP
    known = {pa.string(): STRING, pa.bool_(): BOOL, pa.date32(): DATE}
    if arrow not in known:
        raise UsageError(
            f"The label {name} is a {arrow}.", "Make it a number, a text, a boolean, a date or an instant."
        )
    return known[arrow]
