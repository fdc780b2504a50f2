"""The guarded writer of the online store: one Lua call per range of updates of one bucket. It knows Redis."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from coeval.errors import StoreError
from coeval.online import keys
from coeval.online.layout import Update
from coeval.online.store import Script, fetch
from coeval.spec.model import View, WindowedView
from coeval.spec.time import DAY

if TYPE_CHECKING:
    import redis

EXPIRY_SLACK = 7 * DAY
"""Key expiry is memory hygiene, never semantics: no live value may be near it."""

_INCARNATION = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local name = redis.call('GET', KEYS[1])
if not name or string.sub(name, 1, #run) ~= run then
  name = run .. '-' .. ARGV[1]
  redis.call('SET', KEYS[1], name)
end
if not KEYS[2] or name ~= ARGV[2] then return name end
local lines = redis.call('GET', KEYS[2]) or ''
local first, last = string.find(lines, ARGV[3], 1, true)
if first then
  local rest = string.find(lines, '\\n', last + 1, true)
  lines = string.sub(lines, 1, first - 1) .. (rest and string.sub(lines, rest) or '')
end
if ARGV[4] then lines = lines .. ARGV[3] .. ARGV[4] end
if lines == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], lines) end
return name
"""
"""The name of this life of the server that runs this; where it is the expected one, a view is marked in the same step.

KEYS[1] is where the name is kept, KEYS[2] which views are ready; ARGV[1] a random end of a new name, ARGV[2] the
expected name, ARGV[3] the beginning of the view's line and ARGV[4] its note: without one, the line is taken away."""

Incarnation = Mapping[int, str]
"""By bucket, the name of this life of the server that holds it."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Compare-and-set of a changelog offset: what must be stored (None: nothing) and what to store (next to read)."""

    expected: int | None
    next: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the updates: refused ones found an equal or newer state."""

    written: int
    refused: int


@dataclass(frozen=True, slots=True)
class Call:
    """One atomic call: updates of one bucket, and the fence that they go behind."""

    view: View
    bucket: int
    updates: Sequence[Update]
    fence: Fence | None = None


class FencedError(StoreError):
    """The stored offset is not the expected one: another writer, or lost data. Nothing was written."""

    code = "FENCED"

    def __init__(self, stored: int | None) -> None:
        super().__init__(f"The changelog offset in the online store is {stored}, not the expected one.")
        self.stored = stored


class OnlineWriter:
    """Writes of one tenant; safe to use from one thread."""

    def __init__(self, client: redis.Redis, tenant: str) -> None:
        self._client = client
        self._tenant = tenant
        self._guard = Script(client, files("coeval.online").joinpath("guard.lua").read_text())
        self._life = Script(client, _INCARNATION)

    def apply(self, view: View, bucket: int, updates: Sequence[Update], fence: Fence | None = None) -> Applied:
        """Apply updates of one bucket in one atomic call, and advance the fenced offset with them.

        Raises:
            FencedError: the fence did not hold.
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        (outcome,) = self.apply_all([Call(view, bucket, updates, fence)])
        if isinstance(outcome, FencedError):
            raise outcome
        return outcome

    def apply_all(self, calls: Sequence[Call]) -> list[Applied | FencedError]:
        """Send several calls in one round trip; each is atomic for itself, those of one bucket run in their order.

        A call whose fence did not hold wrote nothing. Of calls that follow each other (the next one of one is what the
        other expects) those after it do not hold either, unless another writer wrote the same range meanwhile.

        Raises:
            redis.RedisError: the store refused or did not answer; all of them may be repeated.
        """
        return [_outcome(result) for result in self._guard.run_all([self._arguments(call) for call in calls])]

    def _arguments(self, call: Call) -> tuple[list[str], list[str | bytes]]:
        view, prefix = call.view, keys.bucket_prefix(self._tenant, call.view, call.bucket)
        names = [
            keys.offset_key(self._tenant, view, call.bucket),
            *[f"{prefix}:{update.key}" for update in call.updates],
        ]
        control = ["tile" if isinstance(view, WindowedView) else "row", str(_expiry(view) // 1000), *_fence(call.fence)]
        return names, [*control, *[update.payload for update in call.updates]]

    def offsets(self, view: View) -> dict[int, int | None]:
        """The stored changelog offset per bucket; None where there is none."""
        stored = fetch(self._client, [keys.offset_key(self._tenant, view, at) for at in range(view.partitions)])
        return {bucket: None if value is None else int(value) for bucket, value in enumerate(stored)}

    def incarnation(self, view: View) -> Incarnation:
        """The names of this life of the servers that hold a view: others after a wipe, a restart or a failover.

        A server that restarts may come back from a snapshot, with this name but without what was written since.
        """
        buckets = range(view.partitions)
        names = self._life.run_all(
            [([keys.incarnation_key(self._tenant, bucket)], [os.urandom(8).hex()]) for bucket in buckets]
        )
        return {bucket: _text(name) for bucket, name in zip(buckets, names, strict=True)}

    def unmark(self, view: View) -> None:
        """Take back that a view is ready: readers say UNAVAILABLE until it is filled and marked again."""
        self._life.run_all([self._marking(view, bucket, name) for bucket, name in self.incarnation(view).items()])

    def mark_ready(self, view: View, incarnation: Incarnation, note: str) -> bool:
        """Mark all buckets of a view as ready, with a note of one line, and say whether that was done.

        A bucket is left out whose server was wiped, restarted or replaced since it had that incarnation.
        """
        calls = [self._marking(view, bucket, name, note) for bucket, name in incarnation.items()]
        found = self._life.run_all(calls)
        return {bucket: _text(name) for bucket, name in zip(incarnation, found, strict=True)} == incarnation

    def _marking(self, view: View, bucket: int, expected: str, *note: str) -> tuple[list[str], list[str | bytes]]:
        names = [keys.incarnation_key(self._tenant, bucket), keys.ready_key(self._tenant, bucket)]
        return names, [os.urandom(8).hex(), expected, keys.ready_line(view), *note]

    def ready_notes(self, view: View) -> dict[int, str | None]:
        """The note with which each bucket of a view is marked; None where readers may not believe it."""
        buckets = range(view.partitions)
        stored = fetch(self._client, [keys.ready_key(self._tenant, bucket) for bucket in buckets])
        return {bucket: _note(view, lines) for bucket, lines in zip(buckets, stored, strict=True)}

    def ready_note(self, view: View) -> str | None:
        """What the ready markers of a view version say; None where they do not all say the same."""
        notes = set(self.ready_notes(view).values())
        return notes.pop() if len(notes) == 1 else None

    def is_ready(self, view: View) -> bool:
        """Whether readers may believe this view version, all of its buckets."""
        return None not in self.ready_notes(view).values()


def _outcome(result: Any) -> Applied | FencedError:
    if result[0] == 0:
        return FencedError(int(result[1]) if result[1] else None)
    return Applied(result[1], result[2])


def _note(view: View, lines: bytes | None) -> str | None:
    _, line, rest = _text(lines or b"").partition(keys.ready_line(view))
    return rest.partition("\n")[0] if line else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _fence(fence: Fence | None) -> tuple[str, str, str]:
    if fence is None:
        return "free", "", ""
    return "fenced", "" if fence.expected is None else str(fence.expected), str(fence.next)


def _expiry(view: View) -> int:
    if isinstance(view, WindowedView):
        return view.longest_window + EXPIRY_SLACK
    return view.ttl + EXPIRY_SLACK if view.ttl else 0
