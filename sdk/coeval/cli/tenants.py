"""`coeval tenants`: who may ask the feature server for what, and the Redis users that keep tenants apart."""

from __future__ import annotations

import json
import os
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coeval.errors import StoreError, UsageError

if TYPE_CHECKING:
    from coeval.access.acl import RedisUser
    from coeval.settings import Settings

GROUP = typer.Typer(
    help="Tenants of the feature server: their credentials, quotas and Redis users. Deny by default.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The tenant, as in its manifest.")]


def register(app: typer.Typer) -> None:
    """Add the group to the root."""
    app.add_typer(GROUP, name="tenants")


@GROUP.command()
def add(
    name: Name,
    home: Annotated[Path | None, typer.Option(help="Where its manifests are. At first: COEVAL_HOME.")] = None,
    rows_per_second: Annotated[float | None, typer.Option(help="Entities a second. At first: 50000.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at once. At first: 64.")] = None,
) -> None:
    """Add a tenant, or change what is given of one that is there; its keys stay.

    Example: coeval tenants add grocer --home /srv/grocer && coeval tenants key grocer --name checkout --service 'c*'
    """
    from pydantic import ValidationError

    from coeval.access.tenants import Tenant, edited
    from coeval.settings import load_settings

    settings = load_settings()
    given: dict[str, Any] = {"home": home, "rows_per_second": rows_per_second, "concurrency": concurrency}
    changes = {option: value for option, value in given.items() if value is not None}
    with edited(settings.tenants_path) as box:
        known = box[0].tenants.get(name)
        before = known.model_dump() if known else {"home": settings.home}
        try:
            tenant = Tenant.model_validate({**before, **changes})
            box[0] = box[0].with_tenant(name, tenant.model_copy(update={"home": tenant.home.resolve()}))
        except ValidationError as error:
            raise UsageError(
                f"{name} cannot be a tenant like that: {error.errors()[0]['msg']}.",
                "Give a name of small letters, digits, - and _, and quotas above 0.",
            ) from error
    print(
        f"{name}: {tenant.rows_per_second:g} rows/s, {tenant.concurrency} requests at once; manifests in {tenant.home}"
    )


