"""The guarded writer of the online store: one Lua call per range of updates of one bucket. It knows Redis."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from coeval.errors import StoreError
from coeval.online import keys
from coeval.online.layout import Update
from coeval.spec.model import View, WindowedView
from coeval.spec.time import DAY

if TYPE_CHECKING:
    import redis

EXPIRY_SLACK = 7 * DAY
"""Key expiry is memory hygiene, never semantics: no live value may be near it."""


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
        self._script: Any = client.register_script(files("coeval.online").joinpath("guard.lua").read_text())

    def apply(self, view: View, bucket: int, updates: Sequence[Update], fence: Fence | None = None) -> Applied:
        """Apply updates of one bucket in one atomic call, and advance the fenced offset with them.

        Raises:
            FencedError: the fence did not hold.
            redis.RedisError: the store refused or did not answer; the call may be repeated.
        """
        prefix = keys.bucket_prefix(self._tenant, view, bucket)
        names = [keys.offset_key(self._tenant, view, bucket), *(f"{prefix}:{update.key}" for update in updates)]
        control = ["tile" if isinstance(view, WindowedView) else "row", str(_expiry(view) // 1000), *_fence(fence)]
        outcome = self._script(keys=names, args=[*control, *(update.payload for update in updates)])
        if outcome[0] == 0:
            raise FencedError(int(outcome[1]) if outcome[1] else None)
        return Applied(outcome[1], outcome[2])

    def offsets(self, view: View) -> dict[int, int | None]:
        """The stored changelog offset per bucket; None where there is none."""
        names = [keys.offset_key(self._tenant, view, bucket) for bucket in range(view.partitions)]
        stored: list[bytes | None] = self._client.mget(names)  # type: ignore[assignment]
        return {bucket: None if value is None else int(value) for bucket, value in enumerate(stored)}

    def incarnation(self) -> str:
        """The name of this life of the store: another one after a wipe, and after any restart of the server.

        A server that restarts may come back from a snapshot, with this name but without what was written since.
        """
        key = keys.incarnation_key(self._tenant)
        server: Any = self._client.info("server")
        self._client.set(key, f"{server['run_id']}-{os.urandom(8).hex()}", nx=True)
        stored: Any = self._client.get(key)
        name = stored.decode() if isinstance(stored, bytes) else str(stored)
        if not name.startswith(server["run_id"]):
            self._client.delete(key)
            return self.incarnation()
        return name

    def mark_ready(self, view: View, incarnation: str, note: str) -> bool:
        """Set the ready marker to `note`, unless the store was wiped or restarted since it had that incarnation."""
        if self.incarnation() != incarnation:
            return False
        script = (
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end redis.call('SET', KEYS[2], ARGV[2]) return 1"
        )
        names = (keys.incarnation_key(self._tenant), keys.ready_key(self._tenant, view))
        return bool(self._client.eval(script, 2, *names, incarnation, note))

    def ready_note(self, view: View) -> str | None:
        """What the ready marker of a view version says; None where readers may not believe it."""
        stored: Any = self._client.get(keys.ready_key(self._tenant, view))
        return stored.decode() if isinstance(stored, bytes) else stored

    def is_ready(self, view: View) -> bool:
        """Whether readers may believe this view version."""
        return self.ready_note(view) is not None


def _fence(fence: Fence | None) -> tuple[str, str, str]:
    if fence is None:
        return "free", "", ""
    return "fenced", "" if fence.expected is None else str(fence.expected), str(fence.next)


def _expiry(view: View) -> int:
    if isinstance(view, WindowedView):
        return view.longest_window + EXPIRY_SLACK
    return view.ttl + EXPIRY_SLACK if view.ttl else 0
