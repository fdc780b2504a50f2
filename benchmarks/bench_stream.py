"""How fast events get from their topic to readable values: ours, Flink alone, Feast, plain Python; and how it grows.

Every system works off the same preloaded topic, in turns, in one run. Rates are taken over the second half of the
events, when Java has compiled; where each begins and ends is said in docs/benchmarks.md. Writes
benchmarks/results/stream.json. QUICK=1 measures less, in the same shape; FULL=1 adds five million keys; ROUNDS is 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from urllib.parse import urlsplit

from benchmarks import rig
from benchmarks.report import QUICK, Figures, aim, publish
from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.control import Run
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import group_id
from coeval_pipelines.streaming.sql import source_job
from tests.support.payments.catalog import ViewSet, manifest
from tests.support.payments.shape import Spec

SEED = 20261121
VIEWS: ViewSet = 3
EVENTS = 150_000 if QUICK else 500_000
FEAST_EVENTS = 60_000 if QUICK else 200_000
ROUNDS = 1 if QUICK else int(os.environ.get("ROUNDS", "1"))
GROWTH_EVENTS = 100_000 if QUICK else 500_000
GROWTH_VIEWS: tuple[ViewSet, ...] = (1, 10) if QUICK else (1, 3, 10)
GROWTH_KEYS = (10_000,) if QUICK else (10_000, 100_000, 1_000_000, *((5_000_000,) if os.environ.get("FULL") else ()))
BACKENDS = ("hashmap", "rocksdb")
_HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Topic:
    """A preloaded topic of payments."""

    name: str
    prefix: str
    spec: Spec

    def manifest(self, views: ViewSet, tenant: str) -> Manifest:
        """Views over it, for a tenant of their own."""
        return manifest(views, tenant=tenant, topic_prefix=self.prefix)


def topic(name: str, prefix: str, events: int, **keys: float) -> Topic:
    """A topic whose last event has just become available; its events fill an hour."""
    # Prefix and spec are all that makes it: two systems cannot be given different ones.
    rate = events / _HOUR_SECONDS
    spec = Spec(SEED, events, rig.now() - _HOUR_SECONDS * 1_000_000, rate, refund_share=0, score_share=0)
    return Topic(name, prefix, replace(spec, **keys))  # type: ignore[arg-type]


def main() -> None:
    """Measure everything, write the result, print the table."""
    skewed = topic("hot card 50%", "skewed.", EVENTS)
    unique = topic("nearly unique keys", "unique.", EVENTS, hot_share=0.0, skew=0.0, cards=EVENTS)
    with rig.bench_stack() as stack:
        for item in (skewed, unique):
            _say(f"{item.name}: {EVENTS} events loaded in {_load(stack, item):.0f} s")
        cases = [*_throughput(stack, skewed), *_throughput(stack, unique), *_by_views(stack, skewed)]
        settings = _settings(stack, skewed)
    for backend in BACKENDS:
        # A stack of its own: a worker's memory is divided up for one kind of state or the other.
        with rig.bench_stack(state_backend=backend) as stack:
            cases += _by_keys(stack, backend)
    publish("stream", cases, _aims(cases), settings=settings)


def _load(stack: Settings, item: Topic) -> float:
    return rig.preload(stack, item.manifest(1, "loader"), item.spec)


def _throughput(stack: Settings, item: Topic) -> list[Figures]:
    """Every system in turns, several rounds."""
    systems: dict[str, Callable[[Settings, Topic, int], Figures]] = {
        "coeval, to Redis": _ours,
        "limit: its SQL, to nowhere": _limit,
        "coeval, latest_payment alone": _row_view,
        "feast 0.67 and Spark, latest_payment": partial(_feast, "latest_payment"),
        "coeval, card_spend alone": _windowed_view,
        "feast 0.67 and Spark, card_spend": partial(_feast, "card_spend"),
        "python, to dictionaries": _python,
    }
    rounds: dict[str, list[Figures]] = defaultdict(list)
    for number in range(ROUNDS):
        for name, measure in systems.items():
            found = _survived(partial(measure, stack, item, number))
            _say(f"{item.name}, {name}: {found}")
            rounds[name].append(found)
    return [{"case": f"throughput, {item.name}", "system": name, **_middle(found)} for name, found in rounds.items()]


def _middle(rounds: list[Figures]) -> Figures:
    """The round of the median rate, and all the rates."""
    rates = [item.get("events_per_s", 0) for item in rounds]
    chosen = min(rounds, key=lambda item: abs(item.get("events_per_s", 0) - median(rates)))
    return {**chosen, "events_per_s": round(median(rates)), "rounds_events_per_s": rates}


def _ours(stack: Settings, item: Topic, number: int, views: ViewSet = VIEWS) -> Figures:
    which = views if isinstance(views, int | str) else "-".join(views)
    tenant = "-".join(map(str, (f"ours{number}", item.prefix.rstrip("."), which)))
    with rig.deployed(stack, item.manifest(views, tenant), rig.since(item.spec)) as case:
        with rig.Usage(stack, writer=case.writer.pid) as usage:
            rate = rig.await_covered(case)
        size, keys = rig.redis_bytes(stack)
        return _figures(item, rate, usage) | {
            "messages_per_event": round(case.changelog_messages() / item.spec.events, 2),
            "taskmanager_peak_mb": usage.peak_mb["taskmanager"],
            "checkpoint_mb": round(case.checkpoint_bytes() / 2**20, 1),
            "redis_mb": round(size / 2**20, 1),
            "redis_keys": keys,
        }


def _row_view(stack: Settings, item: Topic, number: int) -> Figures:
    return _ours(stack, item, number, ("latest_payment",))


def _windowed_view(stack: Settings, item: Topic, number: int) -> Figures:
    return _ours(stack, item, number, ("card_spend",))


def _figures(item: Topic, rate: rig.Rate, usage: rig.Usage) -> Figures:
    busy = {name: cores for name, cores in usage.cores.items() if cores >= 0.05}
    return {
        "events_per_s": round(rate.steady),
        "events": item.spec.events,
        "seconds_from_running": round(rate.seconds, 1),
        "cpu_cores": busy,
    }


def _limit(stack: Settings, item: Topic, number: int) -> Figures:
    made = item.manifest(VIEWS, f"limit{number}-{item.prefix.rstrip('.')}")
    since = dict.fromkeys(made.views, rig.since(item.spec))
    run = Run(1, "payments", made.hash, tuple(made.views), since, {}, stack.flink.parallelism)
    with rig.case(stack, made) as case:
        body = case.settings.home / "limit.json"
        body.write_text(json.dumps([{"manifest": made.to_json(), "run": asdict(run), "checkpoint": ""}]))
        printed = rig.child("benchmarks.limit", case.settings, str(body), case.settings.home / "limit.log")
        case.jobs = {int(run): job for run, job in json.loads(printed).items()}
        FlinkCluster.open(stack).await_healthy(case.jobs[1])
        with rig.Usage(stack) as usage:
            rate = rig.await_committed(case.settings, group_id(made, run), f"{item.prefix}payments")
        return _figures(item, rate, usage)


def _feast(view: str, stack: Settings, item: Topic, number: int) -> Figures:
    del number
    redis = urlsplit(stack.redis.url).netloc
    with tempfile.TemporaryDirectory(dir=stack.home, prefix="feast-") as directory:
        argument = {"view": view, "redis": redis, "directory": directory, "events": FEAST_EVENTS}
        return _peer("benchmarks.feast_ingest", stack, item, argument)


def _python(stack: Settings, item: Topic, number: int) -> Figures:
    del number
    return _peer("benchmarks.python_consumer", stack, item, {})


def _peer(module: str, stack: Settings, item: Topic, argument: dict[str, object]) -> Figures:
    argument |= {"bootstrap": stack.kafka.bootstrap, "topic": f"{item.prefix}payments"}
    log = stack.home / f"{module}.log"
    found = json.loads(rig.child(module, stack, json.dumps(argument), log))
    rig.clear(stack)
    return {"events_per_s": round(found["events"] / found["seconds"]), "events": found["events"]}


def _by_views(stack: Settings, item: Topic) -> list[Figures]:
    return [
        {"case": "growth, views", "system": f"coeval, {views} views", "views": views, **_ours(stack, item, 9, views)}
        for views in GROWTH_VIEWS
    ]


def _by_keys(stack: Settings, backend: str) -> list[Figures]:
    found: list[Figures] = []
    for keys in GROWTH_KEYS:
        events = max(GROWTH_EVENTS, keys)
        item = topic(f"{keys} keys", f"keys{keys}.", events, hot_share=0.0, skew=0.0, cards=keys)
        _load(stack, item)
        figures = _survived(partial(_ours, stack, item, 9, 1))
        _say(f"{item.name}, {backend}: {figures}")
        found.append({"case": "growth, keys", "system": f"coeval, {backend}", "keys": keys, **figures})
    return found


def _survived(measure: Callable[[], Figures]) -> Figures:
    """The figures, or why there are none: a worker that is too small for its state is a result."""
    try:
        return measure()
    except EngineError as error:
        return {"failed": error.reason}


def _settings(stack: Settings, item: Topic) -> Figures:
    """What the figures depend on, as it was set."""
    made = item.manifest(VIEWS, "settings")
    run = Run(1, "payments", made.hash, tuple(made.views), dict.fromkeys(made.views, 0), {}, 1)
    hours = source_job(made, run, {}).state_ttl / 3.6e9
    spec = {key: value for key, value in asdict(item.spec).items() if key not in ("start", "burst")}
    flink = stack.flink.model_dump(exclude={"rest_url"})
    feast = "Spark local[2], maxOffsetsPerTrigger 20000, foreachBatch -> write_to_online_store of one view"
    return {
        "flink": flink,
        "state_ttl_hours": hours,
        "partitions": stack.kafka.partitions,
        "spec": spec,
        "feast": feast,
    }


def _aims(cases: list[Figures]) -> list[Figures]:
    def ratio(shape: str, system: str, ours: str = "coeval, to Redis") -> float:
        rates = {item["system"]: item["events_per_s"] for item in cases if item["case"] == f"throughput, {shape}"}
        other: float = next(rate for name, rate in rates.items() if name.startswith(system))
        # A system that failed has no rate, and what is compared with it meets nothing.
        return round(float(rates[ours] / other), 2) if other else 0.0

    found: list[Figures] = []
    for shape in ("hot card 50%", "nearly unique keys"):
        found.append(aim(f"ours against the limit, {shape}", ratio(shape, "limit"), 0.75, at_least=True))
        for view in ("card_spend", "latest_payment"):
            times = ratio(shape, f"feast 0.67 and Spark, {view}", f"coeval, {view} alone")
            found.append(aim(f"ours against Feast, {view}, {shape}", times, 5, at_least=True))
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