@GROUP.command()
def key(
    tenant: Name,
    name: Annotated[str, typer.Option(help="What the key is called in logs; one of that name is replaced.")],
    service: Annotated[
        list[str] | None, typer.Option(help="A service that it may read, or a pattern: 'coupon_*'.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="A source that it may write to, or a pattern.")] = None,
    pii: Annotated[list[str] | None, typer.Option(help="pseudonymous, personal or sensitive.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May see the manifest and the SLAs.")] = False,
    days: Annotated[int, typer.Option(help="How long it is valid; 0: for ever.")] = 365,
) -> None:
    """Make an API key. It is printed once, on stdout; only its hash is kept.

    Example: coeval tenants key grocer --name checkout --service 'coupon_*' --pii pseudonymous
    """
    from coeval.access.credentials import new_key
    from coeval.access.tenants import edited, utc_now
    from coeval.settings import load_settings

    grant = _grant(service, source, pii, admin)
    made = new_key(name, grant, utc_now() + timedelta(days=days) if days else None)
    with edited(load_settings().tenants_path) as box:
        known = box[0].named(tenant)
        keys = (*(item for item in known.keys if item.name != name), made.key)
        box[0] = box[0].with_tenant(tenant, known.model_copy(update={"keys": keys}))
    print(made.text)


def _grant(services: list[str] | None, sources: list[str] | None, pii: list[str] | None, admin: bool) -> Any:
    from pydantic import ValidationError

    from coeval.access.tenants import Grant

    try:
        return Grant(
            services=tuple(services or ()), sources=tuple(sources or ()), pii=frozenset(pii or ()), admin=admin
        )
    except ValidationError as error:
        raise UsageError(
            f"That cannot be granted: {error.errors()[0]['msg']}.", "See coeval tenants key --help."
        ) from error


@GROUP.command()
def revoke(tenant: Name, name: Annotated[str, typer.Argument(help="The key.")]) -> None:
    """Take a key back. Servers that run refuse it within a second."""
    from coeval.access.tenants import edited
    from coeval.settings import load_settings

    with edited(load_settings().tenants_path) as box:
        known = box[0].named(tenant)
        keys = tuple(item for item in known.keys if item.name != name)
        if len(keys) == len(known.keys):
            names = ", ".join(item.name for item in known.keys) or "none"
            raise UsageError(f"{tenant} has no key {name!r}.", f"Known: {names}.")
        box[0] = box[0].with_tenant(tenant, known.model_copy(update={"keys": keys}))
    print(f"{name} of {tenant} is revoked")


@GROUP.command()
def tokens(
    tenant: Name,
    issuer: Annotated[str, typer.Option(help="The `iss` of its tokens.")],
    audience: Annotated[str, typer.Option(help="The `aud` of its tokens: the tenant's own.")],
    jwks: Annotated[str, typer.Option(help="The issuer's public keys: an https URL or a file.")],
) -> None:
    """Accept JSON web tokens (RS256, ES256) for a tenant. Their claim `coeval` holds what they may do:
    {"services": ["coupon_*"], "sources": [], "pii": ["pseudonymous"], "admin": false}
    """
    from coeval.access.tenants import Tokens, edited
    from coeval.access.tokens import TokenReader, check_source
    from coeval.settings import load_settings

    check_source(jwks)
    if "://" not in jwks:
        jwks = str(Path(jwks).resolve())
    with edited(load_settings().tenants_path) as box:
        known = box[0].named(tenant)
        wanted = Tokens(issuer=issuer, audience=audience, jwks=jwks)
        box[0] = box[0].with_tenant(tenant, known.model_copy(update={"tokens": wanted}))
        TokenReader(box[0])
    print(f"{tenant} takes tokens of {issuer} for {audience}")


@GROUP.command()
def remove(tenant: Name) -> None:
    """Remove a tenant and its credentials. Its data stays where it is."""
    from coeval.access.tenants import Tenants, edited
    from coeval.settings import load_settings

    with edited(load_settings().tenants_path) as box:
        box[0].named(tenant)
        box[0] = Tenants(tenants={name: item for name, item in box[0].tenants.items() if name != tenant})
    print(f"{tenant} is removed")


@GROUP.command("list")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Show the tenants and their credentials; hashes and passwords are left out."""
    from rich.console import Console
    from rich.table import Table

    from coeval.access.tenants import read_tenants
    from coeval.settings import load_settings

    found = read_tenants(load_settings().tenants_path)
    if as_json:
        document = found.model_dump(mode="json", exclude={"tenants": {"__all__": {"keys": {"__all__": {"sha256"}}}}})
        json.dump(document["tenants"], sys.stdout, indent=2)
        print()
        return
    table = Table(box=None, header_style="bold")
    for column in ("tenant", "credential", "reads", "writes", "pii", "admin", "expires"):
        table.add_column(column)
    for name, tenant in found.tenants.items():
        table.add_row(name, f"{tenant.rows_per_second:g} rows/s, {tenant.concurrency} at once", style="bold")
        if tenant.tokens:
            table.add_row("", f"tokens of {tenant.tokens.issuer} for {tenant.tokens.audience}")
        for item in tenant.keys:
            grant = item.grant
            expires = item.expires.date().isoformat() if item.expires else "never"
            lists = (", ".join(names) or "-" for names in (grant.services, grant.sources, sorted(grant.pii)))
            table.add_row("", item.name, *lists, "yes" if grant.admin else "-", expires)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@GROUP.command()
def redis(
    tenant: Name,
    apply: Annotated[bool, typer.Option("--apply", help="Set the users in the Redis of the settings.")] = False,
    activate: Annotated[bool, typer.Option("--activate", help="Have servers use the reader made last.")] = False,
) -> None:
    """Make the Redis users of a tenant, TENANT-reader and TENANT-writer, who reach no key of another tenant.

    New passwords go to files beside the tenants' file, for the owner alone. Prints the lines of an ACL file, which hold
    hashes. With --apply Redis gets them, keeps them if it has an ACL file, and servers use them from now on. Without,
    put the lines into your ACL file, load it, and type: coeval tenants redis TENANT --activate
    """
    from coeval.access import acl
    from coeval.access.tenants import edited
    from coeval.settings import load_settings

    settings = load_settings()
    path = settings.tenants_path
    directory = path.parent / "secrets"
    with edited(path) as box:
        known = box[0].named(tenant)
        if not activate:
            passwords = {role: secrets.token_urlsafe(32) for role in ("reader", "writer")}
            users = [acl.reader(tenant, passwords["reader"]), acl.writer(tenant, passwords["writer"])]
            files = [_keep(directory, f"{tenant}-{role}", text) for role, text in passwords.items()]
            if apply:
                _apply(settings, users)
            for user in users:
                print(user.line)
            print(f"Passwords: {', '.join(map(str, files))}", file=sys.stderr)
        if apply or activate:
            reader = _newest(directory, f"{tenant}-reader")
            changes = {"redis_username": f"{tenant}-reader", "redis_password_file": reader}
            box[0] = box[0].with_tenant(tenant, known.model_copy(update=changes))
    if apply or activate:
        # What nobody uses any more, and not before it is so.
        for role in ("reader", "writer"):
            for old in sorted(directory.glob(f"{tenant}-{role}.*"), key=_made)[:-1]:
                old.unlink()


def _newest(directory: Path, name: str) -> Path:
    found = sorted(directory.glob(f"{name}.*"), key=_made)
    if not found:
        raise UsageError(f"No user {name} was made yet.", "Make the users first: coeval tenants redis TENANT.")
    return found[-1].resolve()


def _made(path: Path) -> int:
    return path.stat().st_mtime_ns


def _apply(settings: Settings, users: list[RedisUser]) -> None:
    from redis import RedisError

    from coeval.online import store

    client: Any = store.connect(settings.redis)
    try:
        nodes = client.get_nodes() if store.is_cluster(client) else [None]
        for user in users:
            for node in nodes:
                target = {} if node is None else {"target_nodes": node}
                client.execute_command("ACL", "SETUSER", user.name, *user.rules, **target)
        try:
            for node in nodes:
                client.execute_command("ACL", "SAVE", **({} if node is None else {"target_nodes": node}))
        except RedisError:
            print("Redis has no ACL file: put the lines into one, or they are gone when it restarts.", file=sys.stderr)
    except RedisError as error:
        raise StoreError(
            f"Redis does not take the users: {error}.", "Use a Redis user that may administer (+acl)."
        ) from error
    finally:
        client.close()


def _keep(directory: Path, name: str, password: str) -> Path:
    """Writes a password to a file of a new name, so that servers notice."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{name}.{secrets.token_hex(4)}"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    return path.resolve()


@GROUP.command()
def audit(
    tenant: Name,
    entities: Annotated[list[str], typer.Argument(help="The subject as it was asked for: household_id=718")],
    text: Annotated[bool, typer.Option("--text", help="The keys are texts, though they look like numbers.")] = False,
) -> None:
    """Print the audit trail's entries of reads of a subject's personal features, as JSON lines.

    Example: coeval tenants audit grocer household_id=718
    """
    from coeval.server.audit import entries_about
    from coeval.settings import load_settings

    wanted: dict[str, str | int] = {}
    for name, _, value in (item.partition("=") for item in entities):
        wanted[name] = value if text or not value.removeprefix("-").isdecimal() else int(value)
    for line in entries_about(load_settings().home / "audit", tenant, wanted):
        print(line, end="")
