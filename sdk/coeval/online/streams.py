"""Connections that awaited reads go over: one per server and event loop, shared by all requests. It knows Redis.

Requests are written as they come and answered in their order, so that many wait at once for one round trip. redis-py
makes and opens the connections, as the client is configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
import redis.asyncio

from coeval.online.answer import UNREAD, Answer, Fetched


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
            pool = self._client.connection_pool
            found = await self._ask(_Share("", pool.make_connection, [("MGET", *names)], (), names), until)
            return Answer([UNREAD] * len(names), whole=False) if found is None else Answer(found)
        try:
            async with asyncio.timeout(self._left(until)):
                shares = await self._shares(names)
        except (TimeoutError, redis.RedisError, redis.exceptions.RedisClusterException) as error:
            # Nobody has some of the slots, or nobody says who has them.
            if until is None:
                raise redis.ConnectionError(str(error) or "no answer") from error
            return Answer([UNREAD] * len(names), whole=False)
        answers = await asyncio.gather(*(self._ask(share, until) for share in shares), return_exceptions=True)
        values: list[Fetched] = [UNREAD] * len(names)
        whole = True
        for share, answer in zip(shares, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            whole &= answer is not None
            for position, value in zip(share.positions, answer or (), strict=answer is not None):
                values[position] = value
        return Answer(values, whole)

    async def _shares(self, names: Sequence[str]) -> list[_Share]:
        await self._client.initialize()
        nodes: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        known: dict[str, Any] = {}
        for position, name in enumerate(names):
            slot = self._client.keyslot(name)
            node = self._client.nodes_manager.get_node_from_slot(slot)
            known[node.name] = node
            nodes[node.name][slot].append(position)
        shares = []
        for name, slots in nodes.items():
            positions = [position for slot in slots.values() for position in slot]
            commands = [("MGET", *(names[position] for position in slot)) for slot in slots.values()]
            make = partial(known[name].connection_class, **known[name].connection_kwargs)
            shares.append(_Share(name, make, commands, positions, [names[position] for position in positions]))
        return shares

    async def _ask(self, share: _Share, until: float | None) -> list[Fetched] | None:
        """What a server answers; None where it does not, and there is a deadline."""
        left = self._left(until)
        try:
            async with asyncio.timeout(left):
                try:
                    return await (await self._stream(share)).ask(share.commands)
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
                return list(await self._client.mget_nonatomic(*share.names))
            except redis.exceptions.RedisClusterException as failed:
                raise redis.ConnectionError(str(failed)) from failed
        if isinstance(error, redis.ResponseError):
            raise error
        return await (await self._stream(share)).ask(share.commands)

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
    """What one server is asked: commands, the names in their order, and where those stand in the request."""

    node: str
    connect: Callable[[], Any]
    commands: Sequence[tuple[str, ...]]
    positions: Sequence[int]
    names: Sequence[str]


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
        # Nothing is awaited between the two lines: questions are written in the order in which they wait.
        await self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        return await answered

    async def _read(self) -> None:
        failed: BaseException = redis.ConnectionError("the connection was closed")
        try:
            while True:
                first = await self._answer()
                _, answers, answered = self._waiting.popleft()
                parts = [first, *[await self._answer() for _ in range(answers - 1)]]
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
