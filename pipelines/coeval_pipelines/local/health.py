"""Ask a component whether it works, in its own protocol. Never raises: no answer is an answer."""

from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.request
from typing import Any

from coeval.settings import Settings

from coeval_pipelines.local.components import Component

_TIMEOUT = 2.0


def is_healthy(settings: Settings, component: Component) -> bool:
    """Whether the component answers; one without an address is asked nothing."""
    match component.name:
        case "redis":
            return _redis(component)
        case "broker":
            return _broker(component)
        case "jobmanager":
            return _overview(settings) is not None
        case "taskmanager":
            overview = _overview(settings)
            return overview is not None and overview["taskmanagers"] >= 1
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
    correlation = 4242
    request = struct.pack(">hhih", 18, 0, correlation, -1)
    answer = _ask(component, struct.pack(">i", len(request)) + request, 64)
    return len(answer) >= 10 and struct.unpack_from(">ih", answer, 4) == (correlation, 0)


def _overview(settings: Settings) -> Any:
    try:
        with urllib.request.urlopen(f"{settings.flink.rest_url}/overview", timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
