"""How much the SDK and the feature server carry: threads, coroutines, loads beside Feast's server, a noisy tenant.

Part of `make bench-online`. Writes benchmarks/results/server.json. QUICK=1 measures less, in the same shape.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio

from benchmarks import online_catalog as catalog
from benchmarks.report import QUICK, Figures, aim, publish
from coeval.access.tenants import Grant, Tenant
from coeval.aio import AsyncFeatureStore
from coeval.client import FeatureStore, open_redis
from coeval.online import store as online
from coeval.online.plan import ReadPlanner
from coeval.settings import Settings
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.prepare import free_port, free_settings
from tests.support.serving import Tenancy

SEED = 20261121
CARDS = 2_000
SECONDS = 1.5 if QUICK else 6.0
THREADS = (1, 4, 16, 64)
COROUTINES = (1, 32, 256)
RATES = (100, 300, 600)
FEAST_RATES = (10, 30)
NOISE_ROUNDS = 1 if QUICK else 5
CALM, NOISE = 50, 500
"""Requests a second of a tenant that keeps to its quota, and of one that asks ten times as much."""
COEVAL = str(Path(sys.executable).with_name("coeval"))
FEAST = str(Path(sys.executable).with_name("feast"))


def main() -> None:
    """Measure everything, write the result, print the table."""
    with tempfile.TemporaryDirectory(prefix="coeval-bench-") as home:
        settings = free_settings(Path(home))
        local.up(settings, ("redis",))
        try:
            made = catalog.manifest()
            (Path(home) / "manifest.json").write_text(made.to_json())
            with closing(open_redis(settings)) as client:
                catalog.fill_rows(client, made, CARDS)
            cases = [*_threads(settings), *asyncio.run(_coroutines(settings)), *_open_loop(settings, Path(home))]
            cases += _neighbours(settings, Path(home))
        finally:
            local.down(settings)
    publish("server", cases, _aims(cases))


def _threads(settings: Settings) -> list[Figures]:
    """Requests of one row a second, by threads: ours, and redis-py's pool with a bare MGET of the same keys."""
    made = catalog.manifest()
    found: list[Figures] = []
    pool: Any = redis.Redis.from_url(settings.redis.url, max_connections=100)
    keys = _keys(made)
    with closing(open_redis(settings)) as client, FeatureStore(made, client) as store:

        def ours(card: int) -> object:
            result = store.get_features("rows", {"card_id": [card]})
            return result.to_numpy(), result.codes

        for threads in THREADS:
            for name, ask in (("coeval", ours), ("redis-py MGET", lambda card: pool.mget(keys[card]))):
                rate = _closed(ask, threads)
                found.append(
                    {
                        "case": f"SDK, {threads} threads",
                        "system": name,
                        "threads": threads,
                        "requests_per_s": round(rate),
                    }
                )
                _say(found[-1])
    pool.close()
    return found


def _keys(made: Any) -> list[list[str]]:
    planner = ReadPlanner(made, next(item.views for item in made.services if item.name == "rows"))
    plans = [planner.plan({"card_id": [card]}) for card in range(CARDS)]
    return [plan.keys[: len(plan.reads)] for plan in plans]


def _closed(ask: Callable[[int], object], threads: int) -> float:
    """Requests a second of so many threads, each asking as soon as it was answered."""
    stop = threading.Event()

    def work(seed: int) -> int:
        choose, done = random.Random(seed), 0  # noqa: S311
        while not stop.is_set():
            ask(choose.randrange(CARDS))
            done += 1
        return done

    ask(0)
    with ThreadPoolExecutor(threads) as executor:
        begin = time.perf_counter()
        running = [executor.submit(work, seed) for seed in range(threads)]
        stop.wait(SECONDS)
        stop.set()
        done = sum(item.result() for item in running)
    return done / (time.perf_counter() - begin)


async def _coroutines(settings: Settings) -> list[Figures]:
    made = catalog.manifest()
    keys = _keys(made)
    pool: Any = redis.asyncio.Redis.from_url(settings.redis.url, max_connections=300)
    store = AsyncFeatureStore(made, online.async_client(settings.redis))
    found: list[Figures] = []

    async def ours(card: int) -> object:
        result = await store.get_features("rows", {"card_id": [card]})
        return result.to_numpy(), result.codes

    async def theirs(card: int) -> object:
        return await pool.mget(keys[card])

    for many in COROUTINES:
        for name, ask in (("coeval", ours), ("redis.asyncio MGET", theirs)):
            rate = await _closed_async(ask, many)
            found.append({"case": f"SDK, {many} coroutines", "system": name, "requests_per_s": round(rate)})
            _say(found[-1])
    await store.close()
    await pool.aclose()
    return found


async def _closed_async(ask: Callable[[int], Awaitable[object]], many: int) -> float:
    until = time.perf_counter() + SECONDS
    begin = time.perf_counter()

    async def work(seed: int) -> int:
        choose, done = random.Random(seed), 0  # noqa: S311
        while time.perf_counter() < until:
            await ask(choose.randrange(CARDS))
            done += 1
        return done

    done = sum(await asyncio.gather(*(work(seed) for seed in range(many))))
    return done / (time.perf_counter() - begin)


