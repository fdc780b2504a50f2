"""Recognising who calls: API keys and JSON web tokens. Whoever is not recognised is nobody, for whatever reason."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from coeval.access.tenants import Grant, Key, Tenants

KEY_PREFIX = "cvl_"
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was recognised: the tenant, the name of the credential, and what it may do."""

    tenant: str
    name: str
    grant: Grant


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: `text` is handed out once, `key` is kept."""

    text: str
    key: Key


def new_key(name: str, grant: Grant, expires: datetime | None = None) -> NewKey:
    """A random API key."""
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return NewKey(f"{KEY_PREFIX}{number}_{secret}", Key(
        name=name, id=number, sha256=_digest(secret), grant=grant, expires=expires
    ))  # fmt: skip


class ApiKeys:
    """The API keys of all tenants."""

    def __init__(self, tenants: Tenants) -> None:
        self._keys: Mapping[str, tuple[str, Key]] = {
            key.id: (name, key) for name, tenant in tenants.tenants.items() for key in tenant.keys
        }

    def recognise(self, text: str, now: datetime) -> Caller | None:
        """Whose key it is; None if it is nobody's or its time is over."""
        number, _, secret = text.removeprefix(KEY_PREFIX).partition("_")
        tenant, key = self._keys.get(number, ("", None))
        # Compared also where there is none, so that the time it takes tells nothing.
        same = hmac.compare_digest(_digest(secret), key.sha256 if key else _NOBODY)
        if key is None or not same or key.expired(now):
            return None
        return Caller(tenant, key.name, key.grant)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def credential(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What a request shows: `Authorization: Bearer ...` or `X-API-Key: ...`; None where it shows nothing, or both."""
    found: list[str] = []
    for name, value in headers:
        if name == b"x-api-key":
            found.append(value.decode("latin-1"))
        elif name == b"authorization":
            scheme, _, text = value.decode("latin-1").partition(" ")
            found.append(text.strip() if scheme.lower() == "bearer" else "")
    return found[0] if len(found) == 1 and found[0] else None
