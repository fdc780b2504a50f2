"""A feature server in this process, over a real Redis with a user per tenant: two tenants of the same catalog."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import redis
import uvicorn

from coeval.access import acl
from coeval.access.credentials import new_key
from coeval.access.tenants import Grant, Key, Tenant, Tenants, Tokens
from coeval.online.writer import OnlineWriter
from coeval.server.app import Server
from coeval.settings import ServerSettings, Settings
from coeval.spec.manifest import Manifest
from coeval.spec.records import Event
from coeval.spec.types import Physical
from tests.support import catalog
from tests.support.online import updates, write

SECRET = "a-password-of-the-tests"
NOW = datetime.now(UTC)
READ_ALL = Grant(services=("*",), pii=frozenset({"personal"}))
ASK: dict[str, Any] = {
    "service": "risk",
    "entities": {"card_id": [7, 8], "merchant_id": ["m-1", "m-1"]},
    "request": {"payment_amount": ["30.00", 1]},
}
"""Card 7 has paid, card 8 has not."""
FEAST_ASK: dict[str, Any] = {
    "feature_service": "risk",
    "entities": ASK["entities"] | ASK["request"],
    "full_feature_names": True,
}
"""The same, as Feast asks."""
AMOUNTS = {"bank": 1000, "shop": 7000}
"""What card 7 paid, by tenant, in cents: whoever sees another's number sees another's data."""


def manifest(tenant: str) -> Manifest:
    """The catalog of the tests as a tenant's own; the latest payment is personal, and there is a service without it."""
    found = catalog.manifest()
    views = tuple(
        replace(view, features=tuple(replace(item, pii="personal") for item in view.features))
        for view in found.row_views
    )
    (risk,) = found.services
    plain = tuple(item for item in risk.views if item.view not in {view.name for view in views})
    services = (replace(risk, name="plain", views=plain, derived=()), risk)
    return replace(found, tenant=tenant, row_views=views, services=services)


def payment(tenant: str, number: int, at: int) -> Event:
    """A payment by card 7."""
    values: dict[str, Physical] = {
        "card_id": 7,
        "merchant_id": "m-1",
        "amount": AMOUNTS[tenant],
        "fee": None,
        "points": 2**60,
        "note": "späti",
    }
    return Event(f"{tenant}-{number}", at, at, 0, number, values, at)


@dataclass
class Tenancy:
    """Tenants with their credentials. `keys` are by tenant and name of the key."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)

    def key(self, tenant: str, name: str, grant: Grant, days: int = 1) -> str:
        """Give a tenant a key."""
        made = new_key(name, grant, datetime.now(UTC) + timedelta(days=days))
        self._keep(tenant, made.key)
        self.keys[tenant, name] = made.text
        return made.text

    def _keep(self, tenant: str, key: Key) -> None:
        known = self.tenants[tenant]
        self.tenants[tenant] = known.model_copy(update={"keys": (*known.keys, key)})

    def tokens(self, tenant: str, issuer: str, audience: str, jwks: str) -> None:
        """Let a tenant have tokens."""
        made = Tokens(issuer=issuer, audience=audience, jwks=jwks)
        self.tenants[tenant] = self.tenants[tenant].model_copy(update={"tokens": made})

    def write(self, path: Path) -> None:
        """Make the file of tenants."""
        path.write_text(Tenants(tenants=self.tenants).model_dump_json())


def tenancy(settings: Settings) -> Tenancy:
    """The tenants `bank` and `shop`: manifests, data, Redis users of their own, a key `all` each."""
    found = Tenancy()
    client = redis.Redis.from_url(settings.redis.url)
    client.flushall()
    now = int(datetime.now(UTC).timestamp() * 1e6)
    for tenant in AMOUNTS:
        home = settings.home / tenant
        home.mkdir(parents=True, exist_ok=True)
        made = manifest(tenant)
        (home / "manifest.json").write_text(made.to_json())
        writer = OnlineWriter(client, tenant)
        for view in made.views.values():
            write(writer, view, updates(view, made, [payment(tenant, 0, now - 60_000_000)]))
            writer.mark_ready(view, writer.incarnation(view), "test")
        for user in (acl.reader(tenant, SECRET), acl.writer(tenant, SECRET)):
            client.execute_command("ACL", "SETUSER", user.name, *user.rules)
        password = settings.home / f"{tenant}.password"
        password.write_text(SECRET)
        found.tenants[tenant] = Tenant(home=home, redis_username=f"{tenant}-reader", redis_password_file=password)
        found.key(tenant, "all", READ_ALL.model_copy(update={"sources": ("*",), "admin": True}))
    client.close()
    return found


@dataclass
class Answer:
    """An answer of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Client:
    """Speaks HTTP to a server, with a credential or none."""

    port: int
    key: str | None = None

    def __call__(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own. A body that is no bytes goes as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request(method, path, raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@dataclass
class Running:
    """A server that runs."""

    server: Server
    port: int

    def client(self, key: str | None = None) -> Client:
        """A client with a credential."""
        return Client(self.port, key)


@contextmanager
def serving(settings: Settings, open_tenant: str = "", **limits: Any) -> Iterator[Running]:
    """A server with these limits, on a free port, stopped when the context ends."""
    settings = settings.model_copy(update={"server": ServerSettings(**limits)})
    ready = threading.Event()
    box: list[tuple[Server, uvicorn.Server]] = []

    def run() -> None:
        async def main() -> None:
            made = Server(settings, open_tenant)
            config = uvicorn.Config(made.gate, port=0, log_config=None, access_log=False, lifespan="on")
            inner = uvicorn.Server(config)
            box.append((made, inner))
            task = asyncio.create_task(inner.serve())
            while not inner.started and not task.done():
                await asyncio.sleep(0.005)
            ready.set()
            await task

        asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    made, inner = box[0]
    try:
        yield Running(made, inner.servers[0].sockets[0].getsockname()[1])
    finally:
        inner.should_exit = True
        thread.join(30)