def _open_loop(settings: Settings, home: Path) -> list[Figures]:
    """Latencies under loads that are due at fixed rates: our server, and Feast's."""
    found: list[Figures] = []
    bodies = [{"service": "rows", "entities": {"card_id": [card]}} for card in range(0, CARDS, 20)]
    with serving_process([COEVAL, "serve", "--open"], settings, "/health") as (port, _):
        for rate in RATES:
            outcome = _load(port=port, path="/v1/features", bodies=bodies, rate=rate)
            found.append({"case": f"server, {rate} requests/s due", "system": "coeval serve", **outcome})
            _say(found[-1])
        many = [{**body, "entities": {"card_id": list(range(100))}} for body in bodies[:1]]
        outcome = _load(port=port, path="/v1/features", bodies=many, rate=30)
        found.append({"case": "server, 30 requests/s of 100 rows due", "system": "coeval serve", **outcome})
        _say(found[-1])
    catalog.feast_store(home, urlsplit(settings.redis.url).netloc, CARDS)
    full = {"feature_service": "rows", "full_feature_names": True}
    bodies = [{**full, "entities": {"card_id": [card]}} for card in range(0, CARDS, 20)]
    command = [FEAST, "-c", str(home), "serve", "--no-access-log", "--port"]
    with serving_process(command, settings, "/health") as (port, _):
        for rate in FEAST_RATES:
            outcome = _load(port=port, path="/get-online-features", bodies=bodies, rate=rate)
            found.append({"case": f"server, {rate} requests/s due", "system": "feast 0.67 serve", **outcome})
            _say(found[-1])
    return found


def _neighbours(settings: Settings, home: Path) -> list[Figures]:
    """The latencies of a tenant that keeps to its quota: alone, and beside one that asks ten times as much."""
    tenants = Tenancy()
    path = home / "tenants.json"
    for name in ("bench", "noisy"):
        directory = home / name
        directory.mkdir()
        made = catalog.manifest(name)
        (directory / "manifest.json").write_text(made.to_json())
        tenants.tenants[name] = Tenant(home=directory, rows_per_second=2.0 * CALM, concurrency=8)
        tenants.key(name, "load", Grant(services=("*",)))
        if name == "noisy":
            with closing(open_redis(settings)) as client:
                catalog.fill_rows(client, made, CARDS)
    tenants.write(path)
    bodies = [{"service": "rows", "entities": {"card_id": [card]}} for card in range(0, CARDS, 20)]
    calm = {"path": "/v1/features", "bodies": bodies, "rate": CALM, "key": tenants.keys["bench", "load"]}
    noise = {"path": "/v1/features", "bodies": bodies, "rate": NOISE, "key": tenants.keys["noisy", "load"]}
    alone, beside, noises = [], [], []
    with serving_process([COEVAL, "serve"], settings, "/ready") as (port, _):
        for _ in range(NOISE_ROUNDS):
            alone.append(_load(port=port, **calm))
            with _loading(port=port, **noise, warm_up=0.0, seconds=SECONDS + 3) as finish:
                beside.append(_load(port=port, **calm))
                noises.append(finish())
    pairs = [round(two["p99_ms"] / one["p99_ms"], 2) for one, two in zip(alone, beside, strict=True)]
    found: list[Figures] = [
        {"case": "noisy neighbour", "system": "a tenant alone", "p99_ms": median(item["p99_ms"] for item in alone)},
        {
            "case": "noisy neighbour",
            "system": "beside ten times as much",
            "p99_ms": median(x["p99_ms"] for x in beside),
        },
        {"case": "noisy neighbour", "system": "the noise", "statuses": noises[-1]["statuses"]},
    ]
    refused = sum(count for item in beside for status, count in item["statuses"].items() if status != "200")
    found.append({"case": "noisy neighbour", "system": "ratio of p99", "rounds": pairs, "calm_refused": refused})
    _say(found)
    return found


@contextmanager
def serving_process(command: list[str], settings: Settings, ready: str) -> Iterator[tuple[int, int]]:
    """A server as a process of its own, on a free port: port and pid. It ends when the context ends."""
    port = free_port()
    if command[0] == FEAST:
        command = [*command, str(port)]
    environment = (
        os.environ | settings.variables() | {"COEVAL_SERVER__PORT": str(port), "COEVAL_SERVER__DRAIN_SECONDS": "0"}
    )
    log = (settings.home / f"server-{port}.log").open("wb")
    child = subprocess.Popen(command, env=environment, stderr=log, stdout=log, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not _answers(port, ready):
            if child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(Path(log.name).read_text()[-2000:])
            time.sleep(0.1)
        yield port, child.pid
    finally:
        child.terminate()
        child.wait(30)
        log.close()


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def _loading(**argument: Any) -> Iterator[Callable[[], Figures]]:
    """A load while the context lasts; what is given waits for its outcome."""
    argument = {"warm_up": 1.0, "seconds": SECONDS, "connections": 64} | argument
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", json.dumps(argument)], stdout=subprocess.PIPE, text=True
    )

    def finish() -> Figures:
        printed, _ = child.communicate(timeout=300)
        found: Figures = json.loads(printed)
        return found

    try:
        yield finish
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _load(**argument: Any) -> Figures:
    with _loading(**argument) as finish:
        return finish()


def _aims(cases: list[Figures]) -> list[Figures]:
    rates = {(item["case"], item["system"]): item["requests_per_s"] for item in cases if "requests_per_s" in item}
    found = [
        aim(f"ours over redis-py's MGET, {case.removeprefix('SDK, ')}", round(rates[case, "coeval"] / rate, 2), 1, True)
        for (case, system), rate in rates.items()
        if system != "coeval"
    ]
    ratios = next(item["rounds"] for item in cases if item["system"] == "ratio of p99")
    found.append(aim("p99 beside a noisy tenant over p99 alone", median(ratios), 2, False))
    return found


def _say(item: object) -> None:
    print(item, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
