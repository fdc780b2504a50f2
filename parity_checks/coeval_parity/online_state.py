"""Read what the online store serves, for every key of a view, by the reader's own code. It knows Redis.

The order of reading carries the proof: how far the writers had got is read first, the values after it, and the instant
that they are judged at is taken last. So the store holds at least what its progress says, and an event that it lacks
at that instant was either on its way or lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coeval.aggregations.states import from_limbs
from coeval.aggregations.tiles import Granularity, tile_plan
from coeval.online.keys import data_key
from coeval.online.layout import TILE_BIAS, decode_tiles
from coeval.online.merge import unavailable
from coeval.online.plan import codec_of
from coeval.online.result import Column
from coeval.online.rows import decode_row
from coeval.online.store import fetch
from coeval.online.writer import OnlineWriter
from coeval.spec.keys import bucket_of, decode_key
from coeval.spec.manifest import Manifest
from coeval.spec.model import View, WindowedView
from coeval_parity.evidence import Delivery, Slot, Stored
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.streaming.names import changelog_topic

if TYPE_CHECKING:
    import redis

BATCH = 1000
"""Keys per MGET."""

Clock = Callable[[], int]
Chosen = Callable[[str], bool]
"""Whether an encoded key is looked at."""


def every_key(key: str) -> bool:
    """Leaves no key out."""
    del key
    return True


@dataclass(frozen=True, slots=True)
class Served:
    """What a view serves for some keys: a column per feature, and per key the instant that it was read for."""

    keys: tuple[str, ...]
    at: NDArray[np.int64]
    columns: Mapping[str, Column]
    ready: bool


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a view: how far its writers had got before, what was served then, and the raw state where asked."""

    view: View
    delivery: Delivery
    served: Served
    blobs: Mapping[str, bytes | None]


def read_delivery(manifest: Manifest, view: View, writer: OnlineWriter, control: ControlPlane) -> Delivery:
    """How far the writers of a view have got, by the control plane and the store's own changelog offsets."""
    deployment = control.deployment(view.name, view.version)
    load = control.last_load(view.name, view.version)
    certified: Mapping[int, int] | None = None
    if is_streamed(view):
        topic = changelog_topic(manifest, view)
        offsets = writer.offsets(view)
        reached = (item for item in control.every_certificate(view.source) if item.is_reached(topic, offsets))
        certified = next((certificate.offsets for certificate in reached), None)
    return Delivery(
        since=deployment.since if deployment else None,
        load_cut=load.cut if load else None,
        rows_at=load.rows_at if load else None,
        certified=certified,
        freshness=view.sla.freshness,
        load_run=load.run if load else 0,
    )


def stored_keys(client: redis.Redis, manifest: Manifest, view: View) -> list[str]:
    """Every entity key that is stored for a view version, sorted; found by scanning, whatever the log says."""
    names = client.scan_iter(match=f"{manifest.tenant}:{{*}}:{view.name}:{view.version}:*", count=BATCH)
    pattern = re.compile(rf"{re.escape(manifest.tenant)}:{{(\d+)}}:{view.name}:{view.version}:(.*)", re.DOTALL)
    found: set[str] = set()
    for name in names:
        match = pattern.fullmatch(name.decode() if isinstance(name, bytes) else name)
        if match and bucket_of(match[2], view.partitions) == int(match[1]) and _is_key(view, match[2]):
            found.add(match[2])
    return sorted(found)


def _is_key(view: View, text: str) -> bool:
    """Whether a reader could ask for it: no other name in the store can ever be served."""
    try:
        decode_key(view.key, text)
    except ValueError:
        return False
    return True


def look(
    client: redis.Redis,
    manifest: Manifest,
    view: View,
    control: ControlPlane,
    clock: Clock,
    keys: Sequence[str] | None = None,
    *,
    keep: bool = False,
    chosen: Chosen = every_key,
) -> Look:
    """Read a view for some keys (None: for the stored ones that are `chosen`); `keep` keeps the state of every key."""
    writer = OnlineWriter(client, manifest.tenant)
    delivery = read_delivery(manifest, view, writer, control)
    ready = writer.is_ready(view)
    parts: list[Served] = []
    blobs: dict[str, bytes | None] = {}
    found = [key for key in stored_keys(client, manifest, view) if chosen(key)] if keys is None else keys
    for chunk in _chunks(found):
        fetched = fetch(client, [data_key(manifest.tenant, view, key) for key in chunk])
        parts.append(serve(manifest, view, chunk, fetched, clock(), ready=ready))
        blobs.update(zip(chunk, fetched, strict=True) if keep else ())
    # A store that was wiped between the first and the last key is not one that readers believe.
    served = joined(manifest, view, parts, clock(), ready=ready and writer.is_ready(view))
    return Look(view, delivery, served, blobs)


def serve(
    manifest: Manifest, view: View, keys: Sequence[str], blobs: Sequence[bytes | None], q: int, *, ready: bool
) -> Served:
    """What the reader makes of stored state at q."""
    names = [field.name for field in view.features]
    if not ready:
        columns = {field.name: unavailable(field, len(blobs)) for field in view.features}
    else:
        block = codec_of(manifest, view).read(blobs, names, (), q)
        columns = {name: block.column(name) for name in names}
    return Served(tuple(keys), np.full(len(blobs), q, dtype=np.int64), columns, ready)


def joined(manifest: Manifest, view: View, parts: Sequence[Served], q: int, *, ready: bool) -> Served:
    """Several reads of a view as one."""
    parts = parts or [serve(manifest, view, [], [], q, ready=ready)]
    if any(part.ready != ready for part in parts):
        parts = [serve(manifest, view, part.keys, [None] * len(part.keys), q, ready=False) for part in parts]
    keys = tuple(key for part in parts for key in part.keys)
    columns = {field.name: _concatenated([part.columns[field.name] for part in parts]) for field in view.features}
    return Served(keys, np.concatenate([part.at for part in parts]), columns, ready)


def _concatenated(columns: Sequence[Column]) -> Column:
    return Column(
        columns[0].type,
        np.concatenate([column.values for column in columns]),
        np.concatenate([column.null for column in columns]),
        np.concatenate([column.status for column in columns]),
    )


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def stored_state(manifest: Manifest, view: View, blob: bytes | None) -> Stored:
    """The tiles or the row that one key's state holds, as plain values."""
    if blob is None:
        return Stored({})
    if not isinstance(view, WindowedView):
        return Stored({}, decode_row(view.features, blob)[0])
    plan = tile_plan(view, manifest.event_source(view))
    rings = decode_tiles(plan, [blob]).rings
    return Stored({item.hop: _slots(item, rings[item.hop][0]) for item in plan.granularities})


def _slots(granularity: Granularity, ring: NDArray[np.void]) -> dict[int, Slot]:
    used = ring[ring["tile"] != 0]
    states = {item.name: _numbers(used[item.name]) for item in granularity.components}
    found: dict[int, Slot] = {}
    for index, slot in enumerate(used):
        tile = int(slot["tile"]) - TILE_BIAS
        values = {name: column[index] for name, column in states.items()}
        found[tile] = Slot(tile, int(slot["epoch"]), int(slot["events"]), values)
    return found


def _numbers(states: NDArray[Any]) -> list[int | float]:
    return (from_limbs(states["low"], states["high"]) if states.dtype.names else states).tolist()  # type: ignore[no-any-return]
