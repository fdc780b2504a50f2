"""Connections that reads go over: each thread has its own to each server, and takes none out of a pool. It knows Redis.

redis-py makes and opens them, as the client is configured: addresses, passwords, TLS, Unix sockets, Sentinel, Cluster.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

from coeval.online.answer import UNREAD, Answer, Fetched
from coeval.online.store import fetch, is_cluster

if TYPE_CHECKING:
    from redis.connection import ConnectionPool


_GLANCE_SECONDS = 0.001


class Lanes:
    """Reads keys for many threads. After a fork the child opens connections of its own."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._cluster = is_cluster(client)
        self._local = threading.local()
        self._all: weakref.WeakSet[_Lane] = weakref.WeakSet()
        self._refreshing = threading.Lock()

    def close(self) -> None:
        """Close the connections of all threads."""
        for lane in list(self._all):
            lane.connection.disconnect()

    def fetch(self, names: Sequence[str], until: float | None = None) -> Answer:
        """The values of keys: one MGET; on a Cluster one per slot, pipelined per node, all nodes at a time.

        `until` is an instant of `time.monotonic`: what is not read by then is UNREAD, and so is what a server that does
        not answer holds. Without it:

        Raises:
            redis.RedisError: a server refused or did not answer.
        """
        if not names:
            return Answer([])
        if not self._cluster:
            pool = self._client.connection_pool
            found = self._receive(_Share(pool, [("MGET", *names)], (), names), None, until)
            return Answer([UNREAD] * len(names), whole=False) if found is None else Answer(found)
        try:
            shares = self._shares(names)
        except redis.exceptions.RedisClusterException as error:
            # Nobody has some of the slots.
            if until is None:
                raise redis.ConnectionError(str(error)) from error
            self._refresh_soon()
            return Answer([UNREAD] * len(names), whole=False)
        return self._of_all(shares, len(names), until)

    def _of_all(self, shares: Sequence[_Share], count: int, until: float | None) -> Answer:
        values: list[Fetched] = [UNREAD] * count
        whole = True
        asked: deque[tuple[_Share, _Lane | redis.RedisError]] = deque()
        try:
            # All are asked before any is listened to.
            for share in shares:
                asked.append((share, self._ask(share, until)))
            while asked:
                share, lane = asked[0]
                found = self._receive(share, lane, until)
                asked.popleft()
                whole &= found is not None
                for position, value in zip(share.positions, found or (), strict=found is not None):
                    values[position] = value
        finally:
            # Whoever is not listened to any more still owes an answer.
            for _, lane in asked:
                if isinstance(lane, _Lane):
                    lane.connection.disconnect()
        return Answer(values, whole)

    def _shares(self, names: Sequence[str]) -> list[_Share]:
        nodes: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        manager, pools = self._client.nodes_manager, {}
        for position, name in enumerate(names):
            slot = self._client.keyslot(name)
            node = manager.get_node_from_slot(slot)
            pools[node.name] = node
            nodes[node.name][slot].append(position)
        shares = []
        for name, slots in nodes.items():
            positions = [position for slot in slots.values() for position in slot]
            commands = [("MGET", *(names[position] for position in slot)) for slot in slots.values()]
            pool = self._client.get_redis_connection(pools[name]).connection_pool
            shares.append(_Share(pool, commands, positions, [names[position] for position in positions]))
        return shares

    def _ask(self, share: _Share, until: float | None) -> _Lane | redis.RedisError:
        try:
            return self._sent(share, until)
        except redis.RedisError as error:
            return error

    def _sent(self, share: _Share, until: float | None) -> _Lane:
        lane = self._lane(share.pool, until)
        lane.send(share.commands, until)
        return lane

    def _receive(
        self, share: _Share, lane: _Lane | redis.RedisError | None, until: float | None
    ) -> list[Fetched] | None:
        """What a server answers, which is asked now if it was not; None where it does not, and there is a deadline."""
        try:
            try:
                if isinstance(lane, redis.RedisError):
                    raise lane
                return (lane or self._sent(share, until)).received(len(share.commands), until)
            except redis.TimeoutError:
                raise
            except (redis.ConnectionError, redis.ResponseError) as error:
                return self._again(share, error, until)
        except redis.RedisError:
            if until is None:
                raise
            self._refresh_soon()
            return None

    def _again(self, share: _Share, error: redis.RedisError, until: float | None) -> list[Fetched]:
        """A second try: a server that was restarted closes connections without a word, and a Cluster moves slots."""
        if self._cluster:
            if until is not None and not isinstance(error, redis.ResponseError):
                raise error
            return list(fetch(self._client, share.names))
        if isinstance(error, redis.ResponseError):
            raise error
        return self._sent(share, until).received(len(share.commands), until)

    def _lane(self, pool: ConnectionPool, until: float | None) -> _Lane:
        """This thread's connection to a server, open."""
        local = self._local
        if getattr(local, "process", None) != os.getpid():
            # A connection that came with a fork belongs to the parent.
            local.process, local.lanes = os.getpid(), {}
        lane: _Lane | None = local.lanes.get(id(pool))
        if lane is None or lane.pool is not pool:
            lane = local.lanes[id(pool)] = _Lane(pool, pool.make_connection())
            self._all.add(lane)
        lane.open(until)
        return lane

    def _refresh_soon(self) -> None:
        """Ask a Cluster anew who has which slots, in a thread of its own: a request with a deadline cannot wait."""
        if self._cluster and self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh, daemon=True).start()

    def _refresh(self) -> None:
        try:
            with contextlib.suppress(redis.RedisError, redis.exceptions.RedisClusterException):
                self._client.nodes_manager.initialize()
        finally:
            self._refreshing.release()


