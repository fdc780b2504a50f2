"""Erasure in the online store: floors that no replay gets below, and the values below them gone. It knows Redis.

A floor is an instant T and an epoch E. Rows that were available at or before T, and tiles that start at or before T and
were written under an epoch up to E, are taken away, refused by the guard and not seen by readers. Each bucket of a view
remembers the floors of its subjects, so that a key that does not exist yet is born with its floor.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from coeval.aggregations.tiles import TilePlan
from coeval.online import keys
from coeval.online.layout import TILE_BIAS, ring_offset
from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.keys import bucket_of, decode_key, encode_key
from coeval.spec.model import RowView, View

if TYPE_CHECKING:
    import redis

Order = tuple[int, int, int, int]
"""(event_ts, available_at, partition, offset) of a row: the total order."""
CALL_SIZE = 200
"""Keys per call of the store: short enough not to hold the others up."""
_SCAN = 1000
_FLOOR = struct.Struct(">qI")
_ORDER = struct.Struct(">iqqq")
"""Partition, event_ts, available_at, offset: as in the header of a row."""
_RING = struct.Struct(">IIIQ")


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure found in a view: keys that hold the subject, and tiles or rows that were taken away."""

    keys: int
    taken: int


def erased_key(tenant: str, view: View, bucket: int) -> str:
    """Where a bucket of a view version keeps the floors that its keys are born with; the guard knows the name too."""
    return f"{tenant}:{{{bucket}}}:@erased:{view.name}:{view.version}"


class OnlineEraser:
    """Erasures of one tenant; safe to use from one thread."""

    def __init__(self, client: redis.Redis, tenant: str) -> None:
        self._client = client
        self._tenant = tenant
        room = files("coeval.online")
        self._script: Any = client.register_script(room.joinpath("erase.lua").read_text())
        self._rows_script: Any = client.register_script(room.joinpath("erase_rows.lua").read_text())

    def erase(self, view: View, plan: TilePlan | None, erasure: Erasure) -> Erased:
        """Raise the floor of every key of the view that holds the subject, and take away what lies below.

        `plan` is the view's tile plan, None for a row view. It may be repeated, and floors are never lowered.

        Raises:
            ValueError: the view's key does not hold the subject.
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        part, buckets = self._remembered(view, erasure)
        arguments: list[str | bytes] = [part, _FLOOR.pack(erasure.at, erasure.epoch), *_rings(plan, erasure.at)]
        # New keys are born with the floor from here on; those that are there already are then found.
        for bucket in buckets:
            self._call(view, bucket, [], arguments)
        found = [0, 0]
        for bucket, names in self._stored(view, erasure).items():
            for start in range(0, len(names), CALL_SIZE):
                changed, taken = self._call(view, bucket, names[start : start + CALL_SIZE], arguments)
                found = [found[0] + changed, found[1] + taken]
        return Erased(*found)

    def has_floor(self, view: View, erasure: Erasure) -> bool:
        """Whether every bucket in which keys of the subject may be remembers a floor at or above this one."""
        part, buckets = self._remembered(view, erasure)
        known: list[Any] = [self._client.hget(erased_key(self._tenant, view, bucket), part) for bucket in buckets]
        return all(value is not None and _FLOOR.unpack(value)[0] >= erasure.at for value in known)

    def erase_rows(self, view: RowView, rows: Sequence[tuple[str, Order]]) -> int:
        """Refuse rows by their encoded key and their order, and take them away; returns how many were stored.

        For views whose keys do not hold the subject. It may be repeated.

        Raises:
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        buckets: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
        for key, (event_ts, available_at, partition, offset) in rows:
            name = keys.data_key(self._tenant, view, key)
            order = _ORDER.pack(partition, event_ts, available_at, offset)
            buckets[bucket_of(key, view.partitions)].append((name, order))
        taken = 0
        for bucket, mine in buckets.items():
            for start in range(0, len(mine), CALL_SIZE):
                some = mine[start : start + CALL_SIZE]
                names = [erased_key(self._tenant, view, bucket), *(name for name, _ in some)]
                taken += self._rows_script(keys=names, args=[order for _, order in some])
        return taken

    def count(self, view: View, erasure: Erasure) -> int:
        """How many stored keys of the view hold the subject."""
        names = [name for mine in self._stored(view, erasure).values() for name in mine]
        return sum(self._client.exists(name) for name in names)  # type: ignore[misc]

    def _remembered(self, view: View, erasure: Erasure) -> tuple[str, Sequence[int]]:
        place, text = _part(view, erasure)
        every = [bucket_of(text, view.partitions)] if len(view.key) == 1 else range(view.partitions)
        return f"{place}:{text}", every

    def _stored(self, view: View, erasure: Erasure) -> Mapping[int, Sequence[str]]:
        """The names of the keys that hold the subject, by bucket: the exact one, or those that a scan finds."""
        place, text = _part(view, erasure)
        if len(view.key) == 1:
            return {bucket_of(text, view.partitions): [keys.data_key(self._tenant, view, text)]}
        found: dict[int, set[str]] = defaultdict(set)
        for key in self._scan(view, place, text):
            found[bucket_of(key, view.partitions)].add(keys.data_key(self._tenant, view, key))
        return {bucket: sorted(names) for bucket, names in found.items()}

    def _scan(self, view: View, place: int, text: str) -> Iterator[str]:
        parts = ["*"] * len(view.key)
        parts[place] = _literal(text)
        view_part = f"}}:{view.name}:{view.version}:"
        pattern = f"{_literal(self._tenant)}:{{*{_literal(view_part)}{'|'.join(parts)}"
        for name in self._client.scan_iter(match=pattern, count=_SCAN):
            key = (name.decode() if isinstance(name, bytes) else name).partition(view_part)[2]
            if _holds(view, key, place, text):
                yield key

    def _call(self, view: View, bucket: int, names: Sequence[str], arguments: Sequence[str | bytes]) -> Sequence[int]:
        kind = "tile" if len(arguments) > 2 else "row"
        found: Sequence[int] = self._script(
            keys=[erased_key(self._tenant, view, bucket), *names], args=[kind, *arguments]
        )
        return found


def _part(view: View, erasure: Erasure) -> tuple[int, str]:
    place = place_in_key(view, erasure.column)
    if place is None:
        raise ValueError(f"the key of {view.name} does not hold {erasure.column}")
    return place, encode_key(view.key[place : place + 1], [erasure.value])


def _holds(view: View, key: str, place: int, text: str) -> bool:
    """Whether an entity key holds the subject; other names in the store are no keys."""
    try:
        decode_key(view.key, key)
    except ValueError:
        return False
    return key.split("|")[place] == text


def _literal(text: str) -> str:
    """A text as a pattern of the store that matches nothing else."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def _rings(plan: TilePlan | None, at: int) -> list[bytes]:
    """For the script: where each ring is, and the last tile that starts at or before the floor."""
    if plan is None:
        return []
    return [
        _RING.pack(ring_offset(plan, item.hop), item.slots, item.dtype.itemsize, max(0, at // item.hop + TILE_BIAS))
        for item in plan.granularities
    ]
