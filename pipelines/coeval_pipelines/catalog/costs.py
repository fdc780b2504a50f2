"""What a view takes: online, and to backfill it. Pure: what is there comes as a value, and what is unknown stays so."""

from __future__ import annotations

from dataclasses import dataclass

from coeval.aggregations.tiles import tile_plan
from coeval.online.layout import blob_size
from coeval.online.rows import ROW_HEADER
from coeval.spec.manifest import Manifest
from coeval.spec.model import RowView, View, WindowedView
from coeval.spec.types import DataType, Kind
from coeval_pipelines.catalog.deployed import Deployed, Stored

KEY_BYTES = 120
"""What Redis needs for a key besides its value: the name, and its own records of both. Measured: see the tests."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """One granularity of a windowed view: tiles of one length, `slots` of them a key, of `bytes` each."""

    length: str
    slots: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a view takes. None: not known, and `keys_from` says why; else it says where the number is from.

    `planned_bytes` is the most that the state of one key can take, `texts` whether rows of it hold texts, which come on
    top; `bytes_per_key` is what a key
    is expected to take with all that Redis needs for it; `events` are to be read again by a backfill.
    """

    keys: int | None
    keys_margin: int
    keys_from: str
    planned_bytes: int
    texts: bool
    bytes_per_key: int
    redis_bytes: int | None
    events: int | None
    partitions: int
    tiles: tuple[Tiles, ...] = ()
    events_per_second: float | None = None
    """How many its stream's owner expects; None: not said."""


def view_cost(view: View, manifest: Manifest, there: Deployed) -> Cost:
    """What a view takes online and to backfill, as far as it can be known."""
    planned = planned_bytes(view, manifest)
    keys, margin, origin, stored = _keys(view, there)
    each = planned + KEY_BYTES
    if stored:
        each = round(_scaled(stored, view, planned, there) if origin.startswith("as") else stored.bytes_per_key)
    return Cost(
        keys=keys,
        keys_margin=margin,
        keys_from=origin,
        planned_bytes=planned,
        texts=isinstance(view, RowView) and any(field.type.kind is Kind.STRING for field in view.features),
        bytes_per_key=each,
        redis_bytes=None if keys is None else keys * each,
        events=there.events.get(view.source),
        partitions=view.partitions,
        tiles=_tiles(view, manifest),
        events_per_second=getattr(manifest.sources[view.source], "expected_rate", None),
    )


def planned_bytes(view: View, manifest: Manifest) -> int:
    """The most that the state of one key takes, header included; for rows without the text of strings."""
    if isinstance(view, WindowedView):
        return blob_size(tile_plan(view, manifest.event_source(view)))
    return _row_bytes(view)


def _row_bytes(view: RowView) -> int:
    widths = [_width(field.type) for field in view.features]
    return ROW_HEADER.size + (len(widths) + 7) // 8 + sum(widths)


def _width(data_type: DataType) -> int:
    """Bytes of a value in a row; of a string, those of its length."""
    if data_type.kind is Kind.STRING:
        return 4
    return 16 if data_type.is_wide else 8


def _tiles(view: View, manifest: Manifest) -> tuple[Tiles, ...]:
    if not isinstance(view, WindowedView):
        return ()
    plan = tile_plan(view, manifest.event_source(view))
    return tuple(Tiles(item.name, item.slots, item.dtype.itemsize) for item in plan.granularities)


def _keys(view: View, there: Deployed) -> tuple[int | None, int, str, Stored | None]:
    """Keys, margin, where they are from, and what was found in the store."""
    online = there.online
    own = online.stored.get((view.name, view.version))
    if own:
        return own.keys, own.margin, "sampled" if own.margin else "counted", own
    if online.silent:
        return None, 0, online.silent, None
    sibling = _sibling(view, there)
    if sibling is None:
        return None, 0, "no view with this key and source is online", None
    stored = online.stored[sibling.name, sibling.version]
    return stored.keys, stored.margin, f"as {sibling.name} has now" + (", or fewer" if view.where else ""), stored


def _sibling(view: View, there: Deployed) -> View | None:
    """A view of the baseline that is online and has the same keys: itself first, then any on the same source."""
    baseline = there.baseline
    alike = [
        item
        for item in (baseline.views.values() if baseline else ())
        if item.key == view.key and item.source == view.source and (item.name, item.version) in there.online.stored
    ]
    # One with a condition may have fewer keys than this one will.
    return min(alike, key=lambda item: (item.name != view.name, item.where is not None, item.name), default=None)


def _scaled(stored: Stored, view: View, planned: int, there: Deployed) -> float:
    """Bytes a key, by what the sibling's keys really take beside what was planned for them."""
    baseline, sibling = there.baseline, _sibling(view, there)
    if baseline is None or sibling is None or isinstance(sibling, WindowedView) != isinstance(view, WindowedView):
        return planned + KEY_BYTES
    # What Redis needs for a key does not grow with its value.
    return KEY_BYTES + max(stored.bytes_per_key - KEY_BYTES, 0) * planned / planned_bytes(sibling, baseline)
