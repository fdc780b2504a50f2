"""What the stream's benchmarks share: a stack of their own, one home per case, and samples of what it takes.

Cases share broker, Redis and Flink; each has its own tenant, control plane and writer, and leaves an empty Redis.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from coeval.client import open_redis
from coeval.errors import EngineError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.time import DAY
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import deploy
from coeval_pipelines.local import stack as local
from coeval_pipelines.local.components import ENGINES
from coeval_pipelines.local.prepare import free_settings
from coeval_pipelines.streaming.broker import Broker, ensure_topics
from coeval_pipelines.streaming.jobs import FlinkCluster
from coeval_pipelines.streaming.names import changelog_topic
from coeval_pipelines.streaming.progress import Progress, await_caught_up
from tests.support.payments.produce import produce
from tests.support.payments.shape import Spec

WORKER_MEMORY = "4g"
"""Of the one worker: two million tiles and the identities of half a million events do not fit in the usual 2."""
STEADY_SHARE = 0.5
"""Rates are taken after this share of the work: before it, Java compiles."""
_DEADLINE_SECONDS = 600.0


@contextmanager
def bench_stack(**flink: object) -> Iterator[Settings]:
    """Broker, Redis and a Flink cluster on free ports, in a directory that is deleted in the end.

    `flink` are settings of Flink's.
    """
    with tempfile.TemporaryDirectory(prefix="coeval-bench-") as home:
        settings = free_settings(Path(home))
        chosen = {"worker_memory": WORKER_MEMORY} | flink
        settings = settings.model_copy(update={"flink": settings.flink.model_copy(update=chosen)})
        local.up(settings, ENGINES)
        try:
            yield settings
        finally:
            local.down(settings)


def preload(settings: Settings, manifest: Manifest, spec: Spec) -> float:
    """Create the topics of a manifest and fill them; returns the seconds that took."""
    ensure_topics(settings, manifest)
    start = time.perf_counter()
    produce(settings, manifest, spec)
    return time.perf_counter() - start


@dataclass
class Case:
    """One deployed stream: ours, from the topic to Redis. `stack` are the settings of whoever runs the engines."""

    stack: Settings
    settings: Settings
    manifest: Manifest
    control: ControlPlane
    writer: subprocess.Popen[bytes]
    jobs: dict[int, str] = field(default_factory=dict)

    def deploy(self, since: int) -> None:
        """Deploy every view; returns when every task of every job runs."""
        self.jobs = deploy(self.settings, self.manifest, self.control, since)
        for job in self.jobs.values():
            FlinkCluster.open(self.settings).await_healthy(job)

    def mark_ready(self) -> None:
        """Let readers believe what is there: nothing is loaded by batch here."""
        with closing(open_redis(self.settings)) as client:
            writer = OnlineWriter(client, self.manifest.tenant)
            for view in self.manifest.views.values():
                assert writer.mark_ready(view, writer.incarnation(view), "bench")

    def changelog_messages(self) -> int:
        """How many updates the changelogs of all views have taken."""
        partitions = {changelog_topic(self.manifest, view): view.partitions for view in self.manifest.views.values()}
        with Broker(self.settings.kafka) as broker:
            return sum(sum(ends.values()) for ends in broker.ends(partitions).values())

    def written_messages(self) -> int:
        """How many of these updates are in Redis."""
        with closing(open_redis(self.settings)) as client:
            writer = OnlineWriter(client, self.manifest.tenant)
            views = self.manifest.views.values()
            return sum(offset or 0 for view in views for offset in writer.offsets(view).values())

    def checkpoint_bytes(self) -> int:
        """The state in the newest checkpoint of all jobs."""
        cluster = FlinkCluster.open(self.settings)
        return sum(cluster.checkpointing(job).bytes for job in self.jobs.values())


@contextmanager
def deployed(stack: Settings, manifest: Manifest, since: int) -> Iterator[Case]:
    """A stream that runs, with a home and a writer of its own. In the end its jobs are cancelled and Redis is empty."""
    with case(stack, manifest) as found:
        found.deploy(since)
        yield found


@contextmanager
def case(stack: Settings, manifest: Manifest) -> Iterator[Case]:
    """A home, a control plane and a writer for a manifest; nothing is deployed yet."""
    home = Path(tempfile.mkdtemp(dir=stack.home, prefix=f"{manifest.tenant}-"))
    settings = stack.model_copy(update={"home": home})
    with ExitStack() as closer:
        control = closer.enter_context(closing(ControlPlane.open(settings)))
        log = closer.enter_context((home / "writer.log").open("ab"))
        command = [sys.executable, "-m", "coeval_pipelines.streaming.writer"]
        writer = subprocess.Popen(command, stderr=log, env=environment(settings))
        found = Case(stack, settings, manifest, control, writer)
        closer.callback(clear, settings)
        closer.callback(_stop, writer)
        closer.callback(_cancel, found)
        yield found


def _cancel(case: Case) -> None:
    for job in case.jobs.values():
        FlinkCluster.open(case.settings).cancel(job)


def _stop(writer: subprocess.Popen[bytes]) -> None:
    writer.terminate()
    try:
        writer.wait(20)
    except subprocess.TimeoutExpired:
        writer.kill()
        writer.wait()


def clear(settings: Settings) -> None:
    """Empty Redis."""
    with closing(open_redis(settings)) as client:
        client.flushall(asynchronous=True)


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast work went, in units a second. `steady` leaves out the first half; `seconds` is all of it."""

    steady: float
    seconds: float


