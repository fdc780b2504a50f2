"""`make chaos-replay`: a feature server answers all the while a whole stack is killed; every answer is computed again.

Payments come at a rate, some late, some twice, some from clocks that are ahead. Workers, writer, Redis and feature
server are killed with SIGKILL, one after the other in a seeded order, at random moments. Everything that was served is
logged, and replay parity says of every value that it is what training would have used, or why not. Writes
benchmarks/results/replay.json, and exits with 1 where a value is unexplained or too few were served.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from benchmarks.bench_server import COEVAL, serving_process
from benchmarks.report import Figures, aim, publish
from coeval.client import open_redis
from coeval.online.writer import OnlineWriter
from coeval.settings import ServerSettings, Settings
from coeval.spec.manifest import Manifest
from coeval.spec.time import DAY
from coeval_parity.replay import Span, run_replay
from coeval_parity.result import Cause, ParityResult
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy, release
from coeval_pipelines.kafka import client_options
from coeval_pipelines.local import stack
from coeval_pipelines.local.components import workers
from coeval_pipelines.local.prepare import free_settings
from coeval_pipelines.streaming.progress import await_caught_up
from tests.chaos import faults
from tests.support.payments import catalog

VIEWS = ("card_spend", "latest_payment", "merchant_spend")
KINDS = ("worker", "writer", "redis", "server")
CARDS, MERCHANTS, AT_ONCE = 2000, 2000, 20
_CATCH_UP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many responses at least, what is killed how many times each, and events and requests a second."""

    seed: int
    responses: int
    kinds: tuple[str, ...]
    kills: int
    events_per_s: float
    requests_per_s: float


@dataclass(slots=True)
class Served:
    """What the client got."""

    rows: int = 0
    refused: int = 0
    """Requests that were not answered: the server was away."""


@dataclass(slots=True)
class Outcome:
    """What a study came to."""

    events: int = 0
    seconds: float = 0.0
    kills: list[str] = field(default_factory=list)
    served: Served = field(default_factory=Served)
    result: ParityResult | None = None
    replay_seconds: float = 0.0


class Beat:
    """Lets a loop go round so many times a second, until it is over."""

    def __init__(self, per_second: float, over: threading.Event) -> None:
        self._step, self._over, self._due = 1 / per_second, over, time.monotonic()

    def next(self) -> bool:
        """Wait for the next turn; whether there is one."""
        self._due = max(self._due + self._step, time.monotonic() - 1)
        return not self._over.wait(max(0.0, self._due - time.monotonic()))


