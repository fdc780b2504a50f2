"""What every request passes before it is looked at: identity, limits, time, the access log. Plain ASGI.

What is refused here costs next to nothing, so that a tenant who asks for too much does not take the time of others.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from starlette.requests import ClientDisconnect

from coeval.access.credentials import Caller
from coeval.access.tenants import Tenant, Tenants
from coeval.errors import AccessError, CoevalError, InfrastructureError
from coeval.server.audit import Audit
from coeval.server.meters import Meters
from coeval.server.problems import OverloadedError, TimedOutError, TooLargeError, body_of, headers_of, status_of
from coeval.server.quotas import Slots
from coeval.server.rooms import Room, Rooms
from coeval.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    class Door(Protocol):
        """Recognises callers."""

        @property
        def tenants(self) -> Tenants:
            """The tenants now."""

        def recognise(self, headers: list[tuple[bytes, bytes]]) -> Awaitable[tuple[Caller, Tenant]]:
            """Who sends a request, and their tenant."""


OPEN = frozenset({"/health", "/ready", "/openapi.json", "/docs"})
"""What anybody may ask for: nothing of it tells what is stored."""
_NOBODY = "-"
_GONE = 499
"""What proxies call a client that went away before its answer; in the log alone."""
_LONGEST_ID = 64
_log: Any = structlog.get_logger("coeval.access")


class Visit:
    """A request on its way: who, in which room, and what the access log will say of it. Never what it asks about."""

    __slots__ = ("begin", "caller", "id", "labels", "room", "rows", "status")

    def __init__(self, request: str) -> None:
        self.id = request
        self.begin = time.perf_counter()
        self.caller: Caller | None = None
        self.room: Room | None = None
        self.status = 0
        self.rows = 0
        self.labels: dict[str, Any] = {}

    @property
    def tenant(self) -> str:
        """The caller's tenant; a dash for nobody."""
        return self.caller.tenant if self.caller else _NOBODY


class Gate:
    """Wraps the application. What it found out stands in the scope's state as `visit`."""

    def __init__(
        self, app: ASGIApp, door: Door, rooms: Rooms, meters: Meters, audit: Audit, settings: ServerSettings
    ) -> None:
        self._app = app
        self._door = door
        self._rooms = rooms
        self._meters = meters
        self._audit = audit
        self._settings = settings
        self._slots = Slots(settings.concurrency, "The server", OverloadedError)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit(_request_id(scope["headers"]))
        scope.setdefault("state", {})["visit"] = visit

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                extra = [(b"x-request-id", visit.id.encode())]
                if self.draining:
                    extra.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            async with asyncio.timeout(self._settings.max_seconds):
                await self._enter(scope, receive, answer, visit)
        except TimeoutError:
            error = TimedOutError(f"It took longer than {self._settings.max_seconds:g} s.", "Ask for less, or later.")
            await self._refuse(answer, visit, error)
        except CoevalError as error:
            await self._refuse(answer, visit, error)
        except ClientDisconnect:
            visit.status = _GONE
        finally:
            self._note(scope, visit)

    async def _enter(self, scope: Scope, receive: Receive, send: Send, visit: Visit) -> None:
        if scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        visit.caller, tenant = await self._door.recognise(scope["headers"])
        room = visit.room = await self._rooms.of(visit.caller.tenant, tenant)
        with self._slots.one(), room.slots.one(), self._meters.in_flight.labels(room.name).track_inprogress():
            await self._app(scope, self._limited(scope, receive), send)

    def _limited(self, scope: Scope, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """The body, as long as it is not too long."""
        most = self._settings.max_bytes
        error = TooLargeError(f"The body has more than {most} bytes.", "Send less at once.")
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > most:
            raise error
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise error
            return message

        return limited

    async def _refuse(self, send: Send, visit: Visit, error: CoevalError) -> None:
        if visit.status:
            # The answer has begun: cut off, it cannot be taken for a whole one.
            raise error
        status, headers, body = self.refusal(visit, error)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def refusal(self, visit: Visit, error: CoevalError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The answer to a request that is refused: status, headers, body. Counted, and audited where it was access."""
        if isinstance(error, AccessError) and visit.caller is not None:
            try:
                self._audit.refused(visit.tenant, visit.caller.name, error.what, visit.id)
            except InfrastructureError as failed:
                error = failed
        self._meters.refused.labels(visit.tenant, error.code).inc()
        body = body_of(error, visit.id)
        return status_of(error), [*headers_of(error), (b"content-length", str(len(body)).encode())], body

    def _note(self, scope: Scope, visit: Visit) -> None:
        seconds = time.perf_counter() - visit.begin
        route = getattr(scope.get("route"), "path", _NOBODY)
        self._meters.requests.labels(visit.tenant, route, visit.status).inc()
        self._meters.seconds.labels(visit.tenant, route).observe(seconds)
        if visit.rows:
            self._meters.rows.labels(visit.tenant).observe(visit.rows)
        if scope["path"] not in OPEN:
            _log.info(
                "request",
                request=visit.id,
                tenant=visit.tenant,
                caller=visit.caller.name if visit.caller else _NOBODY,
                method=scope["method"],
                route=route,
                status=visit.status,
                rows=visit.rows,
                ms=round(seconds * 1e3, 3),
                **visit.labels,
            )


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The caller's own id of the request, if it is a plain word; else a new one."""
    given = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
    plain = given.replace("-", "").replace("_", "")
    return given if plain.isascii() and plain.isalnum() and len(given) <= _LONGEST_ID else uuid4().hex
