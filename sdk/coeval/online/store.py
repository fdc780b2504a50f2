"""A Redis or a Redis Cluster behind the same few calls: connect, fetch keys, run scripts. It knows Redis.

On a Cluster every call may touch several nodes, so none of them is atomic as a whole: what has to be atomic is one
script, whose keys share a bucket and so a slot.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from coeval.errors import StoreError

if TYPE_CHECKING:
    import redis.asyncio

    from coeval.settings import RedisSettings

Arguments = Sequence[str | bytes]
_SENTINEL_PORT = 26379


def connect(settings: RedisSettings) -> redis.Redis:
    """A client of the online store, checked: it answers, and it does not forget what it was given.

    Of a Cluster it is a `redis.RedisCluster`, which has the same commands, each for one slot.

    Raises:
        StoreError: it does not answer, is not what `redis.cluster` says, or a node's maxmemory-policy evicts.
    """
    import redis

    try:
        with _plain_errors():
            client = _client(settings)
            memory = _memory(client)
    except redis.RedisError as error:
        raise StoreError(
            f"The online store at {settings.shown} does not answer: {error}.",
            "Start it (coeval up), or set COEVAL_REDIS__URL and COEVAL_REDIS__CLUSTER.",
        ) from error
    for node, info in memory.items():
        if info["maxmemory_policy"] != "noeviction":
            where = f"The online store{node and f' at {node}'}"
            raise StoreError(
                f"{where} has maxmemory-policy {info['maxmemory_policy']}: it may forget, and answer NOT_FOUND.",
                "Set maxmemory-policy noeviction.",
            )
    return client


def _options(settings: RedisSettings) -> dict[str, Any]:
    chosen: dict[str, Any] = {"socket_timeout": settings.timeout_seconds, "protocol": 2}
    if settings.password:
        chosen["password"] = settings.password.get_secret_value()
    if settings.username:
        chosen["username"] = settings.username
    return chosen


def _client(settings: RedisSettings) -> redis.Redis:
    import redis
    from redis.sentinel import Sentinel

    if settings.sentinel:
        return cast("redis.Redis", _primary(Sentinel, settings))
    if not settings.cluster:
        return redis.Redis.from_url(settings.url, **_options(settings))
    return cast("redis.Redis", redis.RedisCluster.from_url(settings.url, **_options(settings)))


def _primary(sentinel: Any, settings: RedisSettings) -> Any:
    """A client that asks Sentinels who the primary is, whenever it connects."""
    from redis.connection import SSLConnection, parse_url

    address = urlsplit(settings.url)
    user, at, hosts = address.netloc.rpartition("@")
    first, *others = hosts.split(",")
    one = address._replace(netloc=user + at + first).geturl()
    common = dict(parse_url(one))  # type: ignore[no-untyped-call]
    tls = {"ssl": True} if common.pop("connection_class", None) is SSLConnection else {}
    nodes = [(common.pop("host"), common.pop("port", _SENTINEL_PORT))]
    nodes += [(host, int(port or _SENTINEL_PORT)) for host, _, port in (item.partition(":") for item in others)]
    watchers = sentinel(nodes, sentinel_kwargs={"socket_timeout": settings.timeout_seconds} | tls)
    return watchers.master_for(settings.sentinel, **{**common, **tls, **_options(settings)})


def async_client(settings: RedisSettings) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
    """A client for asyncio of the online store; it is not checked, and opens no connection before it is used."""
    import redis.asyncio

    if settings.sentinel:
        from redis.asyncio.sentinel import Sentinel

        return cast("redis.asyncio.Redis", _primary(Sentinel, settings))
    kind: Any = redis.asyncio.RedisCluster if settings.cluster else redis.asyncio.Redis
    return cast("redis.asyncio.Redis", kind.from_url(settings.url, **_options(settings)))


def _memory(client: redis.Redis) -> dict[str, Any]:
    """INFO memory by primary; a single server is called nothing."""
    if not is_cluster(client):
        return {"": client.info("memory")}
    cluster: Any = client
    return {node.name: cluster.info("memory", target_nodes=node) for node in cluster.get_primaries()}


def is_cluster(client: redis.Redis) -> bool:
    """Whether the client is one of a Cluster."""
    import redis

    return isinstance(client, redis.RedisCluster)


def fetch(client: redis.Redis, names: Sequence[str]) -> list[bytes | None]:
    """The values of keys, in their order: one MGET; on a Cluster one per slot, pipelined per node.

    Raises:
        redis.RedisError: the store refused or did not answer.
    """
    if not names:
        return []
    if not is_cluster(client):
        return cast("list[bytes | None]", client.mget(names))
    with _plain_errors():
        return cast("list[bytes | None]", cast("Any", client).mget_nonatomic(names))


def fetch_field(client: redis.Redis, names: Sequence[str], field: str) -> list[bytes | None]:
    """One field of several hashes, in their order, in one round trip.

    Raises:
        redis.RedisError: the store refused or did not answer.
    """
    pipeline: Any = client.pipeline(transaction=False)
    with _plain_errors(), pipeline:
        for name in names:
            pipeline.hget(name, field)
        return cast("list[bytes | None]", pipeline.execute())


class Script:
    """A Lua script. Several calls go out in one round trip; each is atomic for itself, and they run in their order."""

    def __init__(self, client: redis.Redis, text: str) -> None:
        self._client = client
        self._text = text
        # Redis names scripts so; it is no secret.
        self._name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, keys: Sequence[str], arguments: Arguments) -> Any:
        """The result of one call. The keys share a slot.

        Raises:
            redis.RedisError: the store refused or did not answer; the call may have been executed.
        """
        return self.run_all([(keys, arguments)])[0]

    def run_all(self, calls: Sequence[tuple[Sequence[str], Arguments]]) -> list[Any]:
        """The results of calls.

        Raises:
            redis.RedisError: the first error; any of the calls may have been executed.
        """
        import redis

        outcomes = self._send("EVALSHA", self._name, calls)
        # A server that does not know the script (new, restarted, another node) is given the whole text.
        unknown = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, redis.exceptions.NoScriptError)]
        if unknown:
            again = self._send("EVAL", self._text, [calls[at] for at in unknown])
            for at, outcome in zip(unknown, again, strict=True):
                outcomes[at] = outcome
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return outcomes

    def _send(self, command: str, script: str, calls: Sequence[tuple[Sequence[str], Arguments]]) -> list[Any]:
        pipeline: Any = self._client.pipeline(transaction=False)
        with _plain_errors(), pipeline:
            for keys, arguments in calls:
                pipeline.execute_command(command, script, len(keys), *keys, *arguments)
            return list(pipeline.execute(raise_on_error=False))


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Errors of a Cluster as a whole are no RedisError in redis-py; here they are, so that callers know one kind."""
    import redis

    try:
        yield
    except redis.exceptions.RedisClusterException as error:
        raise redis.ConnectionError(str(error)) from error
