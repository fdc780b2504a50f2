"""Online writers over real changelogs: they share partitions, and stores of every shape come to equal the reference."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from coeval.client import open_redis
from coeval.errors import StoreError
from coeval.online.keys import writers_key
from coeval.online.plan import ReadPlanner
from coeval.online.reader import OnlineReader
from coeval.online.result import Status
from coeval.online.writer import OnlineWriter
from coeval.reference.oracle import key_of
from coeval.settings import MetricsSettings, RedisSettings, Settings
from coeval.spec.keys import bucket_of, encode_key
from coeval.spec.model import ServiceView
from coeval.spec.time import DAY
from coeval.spec.types import micros
from coeval_pipelines.local.prepare import free_port
from tests.support.changelog import Changelogs, await_true, changelogs
from tests.support.redis_nodes import Node, join, nodes, pointed_at

START = micros(datetime(2026, 3, 20, tzinfo=UTC))
SPAN = 12 * DAY
_FAIR = ([3, 3, 6], [3, 4, 5], [4, 4, 4])
CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--cluster-require-full-coverage", "no")


@pytest.fixture
def own(broker: Settings, tmp_path: Path) -> Settings:
    """The broker's settings with a control plane of the test's own."""
    return broker.model_copy(update={"home": tmp_path})


def _writers(logs: Changelogs) -> int:
    with closing(open_redis(logs.settings)) as client:
        return int(client.zcard(writers_key(logs.manifest.tenant)))  # type: ignore[arg-type]


def test_three_writers_share_the_partitions_and_what_one_leaves_the_others_take_over(own: Settings) -> None:
    with changelogs(own, "shared", 31, 600, START, SPAN) as logs:
        killed, ended, left = (logs.start_writer() for _ in range(3))
        # Three views of four partitions; each view's go round, so that shares differ by one of each at most.
        await_true(lambda: sorted(_partitions(logs, writer) for writer in logs.writers) in _FAIR)
        logs.produce(0.4)
        killed.kill()
        logs.produce(0.5)
        await_true(lambda: _writers(logs) == 2)
        ended.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        assert ended.wait(10) == 0
        assert time.monotonic() - asked < 5
        assert _writers(logs) == 1
        logs.produce()
        logs.await_covered()
        logs.assert_equals_the_reference()
        assert left.poll() is None
        assert _partitions(logs, left) == 12


def _partitions(logs: Changelogs, writer: subprocess.Popen[bytes]) -> int:
    """How many partitions a writer reads now."""
    shares = [json.loads(line) for line in logs.log(writer).splitlines() if "reading changelogs" in line]
    return sum(map(len, shares[-1]["partitions"].values())) if shares else 0


def test_metrics_tell_lag_freshness_and_refusals(own: Settings) -> None:
    port = free_port()
    settings = own.model_copy(update={"metrics": MetricsSettings(writer_port=port)})
    with changelogs(settings, "metered", 32, 300, START, SPAN) as logs:
        logs.produce()
        logs.start_writer()
        logs.await_covered()

        def found() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
                lines = [line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[0] != "#"]
            totals: dict[str, float] = {}
            for name, value in lines:
                totals[name.partition("{")[0]] = totals.get(name.partition("{")[0], 0.0) + float(value)
            return totals

        await_true(lambda: found().get("coeval_writer_messages_total") == logs.total)
        await_true(lambda: found()["coeval_writer_lag_messages"] == 0)
        meters = found()
        assert meters["coeval_writer_updates_written_total"] > 0
        assert meters["coeval_writer_freshness_seconds_count"] > 0
        assert meters["coeval_writer_write_seconds_count"] > 0
        assert meters.get("coeval_writer_fenced_total", 0) == 0


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[list[Node]]:
    with nodes(tmp_path, 3, *CLUSTER) as found:
        join(found)
        yield found


def test_a_cluster_that_loses_a_master_doubts_its_buckets_alone_and_heals(own: Settings, masters: list[Node]) -> None:
    settings = pointed_at(own, masters[0], cluster=True)
    with changelogs(settings, "spread", 33, 600, START, SPAN) as logs:
        logs.start_writer()
        logs.produce()
        logs.await_covered()
        logs.assert_equals_the_reference()
        view = logs.manifest.views["card_spend"]
        with closing(open_redis(settings)) as client:
            writer = OnlineWriter(client, logs.manifest.tenant)
            lives = writer.incarnation(view)
            assert len({name.partition("-")[0] for name in lives.values()}) > 1
            lost = _lose(masters[2], len(masters) - 1)
            await_true(lambda: set(_unbelieved(logs, settings)) == {Status.UNAVAILABLE, Status.PRESENT})
            doubted = {bucket for bucket, name in lives.items() if name.startswith(lost)}
            assert doubted
            assert {bucket for bucket, note in writer.ready_notes(view).items() if note is None} == doubted
            assert _buckets_unavailable(logs, settings) == doubted
            assert not writer.mark_ready(view, lives, "too late")
            assert {bucket for bucket, note in writer.ready_notes(view).items() if note is None} == doubted
        logs.await_covered(settings)
        logs.assert_equals_the_reference(settings)


def _lose(node: Node, number: int) -> str:
    """Kill a master and start it again, empty; the name of the life that it lost. It keeps its place in the Cluster."""
    lost: str = node.call("INFO", "server")["run_id"]
    node.kill()
    node.start()
    await_true(lambda: b"cluster_state:ok" in node.call("CLUSTER", "INFO"))
    return lost


def _statuses(logs: Changelogs, settings: Settings) -> dict[int, Status]:
    """The status of a count, by bucket of its key."""
    view = logs.manifest.views["card_spend"]
    service = ServiceView(view.name, view.version, ("count_30d",))
    keys = sorted({key_of(view, event) for event in logs.events})
    with closing(open_redis(settings)) as client:
        entities = {"card_id": [key[0] for key in keys]}
        found = OnlineReader(client, lambda: logs.end).read(ReadPlanner(logs.manifest, [service]), entities)
    column = found.columns[view.name]["count_30d"]
    assert all(null for null, code in zip(column.null, column.status, strict=True) if code == Status.UNAVAILABLE)
    buckets = [bucket_of(encode_key(view.key, key), view.partitions) for key in keys]
    return dict(zip(buckets, map(Status, column.status.tolist()), strict=True))


def _unbelieved(logs: Changelogs, settings: Settings) -> list[Status]:
    return list(_statuses(logs, settings).values())


def _buckets_unavailable(logs: Changelogs, settings: Settings) -> set[int]:
    return {bucket for bucket, status in _statuses(logs, settings).items() if status == Status.UNAVAILABLE}


def test_a_promoted_replica_brings_its_offsets_and_what_it_lacks_is_read_again(own: Settings, tmp_path: Path) -> None:
    with nodes(tmp_path, 2) as (master, replica):
        replica.call("REPLICAOF", "127.0.0.1", master.port)
        before, after = pointed_at(own, master), pointed_at(own, replica)
        with changelogs(before, "replicated", 34, 600, START, SPAN) as logs:
            writer = logs.start_writer()
            logs.produce(0.4)
            logs.await_covered()
            await_true(lambda: logs.covered(after) == logs.total)
            # From here on the replica lacks what the master takes.
            _signal(replica, signal.SIGSTOP)
            logs.produce(0.5)
            logs.await_covered()
            master.kill()
            _signal(replica, signal.SIGCONT)
            replica.call("REPLICAOF", "NO", "ONE")
            writer.send_signal(signal.SIGTERM)
            assert writer.wait(10) == 0
            logs.produce()
            assert 0 < logs.covered(after) < logs.total
            logs.start_writer(after)
            logs.await_covered(after)
            logs.assert_equals_the_reference(after)


def _signal(node: Node, number: signal.Signals) -> None:
    assert node.process is not None
    node.process.send_signal(number)


def test_a_store_that_hangs_does_not_fill_the_writers_memory(own: Settings, tmp_path: Path) -> None:
    with nodes(tmp_path, 1) as (node,):
        settings = pointed_at(own, node)
        with changelogs(settings, "stalled", 35, 600, START, SPAN) as logs:
            writer = logs.start_writer()
            await_true(lambda: _writers(logs) == 1)
            process = psutil.Process(writer.pid)
            _signal(node, signal.SIGSTOP)
            quiet = process.memory_info().rss
            began = time.monotonic()
            logs.produce()
            await_true(lambda: time.monotonic() - began > 5)
            grown = process.memory_info().rss - quiet
            _signal(node, signal.SIGCONT)
            print(f"{logs.total} messages waited; {grown >> 20} MB more than before")
            assert grown < 100 << 20
            logs.await_covered()
            logs.assert_equals_the_reference()
            assert writer.poll() is None


def test_a_store_that_may_forget_is_refused(own: Settings, masters: list[Node]) -> None:
    masters[1].call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreError, match=rf"{masters[1].port} has maxmemory-policy allkeys-lru"):
        open_redis(pointed_at(own, masters[0], cluster=True))
    with pytest.raises(StoreError, match="does not answer"):
        open_redis(own.model_copy(update={"redis": RedisSettings(url=own.redis.url, cluster=True)}))