class Study:
    """One study on a stack of its own."""

    def __init__(self, settings: Settings, plan: Plan, say: Callable[[str], None]) -> None:
        self._settings = settings.model_copy(update={"server": ServerSettings(serving_log=1.0)})
        self._plan, self._say = plan, say
        self._manifest = catalog.manifest(VIEWS, tenant="replay")
        self._outcome, self._over = Outcome(), threading.Event()
        self._port = 0

    def run(self) -> Outcome:
        """Bring the stack up, serve and kill, compute everything again, and take it down."""
        began = time.monotonic()
        try:
            stack.up(self._settings)
            with closing(ControlPlane.open(self._settings)) as control:
                self._serve_and_kill(control)
                await_caught_up(self._settings, self._manifest, control, _CATCH_UP_SECONDS)
            self._replay()
        finally:
            self._over.set()
            stack.down(self._settings)
        self._outcome.seconds = time.monotonic() - began
        return self._outcome

    def _serve_and_kill(self, control: ControlPlane) -> None:
        since = time.time_ns() // 1000 - 40 * DAY
        deploy(self._settings, self._manifest, control, since)
        (self._settings.home / "manifest.json").write_text(self._manifest.to_json())
        release(self._settings, control, self._manifest)
        mark_ready(self._settings, self._manifest)
        with ThreadPoolExecutor(2) as pool:
            beside = [pool.submit(work) for work in (self._produce, self._ask)]
            for item in beside:
                item.add_done_callback(lambda _: self._over.set())
            try:
                self._kill_all()
            finally:
                self._over.set()
        for item in beside:
            item.result()

    def _kill_all(self) -> None:
        """The kills in a seeded order, spread over the responses; each is over before the next."""
        rng, plan, served = random.Random(self._plan.seed), self._plan, self._outcome.served
        order = [kind for kind in plan.kinds for _ in range(plan.kills)]
        rng.shuffle(order)
        for number, kind in enumerate((*order, ""), 1):
            with serving_process([COEVAL, "serve", "--open"], self._settings, "/health") as (self._port, server):
                while served.rows < plan.responses * number // (len(order) + 1):
                    if self._over.wait(0.05):
                        return
                if not kind:
                    return
                # Anywhere between two checkpoints.
                self._over.wait(rng.random() * 5)
                self._say(f"[{number}/{len(order)}] {served.rows:,} responses, {self._outcome.events:,} events: {kind}")
                self._kill(kind, server)
                self._outcome.kills.append(kind)

    def _kill(self, kind: str, server: int) -> None:
        if kind == "server":
            psutil.Process(server).kill()
            return
        names = workers(self._settings) if kind == "worker" else [kind]
        restarts = {item.name: item.restarts for item in stack.status(self._settings).components}
        for name in names:
            faults.kill(self._settings, name)
        faults.await_healthy(self._settings, {name: restarts[name] for name in names})

    def _produce(self) -> None:
        """Payments in real time."""
        from kafka import KafkaProducer

        rng, sent = random.Random(self._plan.seed + 1), 0
        options = client_options(self._settings.kafka)
        options |= {"acks": "all", "enable_idempotence": True, "linger_ms": 5, "delivery_timeout_ms": 300_000}
        beat, topic, again = Beat(self._plan.events_per_s, self._over), self._manifest.event_sources[0].topic, b""
        with closing(KafkaProducer(**options)) as producer:
            while beat.next():
                value = again if again and rng.random() < 0.03 else payment(rng, sent)
                again = value if rng.random() < 0.1 else again
                producer.send(topic, value=value, key=value[:16])
                sent += 1
                self._outcome.events = sent
            producer.flush()

    def _ask(self) -> None:
        """Requests for random keys, all the while."""
        rng, served = random.Random(self._plan.seed + 2), self._outcome.served
        beat, connection = Beat(self._plan.requests_per_s, self._over), None
        while beat.next():
            cards = [rng.randrange(CARDS) for _ in range(AT_ONCE)]
            merchants = [f"m-{rng.randrange(MERCHANTS)}" for _ in range(AT_ONCE)]
            body = {"service": "risk", "entities": {"card_id": cards, "merchant_id": merchants}}
            try:
                if connection is None:
                    connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
                connection.request("POST", "/v1/features", json.dumps(body), {"content-type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, HTTPException):
                connection = None
                served.refused += 1
                continue
            if response.status == 200:
                served.rows += AT_ONCE
            else:
                served.refused += 1

    def _replay(self) -> None:
        began = time.monotonic()
        self._outcome.result = run_replay(self._settings, self._manifest, Span(), wanted="local", on_progress=self._say)
        self._outcome.replay_seconds = time.monotonic() - began


def payment(rng: random.Random, number: int) -> bytes:
    """A payment of now: one in ten came up to three hours late, one in fifty from a clock that is ahead."""
    draw = rng.random()
    delay = rng.uniform(60, 3 * 3600) if draw < 0.1 else -rng.uniform(0, 20) if draw < 0.12 else rng.uniform(0, 2)
    happened = datetime.fromtimestamp(time.time() - delay, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    document = {
        "event_id": f"live_{number:09}",
        "occurred_at": happened,
        "card_id": rng.randrange(CARDS),
        "merchant_id": f"m-{rng.randrange(MERCHANTS)}",
        "country": "DE",
        "amount": f"{rng.randrange(1, 10**6) / 100:.2f}",
        "currency": "EUR",
        "is_online": rng.random() < 0.5,
        "items": rng.randrange(1, 20),
        "note": None,
    }
    return json.dumps(document).encode()


def mark_ready(settings: Settings, manifest: Manifest) -> None:
    """Let readers believe what is there: there is nothing that batch would have to load."""
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        for view in manifest.views.values():
            assert writer.mark_ready(view, writer.incarnation(view), "study")


def main() -> int:
    """Run, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, default=115_000)
    parser.add_argument("--kills", type=int, default=3, help="of each kind")
    parser.add_argument("--events-per-second", type=float, default=60.0)
    parser.add_argument("--requests-per-second", type=float, default=30.0, help="of twenty entities each")
    parser.add_argument("--seed", type=int, default=20261122)
    chosen = parser.parse_args()
    plan = Plan(
        chosen.seed, chosen.responses, KINDS, chosen.kills, chosen.events_per_second, chosen.requests_per_second
    )
    _say(f"seed {plan.seed}")
    with tempfile.TemporaryDirectory(prefix="coeval-chaos-replay-") as home:
        outcome = Study(free_settings(Path(home)), plan, _say).run()
    assert outcome.result is not None
    aims = _aims(plan, outcome.result)
    publish("replay", _cases(outcome, outcome.result), aims, seed=plan.seed, plan=asdict(plan))
    for item in outcome.result.mismatches:
        if item.cause is Cause.UNEXPLAINED:
            _say(f"{item.view}.{item.feature} {item.key}: {item.served} for {item.expected}: {item.proof}")
    return 0 if all(item["met"] for item in aims) else 1


def _cases(outcome: Outcome, result: ParityResult) -> Sequence[Figures]:
    return [
        {
            "case": "served under kill -9", "system": "feature server, all responses logged",
            "events": outcome.events, "asked": outcome.served.rows, "requests_refused": outcome.served.refused,
            "kills": outcome.kills,
        },
        *(
            {
                "case": f"replay of {view.view}", "system": "this process, no Spark", "responses": view.keys_online,
                "keys": view.keys, "values": view.compared,
                "matched": sum(item.matched + item.within_tolerance for item in view.features),
                "causes": {str(cause): view.cause(cause) for cause in Cause if view.cause(cause)},
            }
            for view in result.views
        ),
        {
            "case": "replay", "system": "this process, no Spark", "values": result.compared,
            "seconds": round(outcome.replay_seconds, 1),
            "values_per_s": round(result.compared / outcome.replay_seconds), "notes": list(result.notes),
        },
    ]  # fmt: skip


def _aims(plan: Plan, result: ParityResult) -> Sequence[Figures]:
    responses = min((view.keys_online for view in result.views), default=0)
    least = min(100_000, plan.responses * 9 // 10)
    return [
        aim("responses compared, of each view", responses, least, at_least=True),
        aim("unexplained values", result.causes.get(Cause.UNEXPLAINED, 0), 0, at_least=False),
    ]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
