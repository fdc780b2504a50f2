"""Ask a component whether it works, in its own protocol. Never raises: no answer is an answer."""

from __future__ import annotations

import json
import socket
import struct
import urllib.request
from typing import Any

from coeval.settings import Settings
from coeval_pipelines.heartbeat import beats
from coeval_pipelines.local.components import Component, heartbeat_path

_TIMEOUT = 2.0
_CORRELATION = 4242
# Loopback is no business of a proxy.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_healthy(settings: Settings, component: Component, started_at: float = 0.0) -> bool:
    """Whether the component answers, or, of the writer, goes on with its loop; others are asked nothing.

    `started_at` (seconds since the epoch) tells a worker from its predecessor, which the job manager remembers.
    """
    match component.kind:
        case "redis":
            return _redis(component)
        case "broker":
            return _broker(component)
        case "jobmanager":
            return bool(_flink(settings, "overview"))
        case "taskmanager":
            workers = _flink(settings, "taskmanagers").get("taskmanagers", [])
            # Despite its name, the field is the instant of the last heartbeat in milliseconds.
            last = {worker["id"]: worker["timeSinceLastHeartbeat"] for worker in workers}
            return bool(last.get(component.name, -1) >= started_at * 1000)
        case "writer":
            return beats(heartbeat_path(settings, component.name), started_at)
        case _:
            return True


def _ask(component: Component, request: bytes, size: int) -> bytes:
    try:
        with socket.create_connection((component.host, component.port), timeout=_TIMEOUT) as connection:
            connection.settimeout(_TIMEOUT)
            connection.sendall(request)
            return connection.recv(size)
    except OSError:
        return b""


def _redis(component: Component) -> bool:
    # A server that asks for a password is one that answers.
    return _ask(component, b"PING\r\n", 64).startswith((b"+PONG", b"-NOAUTH"))


def _broker(component: Component) -> bool:
    # A Metadata request (version 5) for no topic. The broker lists itself once the controller lets it work; before
    # that it answers too, but cannot create topics.
    request = struct.pack(">hhihi?", 3, 5, _CORRELATION, -1, 0, False)
    answer = _ask(component, struct.pack(">i", len(request)) + request, 256)
    if len(answer) < 16:
        return False
    _, correlation, _, brokers = struct.unpack_from(">iiii", answer)
    return bool(correlation == _CORRELATION and brokers >= 1)


def _flink(settings: Settings, resource: str) -> Any:
    try:
        with _DIRECT.open(f"{settings.flink.rest_url}/{resource}", timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return {}
