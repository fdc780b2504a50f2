"""What the log says the store should serve, and the events behind it: what either engine has to give. Pure.

`spark_log` reads logs of any size, `local_log` in this process what fits it; both give the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coeval.arrow import arrow_type
from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.keys import decode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import Field, RowView, View
from coeval.spec.records import Event, Reason, Record
from coeval.spec.types import DataType, Kind, Physical
from coeval_parity.compare import Values
from coeval_parity.evidence import Floor, erased_epoch
from coeval_pipelines.arrow import physical_numpy
from coeval_pipelines.offline.columns import logical_array, physical_array

Key: TypeAlias = tuple[Physical, ...]
Events: TypeAlias = dict[str, list[Event]]
"""By encoded entity key."""


class Log(Protocol):
    """The event logs of a manifest, pinned to one moment: every read of one run sees the same events."""

    @property
    def manifest(self) -> Manifest:
        """The definitions that it is read by."""

    @property
    def erasures(self) -> Sequence[Erasure]:
        """What was erased."""

    def holds(self, source: str, event: Event) -> bool:
        """Whether an event of a source is among those that count."""

    def newest(self, view: View) -> dict[str, int]:
        """Every entity key that the log has an event of, encoded and sorted, and when its newest event happened."""

    def values(self, view: View, keys: Sequence[str], at: NDArray[np.int64]) -> dict[str, Values]:
        """The value of every feature for each key at its instant, in the keys' order. A key may come several times."""

    def events(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """The good events of some keys that happened at or after `earliest`, visible or not."""

    def erased(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """The events of erased subjects under some keys of a view that is not keyed by them."""

    def duplicates(self, view: View, keys: Sequence[str], earliest: int | None) -> Events:
        """The discarded deliveries of some keys' events; batch sources have none."""

    def rejects(self, view: View) -> list[tuple[Record, Reason]]:
        """The records of a view's source that were rejected; batch sources have none."""


def floors_of(erasures: Sequence[Erasure], view: View, key: Key, erased: Sequence[Event]) -> tuple[Floor, ...]:
    """What was erased of a key that holds a subject; of a row of others, what its newest erased events reach."""
    places = [(place_in_key(view, item.column), item) for item in erasures]
    floors = tuple(
        Floor(item.at, item.epoch) for place, item in places if place is not None and key[place] == item.value
    )
    if not isinstance(view, RowView):
        return floors
    elsewhere = [item for place, item in places if place is None]
    newest: dict[int, int] = {}
    for event in erased:
        epoch = erased_epoch(event, elsewhere)
        newest[epoch] = max(event.event_ts, newest.get(epoch, event.event_ts))
    return (*floors, *(Floor(at, epoch) for epoch, at in newest.items()))


def key_columns(view: View, keys: Sequence[str]) -> dict[str, pa.Array]:
    """The parts of encoded keys as columns of logical values, in their order."""
    parts = [decode_key(view.key, key) for key in keys]
    return {
        field.name: logical_array(field.type, [part[index] for part in parts]) for index, field in enumerate(view.key)
    }


def fields_read(view: View, fields: Mapping[str, Field]) -> list[Field]:
    """The fields of events as they are judged: all that the source has, as other versions of the view may read others.

    The view's keys come first.
    """
    keys = [field.name for field in view.key]
    return [fields[name] for name in (*keys, *sorted(fields.keys() - {*keys}))]


def physical_list(field: Field, column: pa.Array | pa.ChunkedArray) -> list[Physical]:
    """An Arrow column of logical values as physical ones, None for null."""
    if field.type.kind is Kind.STRING:
        return column.to_pylist()  # type: ignore[no-any-return]
    numbers, valid = physical_numpy(physical_array(field.type, column))
    return [value if known else None for value, known in zip(numbers.tolist(), valid.tolist(), strict=True)]


def physical_values(data_type: DataType, column: pa.ChunkedArray) -> Values:
    """An Arrow column of logical values as physical ones."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], arrow_type(data_type))
    null = array.is_null().to_numpy(zero_copy_only=False)
    if data_type.kind is Kind.STRING:
        return Values(np.array(array.to_pylist(), dtype=object), null)
    return Values(_filled(data_type, array), null)


def _filled(data_type: DataType, array: pa.Array) -> NDArray[Any]:
    if data_type.kind is Kind.DECIMAL:
        return physical_numpy(array)[0]
    if data_type.kind is Kind.FLOAT64:
        return pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    if data_type.kind is Kind.DATE:
        array = array.cast(pa.int32())
    whole = pc.fill_null(array.cast(pa.int64()), 0)
    return whole.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def merged(parts: Iterable[Events]) -> Events:
    """Several reads of events as one."""
    found: Events = {}
    for part in parts:
        for key, events in part.items():
            found.setdefault(key, []).extend(events)
    return found


def rejected(table: pa.Table) -> list[tuple[Record, Reason]]:
    """The rows of a table of rejects."""
    return [
        (Record(row["value"], row["available_at"], row["partition"], row["offset"]), Reason(row["reason"]))
        for row in table.to_pylist()
    ]
