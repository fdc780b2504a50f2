"""An open-loop load: requests are sent when they are due, whether or not those before were answered.

Run as a process of its own, with a JSON argument: port, key, path, bodies, rate, seconds, warm_up, connections. Latency
is counted from when a request was due, so a server that stalls is charged with all that had to wait (no coordinated
omission). Prints a JSON document.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import uvloop


@dataclass(slots=True)
class Outcome:
    """What became of a load. Latencies are in milliseconds, of answers with status 200."""

    sent: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    answered_per_s: float = 0.0
    worst_send_delay_ms: float = 0.0


class _Connection:
    """One connection of HTTP/1.1, asked one thing at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> int:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
        if length:
            await self._reader.readexactly(length)
        if b"connection: close" in lower:
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def run(argument: dict[str, Any]) -> Outcome:
    """Send what is due, for as long as is asked for."""
    requests = [_request(argument, body) for body in argument["bodies"]]
    choose = random.Random(argument.get("seed", 1))  # noqa: S311
    free: deque[_Connection] = deque(_Connection(argument["port"]) for _ in range(argument["connections"]))
    available = asyncio.Semaphore(len(free))
    begin = time.perf_counter() + 0.1
    measured_from = begin + argument["warm_up"]
    end = measured_from + argument["seconds"]
    times: list[float] = []
    statuses: Counter[str] = Counter()
    outcome = Outcome()

    async def one(due: float) -> None:
        async with available:
            connection = free.popleft()
            try:
                status = str(await connection.ask(choose.choice(requests)))
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                connection.close()
                status = type(error).__name__
            free.append(connection)
        if due >= measured_from:
            statuses[status] += 1
            if status == "200":
                times.append(time.perf_counter() - due)

    tasks: set[asyncio.Task[None]] = set()
    due = begin
    while due < end:
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        elif due >= measured_from:
            outcome.worst_send_delay_ms = max(outcome.worst_send_delay_ms, -wait * 1e3)
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        outcome.sent += due >= measured_from
        # As many independent callers come: at random.
        due += choose.expovariate(argument["rate"])
    await asyncio.gather(*tasks)
    took = time.perf_counter() - measured_from
    outcome.statuses = dict(statuses)
    if times:
        found = np.quantile(times, [0.5, 0.99, 0.999]) * 1e3
        outcome.p50_ms, outcome.p99_ms, outcome.p999_ms = (round(float(value), 3) for value in found)
    outcome.answered_per_s = round(statuses["200"] / took, 1)
    return outcome


def _request(argument: dict[str, Any], body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"POST {argument['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    if argument.get("key"):
        head += f"Authorization: Bearer {argument['key']}\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


if __name__ == "__main__":
    uvloop.install()
    print(json.dumps(asdict(asyncio.run(run(json.loads(sys.argv[1]))))))