def rate_of(samples: list[tuple[float, int]], total: int) -> Rate:
    """The rate from samples of (seconds, units done), rising; the last one has `total`."""
    end, done = next(item for item in samples if item[1] >= total)
    begin, before = next(item for item in samples if item[1] >= STEADY_SHARE * total)
    if done == before:
        # All became known at once: the first sample is the best there is.
        begin, before = samples[0]
    return Rate((done - before) / max(end - begin, 1e-9), end - samples[0][0])


def await_covered(case: Case) -> Rate:
    """Wait until all of the topics is certified online; how fast that went, in events a second.

    What is certified grows by whole checkpoints; what is written to Redis grows all the time, and in the end is all.
    """
    samples: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def note(_: Progress) -> None:
        samples.append((time.monotonic(), case.written_messages()))

    found = await_caught_up(case.settings, case.manifest, case.control, _DEADLINE_SECONDS, note)
    total = max(samples[-1][1], 1)
    rate = rate_of(samples, total)
    return Rate(rate.steady * found.covered / total, rate.seconds)


def await_committed(settings: Settings, group: str, topic: str) -> Rate:
    """Wait until a consumer group has committed all of a topic with checkpoints; how fast that went.

    The last checkpoint comes up to its interval after the last event: the rate is that between two before it.
    """
    samples: list[tuple[float, int]] = [(time.monotonic(), 0)]
    until = time.monotonic() + _DEADLINE_SECONDS
    with Broker(settings.kafka) as broker:
        total = sum(broker.ends({topic: settings.kafka.partitions})[topic].values())
        while samples[-1][1] < total:
            if time.monotonic() > until:
                raise EngineError(f"{group} has not read all of {topic} after {_DEADLINE_SECONDS:.0f} s.")
            time.sleep(0.3)
            done = sum(broker.committed(group, topic).values())
            if done > samples[-1][1]:
                samples.append((time.monotonic(), done))
    return Rate(between_commits(samples), samples[-1][0] - samples[0][0])


def between_commits(samples: list[tuple[float, int]]) -> float:
    """Units a second from samples of (seconds, units done), one per commit: of the second half, but the last commit."""
    late = [item for item in samples if item[1] >= STEADY_SHARE * samples[-1][1]]
    used = late[:-1] if len(late) > 2 else samples[-2:]
    return (used[-1][1] - used[0][1]) / max(used[-1][0] - used[0][0], 1e-9)


class Usage:
    """Processor time and memory of a stack's components, of more processes by name, and of the children of each.

    A context manager: what is measured is what happens within it. Memory is looked at every second.
    """

    def __init__(self, stack: Settings, **more: int) -> None:
        found = {item.name: item.process.pid for item in local.status(stack).components if item.process}
        self._processes = {name: psutil.Process(pid) for name, pid in (found | more).items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._peak: dict[str, int] = {}
        self._begin = (0.0, dict[str, float]())
        self._end = self._begin

    def __enter__(self) -> Usage:
        self._begin = self._cpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end = self._cpu()
        self._stop.set()
        self._thread.join()

    @property
    def cores(self) -> dict[str, float]:
        """By process, how many processors it kept busy in the mean."""
        seconds = self._end[0] - self._begin[0]
        return {name: round((used - self._begin[1][name]) / seconds, 2) for name, used in self._end[1].items()}

    @property
    def peak_mb(self) -> dict[str, int]:
        """By process, the greatest resident memory that was seen, in megabytes."""
        return {name: size >> 20 for name, size in self._peak.items()}

    def now_mb(self) -> dict[str, float]:
        """By process, its resident memory now, in megabytes; a process that is gone is left out."""
        return {name: round(sum(p.memory_info().rss for p in tree) / 2**20, 1) for name, tree in self._trees()}

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            for name, size in self.now_mb().items():
                self._peak[name] = max(self._peak.get(name, 0), int(size) << 20)

    def _cpu(self) -> tuple[float, dict[str, float]]:
        used = {name: sum(sum(p.cpu_times()[:2]) for p in tree) for name, tree in self._trees()}
        return time.monotonic(), used

    def _trees(self) -> Iterator[tuple[str, list[psutil.Process]]]:
        for name, process in self._processes.items():
            try:
                yield name, [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue


def redis_bytes(settings: Settings) -> tuple[int, int]:
    """The memory that Redis uses for its data, and how many keys it has."""
    with closing(open_redis(settings)) as client:
        memory: Any = client.info("memory")
        keys: Any = client.dbsize()
        return int(memory["used_memory_dataset"]), int(keys)


def since(spec: Spec) -> int:
    """From when on the stream owns the tiles of a spec's events, the late ones included."""
    return (spec.start - spec.max_lateness) // DAY * DAY - DAY


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def environment(settings: Settings) -> dict[str, str]:
    """What a child process of ours needs to see the same settings."""
    return {**os.environ, **settings.variables()}


def child(module: str, settings: Settings, argument: str, log: Path) -> str:
    """Run a module of ours in a process of its own; returns what it prints. Its standard error goes to the log."""
    command = [sys.executable, "-m", module, argument]
    with log.open("w") as sink:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=sink, text=True, check=False, env=environment(settings)
        )
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{log.read_text()[-3000:]}")
    return done.stdout
