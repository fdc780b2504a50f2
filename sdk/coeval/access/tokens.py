"""JSON web tokens: RS256 and ES256 alone, with the issuer's published keys. It knows PyJWT and fetches over https."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from pydantic import ValidationError

from coeval.access.credentials import Caller
from coeval.access.tenants import Grant, Tenants, Tokens
from coeval.errors import UsageError
from coeval.settings import LOOPBACK

if TYPE_CHECKING:
    import jwt

ALGORITHMS = ("RS256", "ES256")
CLAIM = "coeval"
_REQUIRED = ("exp", "iss", "aud", "sub")
_LEEWAY_SECONDS = 10
_FRESH_SECONDS = 300.0
_AGAIN_SECONDS = 30.0
"""Keys are fetched again after five minutes; for a key that is not known, no more often than this."""
_TIMEOUT_SECONDS = 3.0
_log: Any = structlog.get_logger("coeval.tokens")


class KeySet:
    """The public keys of an issuer, by key id. A source that cannot be read leaves the keys that are known."""

    def __init__(self, source: str, clock: Callable[[], float] = time.monotonic) -> None:
        check_source(source)
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._fetched: float | None = None
        self._keys: dict[str, jwt.PyJWK] = {}

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id; it may block for as long as it takes to fetch keys."""
        if not self._due(key_id):
            return self._keys.get(key_id)
        # While somebody fetches, strangers are not waited for, nor do they hold up those whose keys are known.
        if not self._lock.acquire(blocking=self._fetched is None):
            return self._keys.get(key_id)
        try:
            if self._due(key_id):
                self._fetch()
                self._fetched = self._clock()
        finally:
            self._lock.release()
        return self._keys.get(key_id)

    def _due(self, key_id: str) -> bool:
        if self._fetched is None:
            return True
        return self._clock() - self._fetched >= (_FRESH_SECONDS if key_id in self._keys else _AGAIN_SECONDS)

    def _fetch(self) -> None:
        import jwt

        try:
            keys = jwt.PyJWKSet.from_dict(json.loads(self._text())).keys
            self._keys = {key.key_id: key for key in keys if key.key_id}
        except (OSError, ValueError, TypeError, jwt.PyJWTError) as error:
            _log.warning("the keys of an issuer cannot be read", source=self._source, reason=str(error))

    def _text(self) -> bytes:
        import urllib.request

        if "://" not in self._source:
            return Path(self._source).read_bytes()

        class Stays(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: object) -> None:
                """Nowhere else: what was checked is the address that was given."""

        with urllib.request.build_opener(Stays()).open(self._source, timeout=_TIMEOUT_SECONDS) as answer:
            found: bytes = answer.read(1 << 20)
            return found


def check_source(source: str) -> None:
    """Refuse keys that could be exchanged on their way.

    Raises:
        UsageError: it is neither a file nor an https URL; http is allowed on this machine alone.
    """
    address = urlsplit(source)
    local = address.scheme == "http" and address.hostname in LOOPBACK
    if "://" in source and address.scheme != "https" and not local:
        raise UsageError(f"Keys cannot be fetched from {source}.", "Give an https URL, or the path of a file.")


class TokenReader:
    """Recognises the tokens of all tenants."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants: Mapping[tuple[str, str], str] = {
            (tenant.tokens.issuer, tenant.tokens.audience): name
            for name, tenant in tenants.tenants.items()
            if tenant.tokens
        }
        wanted: list[Tokens] = [tenant.tokens for tenant in tenants.tenants.values() if tenant.tokens]
        if len(self._tenants) < len(wanted):
            raise UsageError(
                "Two tenants have tokens of the same issuer and audience.", "Give each tenant an audience of its own."
            )
        sets = {item.jwks: KeySet(item.jwks) for item in wanted}
        self._keys = {(item.issuer, item.audience): sets[item.jwks] for item in wanted}

    def recognise(self, text: str) -> tuple[Caller, float] | None:
        """Whose token it is, and for how many seconds; None if it is not valid, whatever is wrong with it.

        It may block to fetch keys.
        """
        import jwt

        try:
            return self._recognise(text)
        except (jwt.PyJWTError, ValidationError, ValueError, TypeError, KeyError) as error:
            _log.info("a token is refused", reason=type(error).__name__)
            return None

    def _recognise(self, text: str) -> tuple[Caller, float] | None:
        import jwt

        header = jwt.get_unverified_header(text)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS or not isinstance(key_id, str):
            return None
        # Whose it claims to be only says by which keys it is judged; below, all of it is verified.
        claimed = jwt.decode(text, options={"verify_signature": False})
        audiences = claimed["aud"] if isinstance(claimed["aud"], list) else [claimed["aud"]]
        meant = [(claimed["iss"], item) for item in audiences if (claimed["iss"], item) in self._tenants]
        if len(meant) != 1:
            return None
        issuer, audience = meant[0]
        key = self._keys[meant[0]].find(key_id)
        if key is None or key.algorithm_name != algorithm:
            return None
        claims = jwt.decode(
            text,
            key.key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            leeway=_LEEWAY_SECONDS,
            options={"require": list(_REQUIRED)},
        )
        caller = Caller(self._tenants[meant[0]], str(claims["sub"]), Grant.model_validate(claims.get(CLAIM, {})))
        return caller, float(claims["exp"]) - time.time()
