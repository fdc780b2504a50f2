"""The Redis users of a tenant: no command of theirs reaches a key of another tenant, whatever a program does. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

READER = ("mget", "get", "ping", "select", "info", "command", "readonly", "cluster|slots", "cluster|shards")
"""What reading takes: INFO tells of the server alone (is it one that forgets?), CLUSTER SLOTS where keys are."""
WRITER = (
    *READER,
    *("eval", "evalsha", "exists", "del", "unlink", "scan", "set", "getrange", "setrange", "pexpire", "time"),
    *("hget", "hset", "zadd", "zrange", "zrem", "zremrangebyscore"),
)
"""What writing takes: scripts, and what is called within them, which is held to the same keys."""


@dataclass(frozen=True, slots=True)
class RedisUser:
    """A user as Redis takes it."""

    name: str
    rules: tuple[str, ...]

    @property
    def line(self) -> str:
        """As in an ACL file, or after ACL SETUSER."""
        return " ".join(("user", self.name, *self.rules))


def reader(tenant: str, password: str) -> RedisUser:
    """Who serves the tenant's features: reads its keys, and nothing else."""
    return _user(f"{tenant}-reader", tenant, password, [f"+{command}" for command in READER])


def writer(tenant: str, password: str) -> RedisUser:
    """Who writes the tenant's features: its keys alone. SCAN, which erasure needs, shows names of others' keys."""
    return _user(f"{tenant}-writer", tenant, password, [f"+{command}" for command in WRITER])


def _user(name: str, tenant: str, password: str, commands: list[str]) -> RedisUser:
    digest = hashlib.sha256(password.encode()).hexdigest()
    # `reset` first: whatever the user was before is forgotten.
    return RedisUser(name, ("reset", "on", f"#{digest}", f"~{tenant}:*", "-@all", *commands))
