"""Who a request comes from: recognised by its credential, and remembered for a minute."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coeval.access.credentials import KEY_PREFIX, ApiKeys, Caller, credential
from coeval.access.tenants import EVERYTHING, Tenant, Tenants, read_tenants, utc_now
from coeval.errors import CredentialError
from coeval.followed import Followed
from coeval.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from coeval.access.tokens import TokenReader

_VERIFIERS = 4
_REMEMBER_SECONDS = 60.0
_MOST = 10_000
_LONGEST = 8_192
"""Letters of a credential."""


class Doorkeeper:
    """Recognises callers by the file of tenants, as it changes."""

    def __init__(self, settings: Settings) -> None:
        self._watched = Followed(lambda: settings.tenants_path, read_tenants)
        self._of = self._watched.now()
        self._keys = ApiKeys(self._of)
        self._tokens: TokenReader | None = None
        # Tokens are verified by public keys, which takes a while; API keys are one hash.
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._verifying = ThreadPoolExecutor(_VERIFIERS, thread_name_prefix="verify")

    @property
    def tenants(self) -> Tenants:
        """The tenants now."""
        found = self._watched.now()
        if found is not self._of:
            self._of, self._keys, self._tokens = found, ApiKeys(found), None
            self._known.clear()
        return found

    async def recognise(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Caller, Tenant]:
        """Who sends a request with these headers, and their tenant.

        Raises:
            CredentialError: nobody that is known.
        """
        tenants = self.tenants
        text = credential(headers)
        caller = None
        if text is not None and len(text) <= _LONGEST:
            is_key = text.startswith(KEY_PREFIX)
            caller = self._keys.recognise(text, utc_now()) if is_key else await self._token(text, tenants)
        # As the tenants are now: they may have changed while a token was verified.
        tenant = self.tenants.tenants.get(caller.tenant) if caller else None
        if caller is None or tenant is None:
            raise CredentialError(
                "The request shows no credential that is valid here.",
                "Send Authorization: Bearer KEY, with a key of `coeval tenants key` or a token of your issuer.",
            )
        return caller, tenant

    async def _token(self, text: str, tenants: Tenants) -> Caller | None:
        if self._tokens is None:
            from coeval.access.tokens import TokenReader

            self._tokens = TokenReader(tenants)
        digest = hashlib.sha256(text.encode(errors="replace")).digest()
        now = time.monotonic()
        until, caller = self._known.get(digest, (0.0, None))
        if caller is None or until <= now:
            reader = self._tokens
            # In a thread of its own kind, as keys may have to be fetched, which takes as long as their server likes.
            found = await asyncio.get_running_loop().run_in_executor(self._verifying, reader.recognise, text)
            if found is None or self._tokens is not reader:
                return None
            caller, ends = found
            self._known[digest] = (now + min(_REMEMBER_SECONDS, ends), caller)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return caller


class OpenDoor:
    """Lets everybody on this machine in, as the one tenant of a home directory: for trying things out."""

    def __init__(self, settings: Settings, tenant: str) -> None:
        self.tenants = Tenants(tenants={tenant: Tenant(home=settings.home, rows_per_second=1e9, concurrency=10_000)})
        self._caller = Caller(tenant, "anybody", EVERYTHING)

    async def recognise(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[Caller, Tenant]:
        """The same for all who are here: no page that a browser shows, whatever address it has for this machine.

        Raises:
            CredentialError: the request comes from a page, or is for another host.
        """
        found = dict(headers)
        host = urlsplit(f"//{found.get(b'host', b'').decode('latin-1')}").hostname
        if b"origin" in found or host not in LOOPBACK:
            raise CredentialError("Without credentials, only programs on this machine are served.", "Add tenants.")
        return self._caller, self.tenants.named(self._caller.tenant)
