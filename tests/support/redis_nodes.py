"""Redis servers of our own, each a child process: single ones, replicas, and the masters of a Cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from coeval.settings import RedisSettings, Settings
from coeval_pipelines.local.components import _redis_server
from coeval_pipelines.local.prepare import free_port
from tests.support.changelog import await_true

SLOTS = 16384


@dataclass
class Node:
    """A server that can be killed and started again, empty."""

    command: tuple[str, ...]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=subprocess.DEVNULL)
        await_true(self._answers)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def call(self, *arguments: object) -> Any:
        """Run one command on it."""
        with closing(redis.Redis.from_url(self.url, protocol=2)) as client:
            return client.execute_command(*arguments)

    def _answers(self) -> bool:
        try:
            return bool(self.call("PING"))
        except redis.ConnectionError:
            return False


@contextmanager
def nodes(directory: Path, count: int, *options: str) -> Iterator[list[Node]]:
    """Servers without persistence: one that is started again is empty."""
    found = []
    for number in range(count):
        home = directory / f"node{number}"
        home.mkdir()
        command = (str(_redis_server()), "--bind", "127.0.0.1", "--dir", str(home), "--save", "", *options)
        found.append(Node(command, _port()))
    try:
        for node in found:
            node.start()
        yield found
    finally:
        for node in found:
            if node.process:
                node.kill()


def _port() -> int:
    """A free port that leaves room for the Cluster's own, ten thousand above it."""
    while (port := free_port()) > 55_000:
        pass
    return port


def join(masters: Sequence[Node]) -> None:
    """Make one Cluster of servers that run with cluster-enabled: the slots in equal stretches."""
    for number, node in enumerate(masters):
        own_slots(node, number, len(masters))
        for other in masters:
            node.call("CLUSTER", "MEET", "127.0.0.1", other.port)
    # A state of ok is not enough: without full coverage, a server that knows only its own slots is content.
    for node in masters:
        await_true(lambda node=node: _whole(node.call("CLUSTER", "INFO")))  # type: ignore[misc]


def _whole(info: bytes) -> bool:
    return b"cluster_state:ok" in info and f"cluster_slots_assigned:{SLOTS}".encode() in info


def own_slots(node: Node, number: int, count: int) -> None:
    """Give a server its stretch of the slots."""
    node.call("CLUSTER", "ADDSLOTS", *range(number * SLOTS // count, (number + 1) * SLOTS // count))


def pointed_at(settings: Settings, node: Node, *, cluster: bool = False) -> Settings:
    """The settings with another online store."""
    return settings.model_copy(update={"redis": RedisSettings(url=node.url, cluster=cluster)})
