"""Running the server until it is told to stop: first it says that it is not ready, then it stops to listen."""

from __future__ import annotations

import asyncio
import signal
import socket
from types import FrameType
from typing import Any

import structlog
import uvicorn

from coeval.errors import StackError, UsageError
from coeval.server.app import Server
from coeval.settings import LOOPBACK, Settings

_log: Any = structlog.get_logger("coeval.server")


class _Uvicorn(uvicorn.Server):
    """Drains before it stops: a load balancer that looks at /ready has time to look."""

    def __init__(self, server: Server) -> None:
        limits = server.settings.server
        config = uvicorn.Config(
            server.gate,
            host=limits.host,
            port=limits.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=max(1, round(limits.max_seconds)),
        )
        super().__init__(config)
        self._server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, the second stops at once."""
        if self._server.gate.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._server.gate.draining = True
        # Here the program may stand anywhere, with any lock: nothing is logged or locked before the loop has its turn.
        asyncio.get_running_loop().call_soon_threadsafe(self._drain, sig, frame)

    def _drain(self, sig: int, frame: FrameType | None) -> None:
        seconds = self._server.settings.server.drain_seconds
        _log.info("drains", seconds=seconds)
        asyncio.get_running_loop().call_later(seconds, super().handle_exit, sig, frame)


def run(settings: Settings, *, open_door: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UsageError: no tenants are known; or everybody is to be let in from elsewhere than this machine.
        ManifestError: with an open door: no catalog has been applied here.
        StackError: a port is taken.
    """
    server = Server(settings, _open_tenant(settings) if open_door else "")
    if not server.door.tenants.tenants:
        raise UsageError(
            f"There are no tenants in {settings.tenants_path}, so nobody could ask.",
            "Add one (coeval tenants add NAME) and a key (coeval tenants key NAME ...); or, to try it out, --open.",
        )
    where = settings.server
    try:
        listening = socket.create_server((where.host, where.port), backlog=2_048)
        if settings.metrics.server_port:
            server.meters.serve(settings.metrics.server_port, where.host)
    except OSError as error:
        raise StackError(
            f"Cannot listen at {where.host}: {error}.",
            "Give another port: --port, COEVAL_SERVER__PORT, COEVAL_METRICS__SERVER_PORT.",
        ) from error
    with listening:
        _Uvicorn(server).run(sockets=[listening])


def _open_tenant(settings: Settings) -> str:
    from coeval.manifests import Manifests

    if settings.server.host not in LOOPBACK:
        raise UsageError(
            f"--open lets everybody in, and {settings.server.host} is not this machine alone.",
            "Listen on 127.0.0.1, or add tenants: coeval tenants add NAME.",
        )
    return Manifests(settings).current().tenant
