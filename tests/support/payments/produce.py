"""Sends generated records to Kafka: as fast as it goes, or each when its own timestamp says. It knows Kafka, no engine.

Kafka's own client does the sending, in a process of its own: at 10,000 records a second kafka-python, whose checksums
are computed in Python, takes half of a core from what is to be measured.
"""

from __future__ import annotations

import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.kafka import client_options, java_properties
from coeval_pipelines.local.artefacts import ensure_jars, java
from tests.support.payments.catalog import SOURCES
from tests.support.payments.generator import generate
from tests.support.payments.shape import Batch, Spec

Progress = Callable[[int], None]
"""Told how many records have been handed over so far."""
Ends = dict[tuple[str, int], int]
"""By topic and partition, how many records of the stream are there already."""
_PORTION_SECONDS = 0.002
_BULK = {"linger.ms": "20", "batch.size": "262144", "buffer.memory": "67108864"}
_PACED = {"linger.ms": "2", "batch.size": "65536"}
_ALWAYS = {"acks": "all", "enable.idempotence": "true", "max.block.ms": "600000", "delivery.timeout.ms": "600000"}
_HEAD = struct.Struct(">BiqII")


class ProduceError(Exception):
    """Kafka did not take a record."""


class Sender:
    """A producer of a manifest's topics, which exist; ready once it is made. A context manager."""

    def __init__(self, settings: Settings, manifest: Manifest, paced: bool = False) -> None:
        known = {source.name: source.topic for source in manifest.event_sources}
        self._topics = [known.get(source.name, "") for source in SOURCES]
        self._paced = paced
        self._process = _start(settings)
        options = java_properties(settings.kafka) | _ALWAYS | (_PACED if paced else _BULK)
        _text(self._sink, "\n".join(f"{name}={value}" for name, value in options.items()))
        _text(self._sink, "\n".join(self._topics))
        self._sink.flush()
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise ProduceError("the sender did not start; it has said why")

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The process that sends, for whoever measures."""
        return self._process.pid

    def send(
        self,
        spec: Spec,
        there: Ends | None = None,
        progress: Progress = lambda _: None,
        stop: threading.Event | None = None,
    ) -> None:
        """Hand over the records of a spec, paced as the sender is; see `produce`."""
        left, handed = Counter(there), 0
        for batch in generate(spec):
            wanted = _wanted(batch, self._topics, left)
            for portion in _portions(batch, wanted) if self._paced else [wanted]:
                if stop is not None and stop.is_set():
                    return
                self._sink.write(_frames(batch, portion))
                self._sink.flush()
                handed += len(portion)
                progress(handed)

    def finish(self) -> int:
        """Wait until everything is delivered; returns how many records Kafka has taken.

        Raises:
            ProduceError: a record could not be delivered within ten minutes.
        """
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise ProduceError("Kafka did not take a record; the sender has said why")
        return int(output)

    @property
    def _sink(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin


def produce(
    settings: Settings,
    manifest: Manifest,
    spec: Spec,
    *,
    paced: bool = False,
    there: Ends | None = None,
    progress: Progress = lambda _: None,
    stop: threading.Event | None = None,
) -> int:
    """Send the records of a spec to the topics of a manifest, which exist; returns how many Kafka has taken.

    `paced` waits with each record until its own timestamp: with a spec that starts now, records come at its rate, are
    available when they are sent, and one that is sent late shows as old. `there` continues a stream: that many records
    of each partition are left out (see `ends`). What belongs to a source that the manifest does not have is left out.

    Raises:
        ProduceError: a record could not be delivered within ten minutes.
    """
    with Sender(settings, manifest, paced) as sender:
        sender.send(spec, there, progress, stop)
        return sender.finish()


def ends(settings: Settings, manifest: Manifest) -> Ends:
    """How many records the topics of a manifest hold, so that a stream can be continued."""
    from kafka import KafkaConsumer, TopicPartition

    with closing(KafkaConsumer(**client_options(settings.kafka))) as consumer:
        found = [
            TopicPartition(source.topic, partition)
            for source in manifest.event_sources
            for partition in consumer.partitions_for_topic(source.topic) or ()
        ]
        return {(item.topic, item.partition): end for item, end in consumer.end_offsets(found).items()}


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    classpath = ":".join(str(jar) for jar in ensure_jars(settings).kafka)
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    command = [java(), "-Xmx256m", quiet, "-cp", classpath, str(Path(__file__).with_name("Send.java"))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=None)


def _text(sink: IO[bytes], text: str) -> None:
    encoded = text.encode()
    sink.write(struct.pack(">I", len(encoded)) + encoded)


def _frames(batch: Batch, portion: Sequence[int]) -> bytes:
    sources, partitions, stamps = (
        column[portion].tolist() for column in (batch.source, batch.partition, batch.timestamp_ms)
    )
    parts: list[bytes] = []
    for index, source, partition, stamp in zip(portion, sources, partitions, stamps, strict=True):
        key, value = batch.key[index], batch.value[index]
        parts += (_HEAD.pack(source, partition, stamp, len(key), len(value)), key, value)
    return b"".join(parts)


def _wanted(batch: Batch, topics: list[str], left: Counter[tuple[str, int]]) -> list[int]:
    """The positions of the records to send; what is there already is counted off."""
    chosen: list[int] = np.flatnonzero(np.array([bool(topic) for topic in topics])[batch.source]).tolist()
    if not +left:
        return chosen
    missing = []
    for index in chosen:
        place = topics[batch.source[index]], int(batch.partition[index])
        if left[place] > 0:
            left[place] -= 1
        else:
            missing.append(index)
    return missing


def _portions(batch: Batch, wanted: list[int]) -> Iterator[list[int]]:
    """What is due by the clock, portion by portion."""
    due = batch.timestamp_ms[wanted]
    first = 0
    while first < len(wanted):
        now = time.time() * 1000
        last = int(np.searchsorted(due, now, side="right"))
        if last > first:
            yield wanted[first:last]
            first = last
        else:
            time.sleep(max(_PORTION_SECONDS, min(1.0, (due[first] - now) / 1000)))
