"""Erasure in the online store: floors that no replay gets below, and the values below them gone. It knows Redis.

A floor is an instant T and an epoch E. Rows that happened or were available at or before T, and tiles that start at or
before T, are taken away and refused by the guard if they were written under an epoch up to E; readers do not see them.
Each bucket of a view version remembers the floors of its subjects, so that a key that does not exist yet is born with
its floor, and how much of the table of erasures it has: a bucket that was wiped has nothing of it.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from coeval.aggregations.tiles import TilePlan
from coeval.online import keys
from coeval.online.layout import TILE_BIAS, ring_offset
from coeval.online.store import Script, fetch_field
from coeval.spec.erasure import Erasure, place_in_key
from coeval.spec.keys import bucket_of, decode_key, encode_key
from coeval.spec.model import RowView, View

if TYPE_CHECKING:
    import redis

Subject = tuple[int, str]
"""Where a subject stands in a view's key, and its text there."""
CALL_SIZE = 200
"""Keys per call of the store: short enough not to hold the others up."""
_CALLS = 50
"""Calls per round trip."""
_SCAN = 1000
_FLOOR = struct.Struct(">qI")
_RING = struct.Struct(">IIIQ")
_MARK = """
if redis.call('HGET', KEYS[1], 'pending') ~= ARGV[1] then return 0 end
return redis.call('HSET', KEYS[1], 'applied', ARGV[1])
"""
"""Says that a bucket has so much of the table, unless it was wiped since its floors were set."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure found in a view: keys that hold the subject, and tiles or rows that were taken away."""

    keys: int = 0
    taken: int = 0


def erased_key(tenant: str, view: View, bucket: int) -> str:
    """Where a bucket of a view version keeps the floors that its keys are born with; the guard knows the name too."""
    return f"{tenant}:{{{bucket}}}:@erased:{view.name}:{view.version}"


