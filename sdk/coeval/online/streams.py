"""Connections that awaited reads go over: one per server and event loop, shared by all requests. It knows Redis.

Requests are written as they come and answered in their order, so that many wait at once for one round trip. redis-py
makes and opens the connections, as the client is configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import redis.asyncio

from coeval.online.answer import Answer, Fetched, Question, by_node, question, together, unread


class Streams:
    """Reads keys for many coroutines, of one event loop or of several."""

    def __init__(self, client: redis.asyncio.Redis | redis.asyncio.RedisCluster, timeout: float) -> None:
        self._client: Any = client
        self._cluster = isinstance(client, redis.asyncio.RedisCluster)
        self._timeout = timeout
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Stream]] = (
            weakref.WeakKeyDictionary()
        )

    async def close(self) -> None:
        """Close the connections of this event loop."""
        for stream in self._loops.pop(asyncio.get_running_loop(), {}).values():
            await stream.close()

    async def fetch(self, names: Sequence[str], until: float | None = None) -> Answer:
        """The values of keys; `until` and the errors are those of `coeval.online.lanes.Lanes.fetch`."""
        if not names:
            return Answer([])
        if not self._cluster:
            found = await self._ask(_Share("", self._client.connection_pool.make_connection, question(names)), until)
            return unread(len(names)) if found is None else Answer(found)
        try:
            async with asyncio.timeout(self._left(until)):
                shares = await self._shares(names)
        except (TimeoutError, redis.RedisError, redis.exceptions.RedisClusterException) as error:
            # Nobody has some of the slots, or nobody says who has them.
            if until is None:
                raise redis.ConnectionError(str(error) or "no answer") from error
            return unread(len(names))
        answers = await asyncio.gather(*(self._ask(share, until) for share in shares), return_exceptions=True)
        parts: list[tuple[Question, list[Fetched] | None]] = []
        for share, answer in zip(shares, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            parts.append((share.question, answer))
        return together(len(names), parts)

    async def _shares(self, names: Sequence[str]) -> list[_Share]:
        await self._client.initialize()
        parts = by_node(names, self._client.keyslot, self._client.nodes_manager.get_node_from_slot)
        return [
            _Share(node.name, partial(node.connection_class, **node.connection_kwargs), asked) for node, asked in parts
        ]

    async def _ask(self, share: _Share, until: float | None) -> list[Fetched] | None:
        """What a server answers; None where it does not, and there is a deadline."""
        left = self._left(until)
        try:
            async with asyncio.timeout(left):
                try:
                    return await (await self._stream(share)).ask(share.question.commands)
                except (redis.ConnectionError, redis.ResponseError) as error:
                    return await self._again(share, error)
        except TimeoutError:
            await self._overdue(share.node)
            if until is None:
                raise redis.TimeoutError(f"no answer within {left:g} s") from None
            return None
        except redis.RedisError:
            if until is None:
                raise
            return None

    def _left(self, until: float | None) -> float:
        return self._timeout if until is None else min(self._timeout, until - time.monotonic())

    async def _again(self, share: _Share, error: redis.RedisError) -> list[Fetched]:
        """A second try: a server that was restarted closes connections without a word, and a Cluster moves slots."""
        if self._cluster:
            try:
                return list(await self._client.mget_nonatomic(*share.question.names))
            except redis.exceptions.RedisClusterException as failed:
                raise redis.ConnectionError(str(failed)) from failed
        if isinstance(error, redis.ResponseError):
            raise error
        return await (await self._stream(share)).ask(share.question.commands)

    async def _stream(self, share: _Share) -> _Stream:
        streams = self._loops.setdefault(asyncio.get_running_loop(), {})
        stream = streams.get(share.node)
        if stream is None or stream.over:
            stream = streams[share.node] = _Stream(share.connect())
        await stream.open()
        return stream

    async def _overdue(self, node: str) -> None:
        """Leave a connection whose oldest question has waited for longer than any may: nothing will come of it."""
        stream = self._loops.get(asyncio.get_running_loop(), {}).get(node)
        if stream is not None and stream.waiting_since() < time.monotonic() - self._timeout:
            await stream.close()


@dataclass(frozen=True, slots=True)
class _Share:
    """What one server is asked, its name, and what makes a connection to it."""

    node: str
    connect: Callable[[], Any]
    question: Question


class _Stream:
    """One connection and the questions that it has not answered yet."""

    def __init__(self, connection: Any) -> None:
        # Time is kept by whoever waits: a limit here would be one for all.
        self._patience = connection.socket_timeout
        connection.socket_timeout = None
        self._connection = connection
        self._waiting: deque[tuple[float, int, asyncio.Future[list[Fetched]]]] = deque()
        self._opened: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self.over = False
        """Whether it can be asked nothing more."""

    def waiting_since(self) -> float:
        """When the oldest unanswered question was asked, by `time.monotonic`."""
        return self._waiting[0][0] if self._waiting else time.monotonic()

    async def open(self) -> None:
        """Connect, if it is not."""
        if self._opened is None:
            self._opened = asyncio.create_task(self._open())
            # If all who waited have given up, nobody asks how it ended.
            self._opened.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Whoever gives up waiting does not take the connection from the others.
        await asyncio.shield(self._opened)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._connection.connect()
        except TimeoutError as error:
            self.over = True
            raise redis.TimeoutError("timeout connecting to the server") from error
        except BaseException:
            self.over = True
            raise
        self._reader = asyncio.create_task(self._read())

    async def ask(self, commands: Sequence[tuple[str, ...]]) -> list[Fetched]:
        """The answers to commands of MGET, as one list."""
        if self.over:
            raise redis.ConnectionError("the connection was closed")
        answered: asyncio.Future[list[Fetched]] = asyncio.get_running_loop().create_future()
        self._waiting.append((time.monotonic(), len(commands), answered))
        # Nothing is awaited between the two lines: questions are written in the order in which they wait. redis-py's
        # own way to send waits for the network, and closes the connection, which is not ours alone, if we give up.
        self._connection._writer.writelines(self._connection.pack_commands(commands))  # noqa: SLF001
        return await answered

    async def _read(self) -> None:
        failed: BaseException = redis.ConnectionError("the connection was closed")
        try:
            while True:
                parts = [await self._answer()]
                _, answers, answered = self._waiting[0]
                parts += [await self._answer() for _ in range(answers - 1)]
                # Not before it is whole: if the connection breaks now, its question is among those that failed.
                self._waiting.popleft()
                if not answered.done():
                    refused = next((part for part in parts if isinstance(part, Exception)), None)
                    if refused is not None:
                        answered.set_exception(refused)
                    else:
                        answered.set_result([value for part in parts for value in part])
        except (redis.RedisError, OSError) as error:
            failed = error
        finally:
            self.over = True
            for _, _, answered in self._waiting:
                if not answered.done():
                    answered.set_exception(redis.ConnectionError(str(failed)))
                    # Who has given up waiting does not look any more.
                    answered.exception()
            self._waiting.clear()
            await self._connection.disconnect(nowait=True)

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
        except redis.ConnectionError:
            raise
        except redis.ResponseError as error:
            return error

    async def close(self) -> None:
        """Close it; who still waits gets an error."""
        self.over = True
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        else:
            await self._connection.disconnect(nowait=True)
