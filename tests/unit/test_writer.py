"""Claims about the online writer's loop, over changelogs in memory and a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis
import structlog
from kafka import TopicPartition
from structlog.testing import capture_logs

from coeval.client import open_redis
from coeval.errors import StoreError
from coeval.online.keys import offset_key
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.keys import bucket_of
from coeval.spec.manifest import Manifest
from coeval.spec.model import WindowedView
from coeval.spec.time import HOUR, MINUTE
from coeval_pipelines.complaints import Complaints
from coeval_pipelines.control import Certificate, ControlPlane
from coeval_pipelines.control.coverage import CoverageBook
from coeval_pipelines.streaming.members import owners
from coeval_pipelines.streaming.meters import Meters
from coeval_pipelines.streaming.names import changelog_topic
from coeval_pipelines.streaming.sql import state_ttl
from coeval_pipelines.streaming.writing import Writer
from tests.support import catalog
from tests.support.changelog import await_true
from tests.support.loads import begin_load
from tests.support.memory_log import MemoryConsumer, MemoryLog, writing
from tests.support.redis_nodes import nodes, pointed_at

# Feast, where a test before has imported it, has metrics kept for several processes: no writer does so.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-process mode")
assert isinstance(catalog.PAIR, WindowedView)
VIEW = catalog.PAIR
NOW = 1_795_000_000_000_000
GOOD, OTHER_KIND, NO_NUMBER, NO_KIND = b"%d,5,1,10,20,1,7" % HOUR, b"17,5,1,10,20,1,7", b"%d,x" % HOUR, b"nonsense"


@dataclass(frozen=True)
class Rig:
    """A deployed manifest of one view, its changelog in memory, and a store that is empty."""

    settings: Settings
    control: ControlPlane
    manifest: Manifest
    log: MemoryLog
    meters: Meters

    @property
    def topic(self) -> str:
        return changelog_topic(self.manifest, VIEW)

    def keys(self, bucket: int) -> Iterator[bytes]:
        """Keys of a bucket."""
        return (key.encode() for key in (f"i{n}|sm" for n in range(10**6)) if bucket_of(key, VIEW.partitions) == bucket)

    def stored(self) -> dict[int, int | None]:
        """The offset of each bucket in the store."""
        with closing(open_redis(self.settings)) as client:
            return OnlineWriter(client, self.manifest.tenant).offsets(VIEW)


@pytest.fixture
def rig(tmp_path: Path, redis_server: Settings) -> Iterator[Rig]:
    settings = Settings(home=tmp_path, redis=redis_server.redis)
    manifest = replace(
        catalog.manifest(), tenant=f"t{time.time_ns()}", windowed_views=(VIEW,), row_views=(), services=()
    )
    with closing(ControlPlane.open(settings)) as control:
        control.save_manifest(manifest, 0)
        control.deploy(VIEW.name, VIEW.version, manifest.hash, 0, 0)
        topic = changelog_topic(manifest, VIEW)
        yield Rig(settings, control, manifest, MemoryLog({topic: VIEW.partitions}), Meters())


def _held(rig: Rig) -> float | None:
    return rig.meters.registry.get_sample_value(
        "coeval_writer_held_partitions", {"tenant": rig.manifest.tenant, "view": VIEW.name, "version": VIEW.version}
    )


@pytest.mark.parametrize("bad", [OTHER_KIND, NO_NUMBER, NO_KIND, b"\xff\xfe,", b'%d,5,1,10,20,1,7\n"' % HOUR])
def test_a_message_that_cannot_be_read_holds_its_partition_alone(rig: Rig, bad: bytes) -> None:
    for bucket in range(VIEW.partitions):
        key = next(rig.keys(bucket))
        for value in (GOOD, bad if bucket == 1 else GOOD, GOOD):
            rig.log.add(rig.topic, bucket, key, value)
    all_but_one = dict.fromkeys(range(VIEW.partitions), 3) | {1: 1}
    with capture_logs() as logs, writing(rig.settings, rig.control, rig.log, rig.meters):
        await_true(lambda: rig.stored() == all_but_one)
        await_true(lambda: _held(rig) == 1)
        (said,) = (entry for entry in logs if entry["log_level"] == "error")
        assert (said["topic"], said["partition"], said["offset"]) == (rig.topic, 1, 1)
        name = offset_key(rig.manifest.tenant, VIEW, 1)
        assert f"SET {name} 2 in Redis" in said["repair"]
        # The repair that it names, done: the partition goes on.
        with closing(open_redis(rig.settings)) as client:
            client.set(name, 2)
        await_true(lambda: rig.stored() == dict.fromkeys(range(VIEW.partitions), 3))
        await_true(lambda: _held(rig) == 0)


def _loaded(rig: Rig, cut: int) -> None:
    rig.control.finish_load(begin_load(rig.control, VIEW.name, VIEW.version, cut), 1, cut)


def _filled(rig: Rig) -> int:
    """An hour of messages of every partition, one a minute; when the first of them was written (microseconds UTC)."""
    for minute in range(60):
        for bucket in range(VIEW.partitions):
            rig.log.add(rig.topic, bucket, next(rig.keys(bucket)), GOOD, (NOW + minute * MINUTE) // 1000)
    return NOW


@pytest.mark.parametrize("minutes", [0, 1, 40, 60, 1000])
def test_an_empty_store_is_filled_from_where_the_last_batch_load_leaves_off(rig: Rig, minutes: int) -> None:
    _loaded(rig, _filled(rig) + minutes * MINUTE + state_ttl(catalog.PAYMENTS, (VIEW,)))
    read = max(0, 60 - minutes)
    with writing(rig.settings, rig.control, rig.log, rig.meters) as consumer, capture_logs() as logs:
        # Also where nothing is left to read: what the load holds counts as covered.
        await_true(lambda: set(rig.stored().values()) == {60})
        await_true(lambda: len(consumer.sought) == VIEW.partitions)
    assert {offset for _, offset in consumer.sought} == {60 - read}
    labels = {"tenant": rig.manifest.tenant, "view": VIEW.name, "version": VIEW.version}
    assert (rig.meters.registry.get_sample_value("coeval_writer_messages_total", labels) or 0) == 4 * read
    assert "the changelog was cut" not in [entry["event"] for entry in logs]


def test_an_empty_store_without_a_batch_load_is_filled_from_the_first_message_on(rig: Rig) -> None:
    _filled(rig)
    with writing(rig.settings, rig.control, rig.log, rig.meters) as consumer:
        await_true(lambda: set(rig.stored().values()) == {60})
        assert {offset for _, offset in consumer.sought} == {0}


@pytest.mark.parametrize(("loaded", "first", "warned"), [(False, 5, 1), (True, 5, 0), (True, 29, 0), (True, 30, 1)])
def test_a_changelog_that_begins_too_late_for_an_empty_store_is_told(
    rig: Rig, loaded: bool, first: int, warned: int
) -> None:
    cut = _filled(rig) + 30 * MINUTE + 1 + state_ttl(catalog.PAYMENTS, (VIEW,))
    if loaded:
        _loaded(rig, cut)
    rig.log.first[TopicPartition(rig.topic, 2)] = first
    with capture_logs() as logs, writing(rig.settings, rig.control, rig.log, rig.meters):
        await_true(lambda: set(rig.stored().values()) == {60})
    said = [entry for entry in logs if entry["event"] == "the changelog was cut"]
    assert [entry["partition"] for entry in said] == [2] * warned


def test_what_a_writer_keeps_when_another_joins_it_goes_on_reading(rig: Rig) -> None:
    _filled(rig)
    with writing(rig.settings, rig.control, rig.log, rig.meters, "one") as one:
        await_true(lambda: set(rig.stored().values()) == {60})
        one.sought.clear()
        with writing(rig.settings, rig.control, rig.log, Meters(), "other") as other:
            await_true(lambda: len(other.sought) == 2)
            await_true(lambda: len(one.assigned) == 2)
        # What the other one had comes back, and is all that is sought.
        await_true(lambda: len(one.sought) == 2)
        assert {at for at, _ in one.sought} == {at for at, _ in other.sought}
        _filled(rig)
        await_true(lambda: set(rig.stored().values()) == {120})


def test_a_wipe_under_way_is_filled_from_the_last_load_too(rig: Rig) -> None:
    with writing(rig.settings, rig.control, rig.log, rig.meters) as consumer:
        _loaded(rig, _filled(rig) + 40 * MINUTE + state_ttl(catalog.PAYMENTS, (VIEW,)))
        await_true(lambda: set(rig.stored().values()) == {60})
        consumer.sought.clear()
        with closing(open_redis(rig.settings)) as client:
            client.delete(*(offset_key(rig.manifest.tenant, VIEW, bucket) for bucket in range(VIEW.partitions)))
        await_true(lambda: set(rig.stored().values()) == {60})
        assert {offset for _, offset in consumer.sought} == {40}


@pytest.mark.parametrize("names", [("one",), ("one", "other")])
def test_a_store_that_went_back_is_noted_before_it_is_written_again(rig: Rig, names: tuple[str, ...]) -> None:
    _filled(rig)
    ends = {rig.topic: dict.fromkeys(range(VIEW.partitions), 60)}
    rig.control.record_certificate(Certificate(VIEW.source, 1, {0: 100}, ends, NOW))
    of = owners(rig.topic, VIEW.partitions, names)
    # Of two writers, the one that does not take note as a rule.
    lost = max(range(VIEW.partitions), key=lambda bucket: (of[bucket] != of[0], bucket))
    book = CoverageBook(rig.control)
    with ExitStack() as stack, closing(open_redis(rig.settings)) as client:
        for name in names:
            stack.enter_context(writing(rig.settings, rig.control, rig.log, Meters(), name))
        await_true(lambda: set(rig.stored().values()) == {60} and book.of(rig.topic)[-1:] != ())
        for end in range(61, 65):
            await_true(lambda: book.of(rig.topic)[-1].offsets == {0: 100})
            before = _falls(book, rig)
            client.delete(offset_key(rig.manifest.tenant, VIEW, lost))
            # It is fenced off by the next write, mostly before it looks again.
            rig.log.add(rig.topic, lost, next(rig.keys(lost)), GOOD)
            await_true(lambda end=end: rig.stored()[lost] == end)  # type: ignore[misc]
            assert _falls(book, rig) > before


def _falls(book: CoverageBook, rig: Rig) -> int:
    return sum(item.back for item in book.of(rig.topic))


def test_a_writer_that_finds_nothing_deployed_says_where_it_looked(rig: Rig) -> None:
    rig.control.retire(VIEW.name, VIEW.version)
    with capture_logs() as logs, writing(rig.settings, rig.control, rig.log, rig.meters):
        await_true(lambda: bool(logs))
        rig.control.deploy(VIEW.name, VIEW.version, rig.manifest.hash, 0, 0)
        await_true(lambda: "reading changelogs" in [entry["event"] for entry in logs])
    (said,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert (said["event"], said["control_plane"]) == ("nothing is deployed: waiting", rig.settings.control_url)


def test_a_second_outage_is_said_as_the_first_one_was() -> None:
    with capture_logs() as logs:
        complaints = Complaints(structlog.get_logger(), "waiting for a component")
        for _ in range(2):
            complaints.say(OSError("Redis does not answer."))
            complaints.say(OSError("Redis does not answer."))
            complaints.well()
            complaints.well()
    assert [entry["event"] for entry in logs] == ["waiting for a component", "goes on"] * 2


def test_a_writer_complains_of_every_outage_of_its_store(rig: Rig, tmp_path: Path) -> None:
    stop = threading.Event()
    with nodes(tmp_path, 1) as (node,), capture_logs() as logs:
        settings = pointed_at(rig.settings, node)

        def said(event: str) -> int:
            return sum(entry["event"] == event for entry in logs)

        complaints = Complaints(structlog.get_logger(), "away")

        def serve() -> None:
            while not stop.wait(0.05):
                try:
                    with closing(open_redis(settings)) as client:
                        consumer = MemoryConsumer(rig.log)
                        Writer("again", rig.control, client, consumer, rig.meters, complaints.well).run(stop)
                except (StoreError, redis.RedisError):
                    complaints.say(StoreError("Redis does not answer."))

        thread = threading.Thread(target=serve)
        thread.start()
        for outage in (1, 2):
            node.kill()
            await_true(lambda outage=outage: said("away") == outage)  # type: ignore[misc]
            node.start()
            await_true(lambda outage=outage: said("goes on") == outage)  # type: ignore[misc]
        stop.set()
        thread.join(10)