class OnlineEraser:
    """Erasures of one tenant; safe to use from one thread."""

    def __init__(self, client: redis.Redis, tenant: str) -> None:
        self._client = client
        self._tenant = tenant
        room = files("coeval.online")
        self._floors, self._take, self._rows = (
            Script(client, room.joinpath(name).read_text())
            for name in ("erase_floors.lua", "erase.lua", "erase_rows.lua")
        )
        self._mark = Script(client, _MARK)

    def applied(self, view: View) -> dict[int, int]:
        """By bucket, how many entries of the table of erasures it has.

        Raises:
            redis.RedisError: the store refused or did not answer.
        """
        names = [erased_key(self._tenant, view, bucket) for bucket in range(view.partitions)]
        return {bucket: int(found or 0) for bucket, found in enumerate(fetch_field(self._client, names, "applied"))}

    def bring_up(self, view: View, plan: TilePlan | None, table: Sequence[Erasure]) -> Erased:
        """Apply to each bucket of a view what it does not have of the table of erasures, in one scan at most.

        One caller at a time. It may be repeated, and floors are never lowered.

        Raises:
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        behind: dict[int, list[int]] = defaultdict(list)
        for bucket, applied in self.applied(view).items():
            if applied < len(table):
                behind[applied].append(bucket)
        found = Erased()
        for applied, buckets in behind.items():
            done = self.erase(view, plan, table[applied:], buckets, str(len(table)))
            found = Erased(found.keys + done.keys, found.taken + done.taken)
            self._mark.run_all([([erased_key(self._tenant, view, at)], [str(len(table))]) for at in buckets])
        return found

    def erase(
        self,
        view: View,
        plan: TilePlan | None,
        erasures: Iterable[Erasure],
        buckets: Collection[int] | None = None,
        pending: str = "",
    ) -> Erased:
        """Raise the floor of every key of some buckets (None: all) that holds a subject; take away what lies below.

        `plan` is the view's tile plan, None for a row view. Erasures of what the key does not hold are left out.
        `pending` is what `bring_up` will say of the buckets once this is done.

        Raises:
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        subjects = _subjects(view, erasures)
        chosen = range(view.partitions) if buckets is None else buckets
        # New keys are born with the floor from here on; those that are there already are then found.
        self._raise(view, subjects, chosen, pending)
        kind = "row" if plan is None else "tile"
        calls: list[tuple[Sequence[str], list[str | bytes]]] = []
        for (subject, _), names in self._stored(view, subjects, chosen).items():
            erasure = subjects[subject]
            arguments: list[str | bytes] = [kind, _floor(erasure), *_rings(plan, erasure.at)]
            calls += [(names[at : at + CALL_SIZE], arguments) for at in range(0, len(names), CALL_SIZE)]
        counts = [count for some in _slices(calls, _CALLS) for count in self._take.run_all(some)]
        return Erased(sum(found for found, _ in counts), sum(taken for _, taken in counts))

    def erase_rows(self, view: RowView, floors: Sequence[tuple[str, int]], epoch: int) -> int:
        """Refuse what writers of an epoch up to `epoch` say of single keys, by (encoded key, instant up to which).

        For views whose keys do not hold the subject; returns how many stored rows were taken away. It may be repeated.

        Raises:
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        buckets: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
        for key, at in floors:
            found = keys.data_key(self._tenant, view, key), _FLOOR.pack(at, epoch)
            buckets[bucket_of(key, view.partitions)].append(found)
        calls = [
            ([erased_key(self._tenant, view, bucket), *(name for name, _ in some)], [floor for _, floor in some])
            for bucket, mine in buckets.items()
            for some in _slices(mine, CALL_SIZE)
        ]
        return sum(taken for some in _slices(calls, _CALLS) for taken in self._rows.run_all(some))

    def drop(self, view: View) -> int:
        """Delete all that is stored of a view version, its offsets, markers and floors too; returns how many keys.

        Raises:
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        tenant, name, version = (_literal(part) for part in (self._tenant, view.name, view.version))
        dropped = 0
        for pattern in (f"{tenant}:{{*}}:@*:{name}:{version}", f"{tenant}:{{*}}:{name}:{version}:*"):
            names: list[Any] = []
            for found in self._client.scan_iter(match=pattern, count=_SCAN):
                names.append(found)
                if len(names) == _SCAN:
                    dropped += self._client.unlink(*names)  # type: ignore[operator]
                    names = []
            dropped += self._client.unlink(*names) if names else 0  # type: ignore[operator]
        return dropped

    def count(self, view: View, erasure: Erasure) -> int:
        """How many stored keys of the view hold the subject."""
        stored = self._stored(view, _subjects(view, [erasure]), range(view.partitions))
        return sum(self._client.exists(name) for names in stored.values() for name in names)  # type: ignore[misc]

    def _raise(self, view: View, subjects: Mapping[Subject, Erasure], buckets: Collection[int], pending: str) -> None:
        floors: dict[int, list[str | bytes]] = {bucket: [] for bucket in buckets}
        for (place, text), erasure in subjects.items():
            for bucket in _buckets(view, text, buckets):
                floors[bucket] += [f"{place}:{text}", _floor(erasure)]
        calls = [
            ([erased_key(self._tenant, view, bucket)], [pending, *some])
            for bucket, pairs in floors.items()
            for some in (_slices(pairs, 2 * CALL_SIZE) if pairs else [[]])
            if some or pending
        ]
        for some in _slices(calls, _CALLS):
            self._floors.run_all(some)

    def _stored(
        self, view: View, subjects: Mapping[Subject, Erasure], buckets: Collection[int]
    ) -> Mapping[tuple[Subject, int], Sequence[str]]:
        """The names of the keys that hold a subject, by bucket: the exact one, or those that one scan finds."""
        found: dict[tuple[Subject, int], set[str]] = defaultdict(set)
        if len(view.key) == 1:
            for place, text in subjects:
                for bucket in _buckets(view, text, buckets):
                    found[(place, text), bucket].add(keys.data_key(self._tenant, view, text))
        elif subjects:
            chosen = set(buckets)
            for key in self._scan(view, subjects):
                bucket = bucket_of(key, view.partitions)
                for subject in enumerate(key.split("|")):
                    if bucket in chosen and subject in subjects:
                        found[subject, bucket].add(keys.data_key(self._tenant, view, key))
        return {at: sorted(names) for at, names in found.items()}

    def _scan(self, view: View, subjects: Mapping[Subject, Erasure]) -> Iterator[str]:
        """The keys of a view, at least those that hold one of the subjects."""
        parts = ["*"] * len(view.key)
        if len(subjects) == 1:
            ((place, text),) = subjects
            parts[place] = _literal(text)
        view_part = f"}}:{view.name}:{view.version}:"
        pattern = f"{_literal(self._tenant)}:{{*{_literal(view_part)}{'|'.join(parts)}"
        for name in self._client.scan_iter(match=pattern, count=_SCAN):
            key = (name.decode() if isinstance(name, bytes) else name).partition(view_part)[2]
            if _is_key(view, key):
                yield key


def _subjects(view: View, erasures: Iterable[Erasure]) -> Mapping[Subject, Erasure]:
    """What the keys of a view lose: by subject the last of its erasures, which covers those before."""
    found: dict[Subject, Erasure] = {}
    for item in erasures:
        place = place_in_key(view, item.column)
        if place is not None:
            subject = place, encode_key(view.key[place : place + 1], [item.value])
            known = found.get(subject)
            if known is None or known.at <= item.at:
                found[subject] = item
    return found


def _buckets(view: View, text: str, buckets: Collection[int]) -> Collection[int]:
    """Of some buckets, those that keys which hold a subject may be in."""
    if len(view.key) > 1:
        return buckets
    return [bucket for bucket in (bucket_of(text, view.partitions),) if bucket in buckets]


def _floor(erasure: Erasure) -> bytes:
    return _FLOOR.pack(erasure.at, erasure.epoch)


def _slices(items: Sequence[Any], size: int) -> Iterator[Any]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _is_key(view: View, key: str) -> bool:
    """Whether it is an entity key of the view; other names in the store are none."""
    try:
        decode_key(view.key, key)
    except ValueError:
        return False
    return True


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
