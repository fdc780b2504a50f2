"""A Kafka consumer over records in memory, for what the writer asks of one; real brokers are in tests/integration."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from kafka import TopicPartition
from kafka.structs import OffsetAndTimestamp

from coeval.client import open_redis
from coeval.settings import Settings
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.streaming.meters import Meters
from coeval_pipelines.streaming.writing import Writer


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a partition; `timestamp` in milliseconds UTC."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass
class MemoryLog:
    """Topics, by name and partition; `first` is where a partition begins that was cut."""

    partitions: Mapping[str, int]
    records: dict[TopicPartition, list[Record]] = field(default_factory=dict)
    first: dict[TopicPartition, int] = field(default_factory=dict)

    def add(self, topic: str, partition: int, key: bytes, value: bytes | None, timestamp: int = 0) -> None:
        """Append a record."""
        mine = self.records.setdefault(TopicPartition(topic, partition), [])
        mine.append(Record(partition, len(mine), timestamp, key, value))


class MemoryConsumer:
    """One consumer of such a log; it remembers where it was sought to."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self.sought: list[tuple[TopicPartition, int]] = []

    @property
    def assigned(self) -> set[TopicPartition]:
        return set(self._positions)

    def topics(self) -> set[str]:
        return set(self._log.partitions)

    def assign(self, wanted: Collection[TopicPartition]) -> None:
        self._positions = {at: self._positions.get(at, 0) for at in wanted}
        self._paused &= self._positions.keys()

    def seek(self, at: TopicPartition, offset: int) -> None:
        assert at in self._positions
        self.sought.append((at, offset))
        self._positions[at] = offset

    def pause(self, *wanted: TopicPartition) -> None:
        self._paused |= set(wanted)

    def resume(self, *wanted: TopicPartition) -> None:
        self._paused -= set(wanted)

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Record]]:
        found: dict[TopicPartition, list[Record]] = {}
        for at, position in self._positions.items():
            begin = max(position, self._log.first.get(at, 0))
            mine = self._log.records.get(at, [])[begin : begin + max_records]
            if mine and at not in self._paused:
                found[at] = mine
                self._positions[at] = mine[-1].offset + 1
        return found

    def beginning_offsets(self, wanted: Collection[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return {at: self._log.first.get(at, 0) for at in wanted}

    def end_offsets(self, wanted: Collection[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        return {at: len(self._log.records.get(at, [])) for at in wanted}

    def offsets_for_times(
        self, wanted: Mapping[TopicPartition, int], timeout_ms: int
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        return {at: self._since(at, instant) for at, instant in wanted.items()}

    def _since(self, at: TopicPartition, instant: int) -> OffsetAndTimestamp | None:
        mine = self._log.records.get(at, [])[self._log.first.get(at, 0) :]
        found = next((item for item in mine if item.timestamp >= instant), None)
        return None if found is None else OffsetAndTimestamp(found.offset, found.timestamp, None)


@contextmanager
def writing(
    settings: Settings, control: ControlPlane, log: MemoryLog, meters: Meters, name: str = "in-memory"
) -> Iterator[MemoryConsumer]:
    """A writer of such a log to a real Redis, in a thread, until the block ends."""
    stop, consumer = Event(), MemoryConsumer(log)
    with closing(open_redis(settings)) as client:
        thread = Thread(target=Writer(name, control, client, consumer, meters).run, args=[stop])
        thread.start()
        try:
            yield consumer
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()