@dataclass(frozen=True, slots=True)
class _Share:
    """What one server is asked: commands, the names in their order, and where those stand in the request."""

    pool: ConnectionPool
    commands: Sequence[tuple[str, ...]]
    positions: Sequence[int]
    names: Sequence[str]


class _Lane:
    """One connection of one thread."""

    def __init__(self, pool: ConnectionPool, connection: Any) -> None:
        self.pool = pool
        self.connection = connection
        self._usual: float | None = connection.socket_timeout
        self._timeout = self._usual

    def open(self, until: float | None) -> None:
        """Connect, if it is not, within the time that is left."""
        connection = self.connection
        if connection._sock is not None:  # noqa: SLF001 - redis-py does not say otherwise whether it is open
            return
        left = self._left(until)
        connection.socket_connect_timeout = connection.socket_timeout = left
        try:
            connection.connect()
        finally:
            connection.socket_timeout = self._usual
        self._timeout = left

    def wait_until(self, until: float | None) -> None:
        """Let the next calls take no longer than until then.

        Raises:
            redis.TimeoutError: that is now.
        """
        left = self._left(until)
        if left != self._timeout:
            # redis-py has no public way to change it between two calls.
            self.connection._sock.settimeout(left)  # noqa: SLF001
            self._timeout = left

    def send(self, commands: Sequence[tuple[str, ...]], until: float | None) -> None:
        """Ask."""
        try:
            self.wait_until(until)
            self.connection.send_packed_command(self.connection.pack_commands(commands), check_health=False)
        except BaseException:
            self.connection.disconnect()
            raise

    def received(self, answers: int, until: float | None) -> list[Fetched]:
        """So many answers to MGET, as one list."""
        found: list[Fetched] = []
        try:
            for _ in range(answers):
                # What has arrived while another server was waited for is taken, also when time is up.
                self.wait_until(None if until is None else max(until, time.monotonic() + _GLANCE_SECONDS))
                found += self.connection.read_response(disable_decoding=True)
        except BaseException:
            # What is left half-way would be taken for the answer to the next question.
            self.connection.disconnect()
            raise
        return found

    def _left(self, until: float | None) -> float | None:
        if until is None:
            return self._usual
        left = until - time.monotonic()
        if left <= 0:
            raise redis.TimeoutError("the deadline has passed")
        return left if self._usual is None else min(left, self._usual)
