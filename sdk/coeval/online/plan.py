"""The read plan: which keys a request needs and how each view is decoded. Pure: a value to print, test and execute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coeval.errors import EntityKeyError
from coeval.online.keys import bucket_prefix, ready_key
from coeval.spec.keys import bucket_of, encode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field, ServiceView, View
from coeval.spec.types import Physical, to_physical


@dataclass(frozen=True, slots=True)
class ViewRead:
    """One view of a request: its features in order, and which of the fetched keys are its own.

    From `start` on stand the ready markers of its `buckets`, those that the request touches, then `count` data keys;
    `bucket_of_row` says which of the buckets each of them lies in.
    """

    view: View
    features: tuple[str, ...]
    start: int
    count: int
    buckets: tuple[int, ...]
    bucket_of_row: tuple[int, ...]

    @property
    def data(self) -> int:
        """Where its data keys begin."""
        return self.start + len(self.buckets)


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """One MGET: view by view, the ready markers of the buckets, then the data keys."""

    keys: tuple[str, ...]
    reads: tuple[ViewRead, ...]
    rows: int


def plan_read(manifest: Manifest, views: Sequence[ServiceView], entities: Mapping[str, Sequence[Any]]) -> ReadPlan:
    """Plan the read of some views for entities given as columns by join key.

    Raises:
        EntityKeyError: a join key is missing, null, of the wrong type, or columns differ in length.
    """
    rows = row_count(entities)
    chosen = [(manifest.views[item.view], item.features) for item in views]
    names: list[str] = []
    reads: list[ViewRead] = []
    columns: dict[Field, list[Physical]] = {}
    for view, features in chosen:
        for field in view.key:
            if field not in columns:
                columns[field] = _physical_key(view, field, entities)
        keys = [encode_key(view.key, values) for values in zip(*[columns[field] for field in view.key], strict=True)]
        buckets = [bucket_of(key, view.partitions) for key in keys]
        prefixes = {bucket: bucket_prefix(manifest.tenant, view, bucket) + ":" for bucket in buckets}
        reads.append(ViewRead(view, features, len(names), rows, tuple(prefixes), tuple(buckets)))
        names += [ready_key(manifest.tenant, view, bucket) for bucket in prefixes]
        names += [prefixes[bucket] + key for bucket, key in zip(buckets, keys, strict=True)]
    return ReadPlan(tuple(names), tuple(reads), rows)


def row_count(entities: Mapping[str, Sequence[Any]]) -> int:
    """How many entities there are.

    Raises:
        EntityKeyError: the columns differ in length.
    """
    lengths = {name: len(values) for name, values in entities.items()}
    if len(set(lengths.values())) > 1:
        raise EntityKeyError(
            f"Entity columns differ in length: {lengths}.", "Give one value per entity in each column."
        )
    return next(iter(lengths.values()), 0)


def _physical_key(view: View, field: Field, entities: Mapping[str, Sequence[Any]]) -> list[Physical]:
    if field.name not in entities:
        raise EntityKeyError(
            f"The view {view.name} needs the key {field.name}; the request has {', '.join(entities) or 'none'}.",
            f"Add {field.name} ({field.type}) to the entities.",
        )
    return [_checked_key(view, field, value) for value in entities[field.name]]


def _checked_key(view: View, field: Field, value: Any) -> Physical:
    try:
        physical = to_physical(field.type, value.item() if hasattr(value, "item") else value)
    except ValueError as error:
        raise EntityKeyError(f"{field.name} of {view.name}: {error}.", f"Give a {field.type}.") from error
    if physical is None:
        raise EntityKeyError(f"{field.name} of {view.name} is null.", "A key is never null: leave the row out.")
    return physical
