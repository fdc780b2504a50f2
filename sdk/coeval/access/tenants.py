"""Tenants and what their credentials may do, kept in one file that `coeval tenants` writes. Deny by default.

A tenant is one project: its home directory holds the manifests, its name is the first part of every online key. It
comes from the credential that a caller shows, never from what the caller asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from coeval.errors import UsageError
from coeval.files import write_whole
from coeval.spec.model import PII_CLASSES

PERSONAL = PII_CLASSES[1:]
"""Classes of features that need a grant; `none` needs none."""


def _classes(names: frozenset[str]) -> frozenset[str]:
    if stray := names.difference(PERSONAL):
        raise ValueError(f"{sorted(stray)[0]!r} is no PII class; the classes are {', '.join(PERSONAL)}")
    return names


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grant(_Model):
    """What a credential may do. Services and sources are patterns as for file names: `coupon_*`."""

    services: tuple[str, ...] = ()
    """Feature services that it may read."""
    sources: tuple[str, ...] = ()
    """Event sources that it may write to."""
    pii: Annotated[frozenset[str], AfterValidator(_classes)] = frozenset()
    """Classes of personal features that it may read."""
    admin: bool = False
    """Whether it may see the manifest and the SLAs."""

    def reads(self, service: str) -> bool:
        """Whether it may read a service."""
        return any(fnmatchcase(service, pattern) for pattern in self.services)

    def writes(self, source: str) -> bool:
        """Whether it may write to a source."""
        return any(fnmatchcase(source, pattern) for pattern in self.sources)


EVERYTHING = Grant(services=("*",), sources=("*",), pii=frozenset(PERSONAL), admin=True)


class Key(_Model):
    """An API key. Its secret is 32 random bytes, so a plain hash of it is enough."""

    name: str
    id: str
    sha256: str
    grant: Grant = Grant()
    expires: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now


class Tokens(_Model):
    """Whose JSON web tokens stand for the tenant: RS256 or ES256, with this issuer and audience.

    `jwks` is where the issuer's public keys are: an https URL (http on this machine alone), or a file. What a token may
    do is in its claim `coeval`: an object with the properties of a `Grant`.
    """

    issuer: str
    audience: str
    jwks: str


class Tenant(_Model):
    """A tenant: where its manifests are, how it reaches Redis, how much it may ask for, and who may ask."""

    home: Path
    redis_username: str = ""
    redis_password_file: Path | None = None
    rows_per_second: float = Field(default=50_000, gt=0)
    concurrency: int = Field(default=64, gt=0)
    """Requests at once."""
    keys: tuple[Key, ...] = ()
    tokens: Tokens | None = None


class Tenants(_Model):
    """All tenants by name."""

    tenants: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], Tenant] = {}

    def named(self, name: str) -> Tenant:
        """The tenant of that name.

        Raises:
            UsageError: there is none.
        """
        if name not in self.tenants:
            raise UsageError(f"There is no tenant {name!r}.", f"Known: {', '.join(self.tenants) or 'none'}.")
        return self.tenants[name]

    def with_tenant(self, name: str, tenant: Tenant) -> Tenants:
        """With a tenant added or replaced."""
        return Tenants(tenants={**self.tenants, name: tenant})


def read_tenants(path: Path) -> Tenants:
    """The tenants in a file; a file that is not there holds none.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Tenants.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Tenants()
    except (OSError, ValidationError) as error:
        what = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, what['loc']))}: {what['msg']}" if what else str(error)
        raise UsageError(f"The tenants in {path} cannot be read: {why}.", "Restore the file, or correct it.") from error


@contextmanager
def edited(path: Path) -> Iterator[list[Tenants]]:
    """The tenants to be edited, in a list of one; they are written when the context ends well.

    Nobody but the owner can read the file. One edit at a time: others wait.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        box = [read_tenants(path)]
        yield box
        write_whole(path, box[0].model_dump_json(indent=2, exclude_defaults=True), mode=0o600)


def utc_now() -> datetime:
    """Now, as an instant in UTC."""
    return datetime.now(UTC)
