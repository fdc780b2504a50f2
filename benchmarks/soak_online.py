"""Half an hour of reads while Redis is killed, stopped and cut off: no wrong value, errors of one kind, memory flat.

Threads with and without a deadline, coroutines and the feature server read the same cards, whose values are known.
Every half minute there is a fault. Writes benchmarks/results/soak_online.json. MINUTES=30.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import redis
from numpy.typing import NDArray

from benchmarks import online_catalog as catalog
from benchmarks.bench_server import COEVAL, serving_process
from benchmarks.report import Figures, aim, publish
from coeval.aio import AsyncFeatureStore
from coeval.client import FeatureStore, open_redis
from coeval.errors import StoreError
from coeval.online import store as online
from coeval.online.result import FeatureResult, Status
from coeval.settings import Settings
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.prepare import free_settings

MINUTES = float(os.environ.get("MINUTES", "30"))
CARDS = 500
DEADLINE = 0.1
EVERY_SECONDS = 30.0
STOPPED_SECONDS = 3.0
FAULTS = ("killed", "stopped", "cut off")
_GROWTH_PER_HOUR = 0.05


class Tally:
    """What readers saw. Safe to share between threads."""

    def __init__(self, truth: list[NDArray[np.float64]]) -> None:
        self._truth = np.concatenate(truth, axis=1)
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.strange: Counter[str] = Counter()
        self.whole_since: dict[str, list[float]] = defaultdict(list)
        self.longest: dict[str, float] = defaultdict(float)

    def result(self, reader: str, cards: list[int], found: FeatureResult, seconds: float) -> None:
        """An answer: each value is the known one, or UNAVAILABLE and none."""
        self.values(reader, cards, found.to_numpy(), found.codes == Status.UNAVAILABLE, seconds)

    def values(
        self, reader: str, cards: list[int], values: NDArray[np.float64], lost: NDArray[np.bool_], seconds: float
    ) -> None:
        """The same, of arrays of (cards, features)."""
        right = np.where(lost, np.isnan(values), values == self._truth[cards])
        self._note(reader, "wrong" if not right.all() else "unavailable" if lost.any() else "whole", seconds)

    def error(self, reader: str, error: Exception, seconds: float) -> None:
        """No answer. Only a `StoreError` is one that a caller is told of."""
        if not isinstance(error, StoreError):
            with self._lock:
                self.strange[f"{reader}: {error!r}"] += 1
        self._note(reader, "error", seconds)

    def _note(self, reader: str, kind: str, seconds: float) -> None:
        with self._lock:
            self.counts[f"{reader}, {kind}"] += 1
            self.longest[reader] = max(self.longest[reader], seconds)
            if kind == "whole":
                self.whole_since[reader].append(time.monotonic())


def main() -> None:
    """Run it, write the result, print the table."""
    with tempfile.TemporaryDirectory(prefix="coeval-bench-") as home:
        settings = free_settings(Path(home))
        settings = settings.model_copy(update={"redis": settings.redis.model_copy(update={"timeout_seconds": 1.0})})
        local.up(settings, ("redis",))
        try:
            made = catalog.manifest()
            (Path(home) / "manifest.json").write_text(made.to_json())
            with closing(open_redis(settings)) as client:
                catalog.fill_rows(client, made, CARDS)
            with serving_process([COEVAL, "serve", "--open"], settings, "/health") as (port, server):
                cases, aims = _soak(settings, made, port, server)
        finally:
            local.down(settings)
    publish("soak_online", cases, aims, settings={"minutes": MINUTES, "deadline_s": DEADLINE, "cards": CARDS})


def _soak(settings: Settings, made: Any, port: int, server: int) -> tuple[list[Figures], list[Figures]]:
    tally, stop = Tally(catalog.values(CARDS)), threading.Event()
    store = FeatureStore(made, open_redis(settings))
    threads = [
        *(threading.Thread(target=_read, args=(store, tally, stop, "thread, deadline", DEADLINE, n)) for n in range(2)),
        threading.Thread(target=_read, args=(store, tally, stop, "thread", None, 9)),
        threading.Thread(target=lambda: asyncio.run(_read_async(settings, made, tally, stop))),
        threading.Thread(target=_read_http, args=(port, tally, stop)),
    ]
    for thread in threads:
        thread.start()
    memory: dict[str, list[tuple[float, float]]] = {"SDK": [], "server": []}
    recovered: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    begin = time.monotonic()
    number = 0
    while time.monotonic() - begin < MINUTES * 60:
        _rest(stop, begin, EVERY_SECONDS, memory, server)
        fault = FAULTS[number % len(FAULTS)]
        number += 1
        over = _fault(settings, fault)
        _await_whole(tally, over, recovered[fault])
    stop.set()
    for thread in threads:
        thread.join(30)
    store.close()
    return _figures(tally, memory, recovered, number)


def _rest(
    stop: threading.Event, begin: float, seconds: float, memory: dict[str, list[tuple[float, float]]], server: int
) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, pid in (("SDK", os.getpid()), ("server", server)):
            memory[name].append((time.monotonic() - begin, psutil.Process(pid).memory_info().rss / 2**20))
        stop.wait(5)


def _read(
    store: FeatureStore, tally: Tally, stop: threading.Event, reader: str, deadline: float | None, seed: int
) -> None:
    choose = random.Random(seed)  # noqa: S311
    while not stop.wait(0.01):
        cards = [choose.randrange(CARDS) for _ in range(choose.choice((1, 10, 50)))]
        begin = time.monotonic()
        try:
            found = store.get_features("rows", {"card_id": cards}, deadline=deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            tally.error(reader, error, time.monotonic() - begin)
        else:
            tally.result(reader, cards, found, time.monotonic() - begin)


async def _read_async(settings: Settings, made: Any, tally: Tally, stop: threading.Event) -> None:
    store = AsyncFeatureStore(made, online.async_client(settings.redis), settings.redis.timeout_seconds)

    async def work(seed: int) -> None:
        choose = random.Random(seed)  # noqa: S311
        while not stop.is_set():
            cards = [choose.randrange(CARDS) for _ in range(10)]
            begin = time.monotonic()
            try:
                found = await store.get_features("rows", {"card_id": cards}, deadline=DEADLINE)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                tally.error("coroutine, deadline", error, time.monotonic() - begin)
            else:
                tally.result("coroutine, deadline", cards, found, time.monotonic() - begin)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(work(seed) for seed in range(8)))
    with suppress(StoreError, redis.RedisError):
        await store.close()


def _read_http(port: int, tally: Tally, stop: threading.Event) -> None:
    choose = random.Random(77)  # noqa: S311
    while not stop.wait(0.02):
        card = choose.randrange(CARDS)
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        begin = time.monotonic()
        try:
            connection.request("POST", "/v1/features", json.dumps({"service": "rows", "entities": {"card_id": [card]}}))
            answer = connection.getresponse()
            document = json.loads(answer.read())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            tally.error("server", error, time.monotonic() - begin)
            continue
        finally:
            connection.close()
        if answer.status == 200:
            values = np.array([column[0] for column in document["features"].values()], dtype=float)
            lost = np.array([column[0] == "UNAVAILABLE" for column in document["statuses"].values()])
            tally.values("server", [card], values[None, :], lost[None, :], time.monotonic() - begin)
        else:
            error = StoreError("away") if answer.status == 503 else ValueError(f"{answer.status} {document}")
            tally.error("server", error, time.monotonic() - begin)


def _fault(settings: Settings, fault: str) -> float:
    """Do it; gives when it was over and recovery begins."""
    process = next(item.process for item in local.status(settings).components if item.name == "redis")
    assert process is not None
    if fault == "killed":
        os.kill(process.pid, signal.SIGKILL)
        # The supervisor starts it again, which is part of what a reader waits for.
    elif fault == "stopped":
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        os.kill(process.pid, signal.SIGCONT)
    else:
        with closing(redis.Redis.from_url(settings.redis.url)) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return time.monotonic()


def _await_whole(tally: Tally, over: float, recovered: dict[str, list[float]]) -> None:
    """Note how long every reader took until its first whole answer."""
    readers = ("thread, deadline", "thread", "coroutine, deadline", "server")
    until = over + 25
    left = set(readers)
    while left and time.monotonic() < until:
        time.sleep(0.02)
        for reader in list(left):
            seen = next((at for at in tally.whole_since[reader] if at > over), None)
            if seen is not None:
                recovered[reader].append(seen - over)
                left.discard(reader)
    for reader in left:
        recovered[reader].append(float("inf"))
    for seen_by in tally.whole_since.values():
        del seen_by[:-10]


def _figures(
    tally: Tally,
    memory: dict[str, list[tuple[float, float]]],
    recovered: dict[str, dict[str, list[float]]],
    faults: int,
) -> tuple[list[Figures], list[Figures]]:
    cases: list[Figures] = [{"case": "answers", "system": "all", "faults": faults, **dict(tally.counts)}]
    cases.append({"case": "strange errors", "system": "all", **dict(tally.strange)})
    for fault, by_reader in recovered.items():
        for reader, seconds in by_reader.items():
            figures = {"median_s": round(median(seconds), 3), "max_s": round(max(seconds), 3), "times": len(seconds)}
            cases.append({"case": f"recovery, {fault}", "system": reader, **figures})
    growth: dict[str, float] = {}
    for name, samples in memory.items():
        late = samples[len(samples) // 2 :]
        slope = float(np.polyfit([x for x, _ in late], [y for _, y in late], 1)[0]) * 3600
        growth[name] = round(slope / float(np.mean([y for _, y in late])), 4)
        figures = {"mb_at_the_end": round(samples[-1][1], 1), "growth_per_hour": growth[name]}
        cases.append({"case": "memory", "system": name, **figures})
    cases += [
        {"case": "longest call", "system": name, "seconds": round(longest, 3)}
        for name, longest in tally.longest.items()
    ]
    wrong = sum(count for name, count in tally.counts.items() if name.endswith("wrong"))
    worst = max((max(seconds) for by in recovered.values() for seconds in by.values()), default=float("inf"))
    return cases, [
        aim("wrong values", float(wrong), 0, at_least=False),
        aim("errors that are no StoreError", float(sum(tally.strange.values())), 0, at_least=False),
        aim("seconds from a fault's end to whole answers, the worst", round(worst, 2), 5, at_least=False),
        *(aim(f"growth of memory per hour, {name}", value, _GROWTH_PER_HOUR, False) for name, value in growth.items()),
    ]


if __name__ == "__main__":
    main()
    sys.stdout.flush()
