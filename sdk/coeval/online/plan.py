"""The read plan: which keys a request needs and how each view is decoded. Pure: a value to print, test and execute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from coeval.errors import EntityKeyError
from coeval.online.keys import bucket_prefix, buckets_of, ready_key, ready_line
from coeval.online.merge import WindowCodec
from coeval.online.rows import RowCodec
from coeval.spec.keys import encode_keys
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field, ServiceView, View, WindowedView
from coeval.spec.types import INT64_MAX, INT64_MIN, Kind, Physical, to_physical

Entities = Mapping[str, Sequence[Any]]


class ViewRead(NamedTuple):
    """One view of a request: its features in order, and which of the fetched keys are its own.

    From `start` on stand its data keys, one per row; `buckets` says in which bucket each lies, `line` what the list of
    ready views of a bucket has to say.
    """

    view: View
    codec: RowCodec | WindowCodec
    features: tuple[str, ...]
    line: bytes
    start: int
    buckets: Sequence[int]
    touched: Sequence[int]
    """Each of the buckets once."""


class ReadPlan(NamedTuple):
    """One MGET: view by view the data keys, then which views are ready, of each bucket that is touched.

    `markers` says where those stand, by bucket.
    """

    keys: list[str]
    reads: tuple[ViewRead, ...]
    markers: Mapping[int, int]
    rows: int


class ReadPlanner:
    """Plans reads of some views: what does not depend on the request is worked out once."""

    def __init__(self, manifest: Manifest, views: Sequence[ServiceView]) -> None:
        self._tenant = manifest.tenant
        # Views of the same entity in as many buckets have their keys in common.
        self._keyed: list[View] = []
        self._views: list[_PlannedView] = []
        for item in views:
            view = manifest.views[item.view]
            like = [(other.key, other.partitions) for other in self._keyed]
            if (view.key, view.partitions) not in like:
                self._keyed.append(view)
                like.append((view.key, view.partitions))
            self._views.append(_PlannedView(manifest, item, like.index((view.key, view.partitions))))

    def plan(self, entities: Entities) -> ReadPlan:
        """Plan a read for entities given as columns by join key.

        Raises:
            EntityKeyError: a join key is missing, null, of the wrong type, or columns differ in length.
        """
        rows = row_count(entities)
        names: list[str] = []
        reads: list[ViewRead] = []
        keyed: list[tuple[list[str], list[int], tuple[int, ...]]] = []
        for view in self._keyed:
            keys = encode_keys(view.key, [_physical_key(view, field, entities) for field in view.key])
            buckets = buckets_of(keys, view.partitions)
            keyed.append((keys, buckets, tuple(dict.fromkeys(buckets))))
        for item in self._views:
            keys, buckets, touched = keyed[item.keys]
            reads.append(ViewRead(item.view, item.codec, item.features, item.line, len(names), buckets, touched))
            prefixes = item.prefixes
            names += [prefixes[bucket] + key for bucket, key in zip(buckets, keys, strict=True)]
        markers: dict[int, int] = {}
        for _, _, some in keyed:
            for bucket in some:
                if bucket not in markers:
                    markers[bucket] = len(names)
                    names.append(ready_key(self._tenant, bucket))
        return ReadPlan(names, tuple(reads), markers, rows)


class _PlannedView:
    """What a view's reads have in common."""

    def __init__(self, manifest: Manifest, item: ServiceView, keys: int) -> None:
        self.view = manifest.views[item.view]
        self.keys = keys
        self.codec = codec_of(manifest, self.view)
        self.features = item.features
        self.line = ready_line(self.view).encode()
        buckets = range(self.view.partitions)
        self.prefixes = [bucket_prefix(manifest.tenant, self.view, bucket) + ":" for bucket in buckets]


def codec_of(manifest: Manifest, view: View) -> RowCodec | WindowCodec:
    """How what is stored of a view becomes features."""
    if isinstance(view, WindowedView):
        return WindowCodec(view, manifest.event_source(view))
    return RowCodec(view.features, view.ttl)


def row_count(entities: Entities) -> int:
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


def _physical_key(view: View, field: Field, entities: Entities) -> Sequence[Physical]:
    if field.name not in entities:
        raise EntityKeyError(
            f"The view {view.name} needs the key {field.name}; the request has {', '.join(entities) or 'none'}.",
            f"Add {field.name} ({field.type}) to the entities.",
        )
    values = entities[field.name]
    kinds = set(map(type, values))
    if field.type.kind is Kind.INT64 and kinds == {int} and min(values) >= INT64_MIN and max(values) <= INT64_MAX:
        return values
    if field.type.kind is Kind.STRING and kinds == {str} and "".join(values).isascii():
        return values
    return [_checked_key(view, field, value) for value in values]


def _checked_key(view: View, field: Field, value: Any) -> Physical:
    try:
        physical = to_physical(field.type, value.item() if hasattr(value, "item") else value)
        if isinstance(physical, str):
            physical.encode()
    except ValueError as error:
        raise EntityKeyError(f"{field.name} of {view.name}: {error}.", f"Give a {field.type}.") from error
    if physical is None:
        raise EntityKeyError(f"{field.name} of {view.name} is null.", "A key is never null: leave the row out.")
    return physical
