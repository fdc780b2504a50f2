"""The rooms of the tenants: each with its own manifests, Redis user and limits. Opened when first asked for."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from coeval import aio
from coeval.access.tenants import Tenant, Tenants
from coeval.errors import CoevalError, InfrastructureError, ManifestError, UsageError
from coeval.server.quotas import Rate, Slots
from coeval.settings import Settings

_AGAIN_SECONDS = 1.0
_log: Any = structlog.get_logger("coeval.server")


@dataclass(slots=True)
class Room:
    """What a tenant has in this server."""

    name: str
    tenant: Tenant
    settings: Settings
    store: aio.AsyncFeatureStore
    slots: Slots
    rows: Rate


class Rooms:
    """All rooms; one that changed in the file of tenants is made anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rooms: dict[str, Room] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failed: dict[str, tuple[float, Tenant, CoevalError]] = {}
        self._looking: asyncio.Task[dict[str, str]] | None = None
        self._looked = float("-inf")

    async def of(self, name: str, tenant: Tenant) -> Room:
        """The room of a tenant.

        Raises:
            InfrastructureError: it has no manifest, or another's, or the online store does not let it in.
        """
        room = self._rooms.get(name)
        if room is None or not _same(room, tenant):
            async with self._locks[name]:
                # It may have been opened while we waited.
                room = self._rooms.get(name)
                if room is None or not _same(room, tenant):
                    opened = await self._try(name, tenant)
                    self._close_later(room)
                    room = self._rooms[name] = opened
        return room

    async def _try(self, name: str, tenant: Tenant) -> Room:
        """Open a room, but not again at once if that failed: whoever waits for it is told the same."""
        until, of, error = self._failed.get(name, (0.0, None, None))
        if error is not None and of is tenant and time.monotonic() < until:
            raise error
        try:
            return await self._open(name, tenant)
        except CoevalError as found:
            _log.warning("cannot open a room", tenant=name, reason=found.reason)
            # Why is the operator's business: it may name files, and other tenants.
            told = InfrastructureError("This tenant cannot be served now.", "Ask again; tell whoever runs the server.")
            self._failed[name] = (time.monotonic() + _AGAIN_SECONDS, tenant, told)
            raise told from found

    async def _open(self, name: str, tenant: Tenant) -> Room:
        settings = _settings_of(self._settings, tenant)
        store = await aio.connect(settings)
        if store.manifest.tenant != name:
            found = store.manifest.tenant
            await store.close()
            raise ManifestError(f"The manifest in {tenant.home} is that of {found!r}.", "Correct the tenant's home.")
        _log.info("opens a room", tenant=name, manifest=store.manifest.hash[:12])
        return Room(
            name, tenant, settings, store, Slots(tenant.concurrency, f"Tenant {name}"), Rate(tenant.rows_per_second)
        )

    def _close_later(self, room: Room | None) -> None:
        """Requests that still read in a room get their answers before it is closed."""
        if room is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settings.server.max_seconds, lambda: loop.create_task(room.store.close()))

    async def problems(self, tenants: Tenants) -> dict[str, str]:
        """By tenant, why it cannot be served; empty: all can. Looked at once a second, however often it is asked."""
        done = self._looking is not None and self._looking.done()
        if self._looking is None or (done and time.monotonic() >= self._looked + _AGAIN_SECONDS):
            self._looking = asyncio.create_task(self._look(tenants))
        return await asyncio.shield(self._looking)

    async def _look(self, tenants: Tenants) -> dict[str, str]:
        for name in self._rooms.keys() - tenants.tenants.keys():
            self._close_later(self._rooms.pop(name))
        names = list(tenants.tenants)
        reasons = await asyncio.gather(*(self._problem(name, tenants.tenants[name]) for name in names))
        self._looked = time.monotonic()
        return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}

    async def _problem(self, name: str, tenant: Tenant) -> str:
        try:
            await (await self.of(name, tenant)).store.ping()
        except CoevalError as error:
            return error.reason
        return ""

    def opened(self) -> list[Room]:
        """The rooms that are open."""
        return list(self._rooms.values())

    async def close(self) -> None:
        """Close the connections of all."""
        for room in self._rooms.values():
            await room.store.close()


def _same(room: Room, tenant: Tenant) -> bool:
    """Whether a room is that of a tenant: nothing but the credentials may differ."""
    if room.tenant is tenant:
        return True
    none: dict[str, Any] = {"keys": (), "tokens": None}
    same = room.tenant.model_copy(update=none) == tenant.model_copy(update=none)
    if same:
        room.tenant = tenant
    return same


def _settings_of(settings: Settings, tenant: Tenant) -> Settings:
    changes: dict[str, Any] = {"username": tenant.redis_username} if tenant.redis_username else {}
    if tenant.redis_password_file is not None:
        changes["password"] = SecretStr(_secret(tenant.redis_password_file))
    redis = settings.redis.model_copy(update=changes)
    return settings.model_copy(update={"home": tenant.home, "redis": redis})


def _secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The password of a tenant cannot be read: {error}.", "Restore the file: coeval tenants redis."
        ) from error
