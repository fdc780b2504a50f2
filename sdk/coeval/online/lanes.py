"""Connections that reads go over: each thread has its own to each server, and takes none out of a pool. It knows Redis.

redis-py makes and opens them, as the client is configured: addresses, passwords, TLS, Unix sockets, Sentinel, Cluster.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hiredis
import redis

from coeval.online.answer import Answer, Fetched, Question, by_node, together, unread
from coeval.online.store import fetch, is_cluster

if TYPE_CHECKING:
    from redis.connection import ConnectionPool


_GLANCE_SECONDS = 0.001
_BUFFER_BYTES = 1 << 16
_NOT_YET: Any = object()
_packed: Any = hiredis.pack_command


def _reader() -> hiredis.Reader:
    return hiredis.Reader(replyError=redis.ResponseError, notEnoughData=_NOT_YET)


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
            return self._of_one(names, until)
        try:
            shares = self._shares(names)
        except redis.exceptions.RedisClusterException as error:
            # Nobody has some of the slots.
            if until is None:
                raise redis.ConnectionError(str(error)) from error
            self._refresh_soon()
            return unread(len(names))
        return together(len(names), self._of_all(shares, until))

    def _of_one(self, names: Sequence[str], until: float | None) -> Answer:
        pool, command = self._client.connection_pool, ("MGET", *names)
        try:
            try:
                return Answer(self._lane(pool, until).answer(command, until))
            except redis.TimeoutError:
                raise
            except redis.ConnectionError:
                # A second try: a server that was restarted closes connections without a word.
                return Answer(self._lane(pool, until).answer(command, until))
        except redis.RedisError:
            if until is None:
                raise
            return unread(len(names))

    def _of_all(self, shares: Sequence[_Share], until: float | None) -> list[tuple[Question, list[Fetched] | None]]:
        found: list[tuple[Question, list[Fetched] | None]] = []
        asked: deque[tuple[_Share, _Lane | redis.RedisError]] = deque()
        try:
            # All are asked before any is listened to.
            for share in shares:
                asked.append((share, self._ask(share, until)))
            while asked:
                share, lane = asked[0]
                found.append((share.question, self._receive(share, lane, until)))
                asked.popleft()
        finally:
            # Whoever is not listened to any more still owes an answer.
            for _, lane in asked:
                if isinstance(lane, _Lane):
                    lane.connection.disconnect()
        return found

    def _shares(self, names: Sequence[str]) -> list[_Share]:
        client = self._client
        parts = by_node(names, client.keyslot, client.nodes_manager.get_node_from_slot)
        return [_Share(client.get_redis_connection(node).connection_pool, asked) for node, asked in parts]

    def _ask(self, share: _Share, until: float | None) -> _Lane | redis.RedisError:
        try:
            return self._sent(share, until)
        except redis.RedisError as error:
            return error

    def _sent(self, share: _Share, until: float | None) -> _Lane:
        lane = self._lane(share.pool, until)
        lane.send(share.question.commands, until)
        return lane

    def _receive(self, share: _Share, lane: _Lane | redis.RedisError, until: float | None) -> list[Fetched] | None:
        """What a server answers that was asked; None where it does not, and there is a deadline."""
        try:
            try:
                if isinstance(lane, redis.RedisError):
                    raise lane
                return lane.received(len(share.question.commands), until)
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
        """A second try, by redis-py: a node that was restarted closes connections without a word, and slots move."""
        if until is not None and not isinstance(error, redis.ResponseError):
            raise error
        return list(fetch(self._client, share.question.names))

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
    """What one server is asked, and the pool that makes connections to it."""

    pool: ConnectionPool
    question: Question


class _Lane:
    """One connection of one thread."""

    def __init__(self, pool: ConnectionPool, connection: Any) -> None:
        self.pool = pool
        self.connection = connection
        self._usual: float | None = connection.socket_timeout
        self._timeout = self._usual
        self._buffer = bytearray(_BUFFER_BYTES)
        self._reader = _reader()

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
        self._reader = _reader()

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
            self.connection._sock.sendall(b"".join(map(_packed, commands)))  # noqa: SLF001
        except BaseException as error:
            raise self._broken(error) from error

    def received(self, answers: int, until: float | None) -> list[Fetched]:
        """So many answers to MGET, as one list."""
        try:
            # What has arrived while another server was waited for is taken, also when time is up.
            glance = None if until is None else max(until, time.monotonic() + _GLANCE_SECONDS)
            found = self._read(answers, glance)
        except BaseException as error:
            raise self._broken(error) from error
        return self._accepted(found)

    def answer(self, command: tuple[str, ...], until: float | None) -> list[Fetched]:
        """Ask one thing, and wait for the answer."""
        try:
            self.wait_until(until)
            self.connection._sock.sendall(_packed(command))  # noqa: SLF001
            found = self._read(1, until)
        except BaseException as error:
            raise self._broken(error) from error
        return self._accepted(found)

    def _read(self, answers: int, until: float | None) -> list[Any]:
        # redis-py's own way to the same bytes costs as much again as the server's answer takes.
        sock, reader, buffer = self.connection._sock, self._reader, self._buffer  # noqa: SLF001
        found: list[Any] = []
        while len(found) < answers:
            some = reader.gets()
            if some is _NOT_YET:
                if until is not None:
                    self.wait_until(until)
                length = sock.recv_into(buffer)
                if not length:
                    raise redis.ConnectionError("the server closed the connection")
                reader.feed(buffer, 0, length)  # type: ignore[arg-type]
            else:
                found.append(some)
        return found

    @staticmethod
    def _accepted(answers: list[Any]) -> list[Fetched]:
        """The answers as one list.

        Raises:
            redis.ResponseError: the server refused one.
        """
        for answer in answers:
            if isinstance(answer, redis.ResponseError):
                raise answer
        return answers[0] if len(answers) == 1 else [value for part in answers for value in part]

    def _broken(self, error: BaseException) -> BaseException:
        """What is left half-way would be taken for the answer to the next question: the connection is closed."""
        self.connection.disconnect()
        if isinstance(error, TimeoutError):
            return redis.TimeoutError("no answer in time")
        if isinstance(error, OSError | hiredis.ProtocolError):
            return redis.ConnectionError(str(error))
        return error

    def _left(self, until: float | None) -> float | None:
        if until is None:
            return self._usual
        left = until - time.monotonic()
        if left <= 0:
            raise redis.TimeoutError("the deadline has passed")
        return left if self._usual is None else min(left, self._usual)
