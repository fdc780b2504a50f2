"""Errors as answers: which status an error has, and its JSON. Pure."""

from __future__ import annotations

import math
from typing import Any

import orjson

from coeval.errors import (
    AccessError,
    CatalogError,
    CoevalError,
    CredentialError,
    EventError,
    InfrastructureError,
    LimitError,
    ManifestError,
    MissingExtraError,
    UnknownFeatureError,
    UsageError,
)

JSON = (b"content-type", b"application/json")


class OverloadedError(LimitError):
    """The server as a whole has too much to do, or is about to stop: another one may answer."""

    code = "OVERLOADED"


class TooLargeError(LimitError):
    """A request is larger than any request may be."""

    code = "TOO_LARGE"


class TimedOutError(InfrastructureError):
    """A request took longer than requests may."""

    code = "TIMED_OUT"


_STATUSES: tuple[tuple[type[CoevalError], int], ...] = (
    (OverloadedError, 503),
    (TooLargeError, 413),
    (LimitError, 429),
    (CredentialError, 401),
    (AccessError, 403),
    (UnknownFeatureError, 404),
    (ManifestError, 404),
    # Of what is asked here, nothing is to blame for a definition that cannot be run, or for what is not installed.
    (CatalogError, 503),
    (MissingExtraError, 503),
    (UsageError, 422),
    (InfrastructureError, 503),
)
"""The first that an error is one of decides."""


def status_of(error: CoevalError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def body_of(error: CoevalError, request: str) -> bytes:
    """The answer's JSON: code, reason, instruction, and the request's id for whoever asks about it."""
    document: dict[str, Any] = {
        "code": error.code,
        "reason": error.reason,
        "instruction": error.instruction,
        "request": request,
    }
    if isinstance(error, EventError):
        document["details"] = error.details
    return orjson.dumps(document)


def headers_of(error: CoevalError) -> list[tuple[bytes, bytes]]:
    """The answer's headers."""
    found = [JSON]
    if isinstance(error, CredentialError):
        found.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, LimitError) and error.retry_after:
        found.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
    elif status_of(error) == 503:
        found.append((b"retry-after", b"1"))
    return found
