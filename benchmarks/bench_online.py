"""How long an online read takes: ours, redis-py's bare MGET of the same keys, Feast, Feast with precomputed vectors.

All systems answer the same requests, in turns, in one run, from one Redis; medians and 99th percentiles of each. Writes
benchmarks/results/online.json and two pictures. QUICK=1 measures less, in the same shape.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import online_catalog as catalog
from benchmarks.loglog import draw
from benchmarks.report import QUICK, RESULTS, Figures, aim, publish
from coeval.client import FeatureStore, open_redis
from coeval.online.plan import ReadPlanner
from coeval.online.result import Status
from coeval.settings import Settings
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.prepare import free_settings

SEED = 20261121
CARDS = 500 if QUICK else 2_000
ROWS = (1, 10, 100, 500)
REQUESTS = {1: 2_000, 10: 1_000, 100: 300, 500: 80}
SLOW_REQUESTS = {1: 100, 10: 50, 100: 12, 500: 5}
"""Of Feast, every so many of ours: a request of it takes as long as hundreds."""
Ask = Callable[[Mapping[str, list[int]]], object]


def main() -> None:
    """Measure everything, write the result, print the table."""
    with tempfile.TemporaryDirectory(prefix="coeval-bench-") as home:
        settings = free_settings(Path(home))
        local.up(settings, ("redis",))
        try:
            cases = [*_rows(settings, Path(home)), *_windows(settings, dense=True), *_windows(settings, dense=False)]
        finally:
            local.down(settings)
    publish("online", cases, _aims(cases))
    for case, name in (("five views of ten", "online-rows"), ("windows, dense", "online-windows")):
        (RESULTS / f"{name}.svg").write_text(_picture(case, cases))


def _picture(case: str, cases: list[Figures]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for item in cases:
        if item["case"].startswith(f"{case}, "):
            series.setdefault(item["system"], []).append((item["rows"], item["p50_ms"]))
    return draw(f"{case}: median read", series, "entities per request", "milliseconds")


def _rows(settings: Settings, home: Path) -> list[Figures]:
    made = catalog.manifest()
    with closing(open_redis(settings)) as client, FeatureStore(made, client) as store:
        before = _data_bytes(client)
        catalog.fill_rows(client, made, CARDS)
        ours = (_data_bytes(client) - before) / CARDS
        feast = catalog.feast_store(home, urlsplit(settings.redis.url).netloc, CARDS)
        theirs = (_data_bytes(client) - before) / CARDS - ours
        plain, ready = (feast.get_feature_service(name) for name in ("rows", "rows_ready"))

        def of_feast(service: Any) -> Ask:
            return lambda entities: feast.get_online_features(
                features=service,
                entity_rows=[{"card_id": card} for card in entities["card_id"]],
                full_feature_names=True,
            ).to_dict()

        systems = {
            "coeval": _ours(store, "rows"),
            "redis-py MGET": _bare(client, made, "rows"),
            "feast 0.67": of_feast(plain),
            "feast 0.67 precompute_online": of_feast(ready),
        }
        _agree(store, feast, plain)
        cases = _measure("five views of ten", systems)
        cases.append({"case": "bytes", "system": "coeval", "bytes_per_card": round(ours)})
        cases.append({"case": "bytes", "system": "feast 0.67, vectors included", "bytes_per_card": round(theirs)})
        client.flushall()
        return cases


def _windows(settings: Settings, *, dense: bool) -> list[Figures]:
    made, now = catalog.manifest(), time.time_ns() // 1000
    name = "windows, dense" if dense else "windows, sparse"
    with closing(open_redis(settings)) as client, FeatureStore(made, client, clock=lambda: now) as store:
        before = _data_bytes(client)
        catalog.fill_windows(client, made, CARDS, now, dense=dense)
        bytes_per_card = (_data_bytes(client) - before) / CARDS
        assert set(store.get_features("windows", {"card_id": [1]}).codes.ravel()) <= {Status.PRESENT, Status.NULL}
        cases = _measure(name, {"coeval": _ours(store, "windows"), "redis-py MGET": _bare(client, made, "windows")})
        cases.append({"case": "bytes", "system": f"coeval, {name}", "bytes_per_card": round(bytes_per_card)})
        client.flushall()
        return cases


def _ours(store: FeatureStore, service: str) -> Ask:
    def ask(entities: Mapping[str, list[int]]) -> object:
        found = store.get_features(service, entities)
        return found.to_numpy(), found.codes

    return ask


def _bare(client: Any, made: Any, service: str) -> Ask:
    """What redis-py takes to fetch the data keys alone; they are built beforehand."""
    views = next(item.views for item in made.services if item.name == service)
    planner = ReadPlanner(made, views)
    known: dict[tuple[int, ...], list[str]] = {}

    def ask(entities: Mapping[str, list[int]]) -> object:
        return client.mget(known[tuple(entities["card_id"])])

    def prepare(entities: Mapping[str, list[int]]) -> None:
        plan = planner.plan(entities)
        known[tuple(entities["card_id"])] = plan.keys[: len(plan.reads) * plan.rows]

    ask.prepare = prepare  # type: ignore[attr-defined]
    return ask


def _measure(case: str, systems: Mapping[str, Ask]) -> list[Figures]:
    choose = random.Random(SEED)  # noqa: S311
    found: list[Figures] = []
    for rows in ROWS:
        requests = REQUESTS[rows] // (4 if QUICK else 1)
        every = {name: REQUESTS[rows] // SLOW_REQUESTS[rows] if "feast" in name else 1 for name in systems}
        spans: dict[str, list[float]] = {name: [] for name in systems}
        for number in range(-requests // 10, requests):
            entities = {"card_id": [choose.randrange(CARDS) for _ in range(rows)]}
            for name, ask in systems.items():
                if number % every[name]:
                    continue
                getattr(ask, "prepare", lambda _: None)(entities)
                begin = time.perf_counter()
                ask(entities)
                if number >= 0:
                    spans[name].append(time.perf_counter() - begin)
        for name, times in spans.items():
            found.append(
                {
                    "case": f"{case}, {rows} rows", "system": name, "rows": rows,
                    "p50_ms": round(median(times) * 1000, 3),
                    "p99_ms": round(float(np.quantile(times, 0.99)) * 1000, 3),
                    "requests": len(times),
                }
            )  # fmt: skip
        print(f"{case}, {rows} rows: {found[-len(systems) :]}", file=sys.stderr, flush=True)
    return found


def _agree(store: FeatureStore, feast: Any, service: Any) -> None:
    """Both serve the same values."""
    cards = list(range(0, CARDS, 7))
    ours = store.get_features("rows", {"card_id": cards}).to_dict()
    theirs = feast.get_online_features(
        features=service, entity_rows=[{"card_id": card} for card in cards], full_feature_names=True
    ).to_dict()
    assert ours == {name: theirs[name] for name in ours}


def _data_bytes(client: Any) -> int:
    return int(client.info("memory")["used_memory_dataset"])


def _aims(cases: list[Figures]) -> list[Figures]:
    p50 = {(item["case"], item["system"]): item["p50_ms"] for item in cases if "p50_ms" in item}

    def ratio(case: str, over: str, under: str) -> float:
        return round(p50[case, over] / p50[case, under], 2)

    found: list[Figures] = []
    for rows in ROWS:
        case = f"five views of ten, {rows} rows"
        most = 1.5 if rows == 500 else 1.0
        found.append(aim(f"ours over bare MGET, {rows} rows", ratio(case, "coeval", "redis-py MGET"), most, False))
        if rows != 10:
            least = 25 if rows == 1 else 80
            found.append(aim(f"Feast over ours, {rows} rows", ratio(case, "feast 0.67", "coeval"), least, True))
        times = ratio(case, "feast 0.67 precompute_online", "coeval")
        found.append(aim(f"Feast precompute_online over ours, {rows} rows", times, 20, True))
    for shape in ("dense", "sparse"):
        for rows in ROWS:
            times = ratio(f"windows, {shape}, {rows} rows", "coeval", "redis-py MGET")
            found.append(aim(f"ours over bare MGET, windows {shape}, {rows} rows", times, 3.0, False))
    return found


if __name__ == "__main__":
    main()
