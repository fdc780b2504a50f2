"""Sends generated records to Kafka: as fast as it goes, or each when its own timestamp says. It knows Kafka, no engine.

kafka-python spends most of its time on checksums in Python; over compressed bytes they cost a fifth.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from typing import Any

import numpy as np

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval_pipelines.kafka import client_options
from tests.support.payments.catalog import SOURCES
from tests.support.payments.generator import generate
from tests.support.payments.shape import Batch, Spec

Progress = Callable[[int], None]
"""Told how many records have been handed over so far."""
Ends = dict[tuple[str, int], int]
"""By topic and partition, how many records of the stream are there already."""
_PORTION_SECONDS = 0.005
_BULK = {"batch_size": 1 << 18, "linger_ms": 50, "compression_type": "gzip"}
_PACED = {"batch_size": 1 << 16, "linger_ms": 5, "compression_type": "gzip"}


def produce(
    settings: Settings,
    manifest: Manifest,
    spec: Spec,
    *,
    paced: bool = False,
    there: Ends | None = None,
    partitions: Collection[int] | None = None,
    progress: Progress = lambda _: None,
    stop: threading.Event | None = None,
) -> int:
    """Send the records of a spec to the topics of a manifest that exist; returns how many were sent.

    `paced` waits with each record until its own timestamp: with a spec that starts now, records come at its rate, are
    available when they are sent, and one that is sent late shows as old. `there` continues a stream: that many records
    of each partition are left out (see `ends`). With `partitions`, only those are sent. What belongs to a source that
    the manifest does not have is left out.

    Raises:
        kafka.errors.KafkaError: a record could not be delivered within two minutes.
    """
    from kafka import KafkaProducer

    known = {source.name: source.topic for source in manifest.event_sources}
    topics = [known.get(source.name, "") for source in SOURCES]
    options = client_options(settings.kafka) | (_PACED if paced else _BULK) | {"acks": "all"}
    sent, left, pending = 0, Counter(there), []
    with closing(KafkaProducer(**options)) as producer:
        for batch in generate(spec):
            wanted = _wanted(batch, topics, partitions, left)
            for portion in _portions(batch, wanted) if paced else [wanted]:
                if stop is not None and stop.is_set():
                    break
                pending += _send(producer, batch, topics, portion)
                sent += len(portion)
                progress(sent)
            pending = _undecided(pending)
        producer.flush()
        _undecided(pending)
    return sent


def produce_all(settings: Settings, manifest: Manifest, spec: Spec, processes: int = 2) -> int:
    """Send everything as fast as it goes from several processes, each with partitions of its own."""
    shares = [range(number, spec.partitions, processes) for number in range(processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return sum(
            pool.map(_produce_share, *zip(*((settings, manifest, spec, share) for share in shares), strict=True))
        )


def _produce_share(settings: Settings, manifest: Manifest, spec: Spec, partitions: range) -> int:
    return produce(settings, manifest, spec, partitions=partitions)


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


def _wanted(batch: Batch, topics: list[str], partitions: Collection[int] | None, left: Counter[Any]) -> list[int]:
    """The positions of the records to send; what is there already is counted off."""
    of_topic = np.array([bool(topic) for topic in topics])[batch.source]
    if partitions is not None:
        of_topic &= np.isin(batch.partition, list(partitions))
    chosen: list[int] = np.flatnonzero(of_topic).tolist()
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


def _send(producer: Any, batch: Batch, topics: list[str], portion: list[int]) -> list[Any]:
    sources, partitions, stamps = batch.source.tolist(), batch.partition.tolist(), batch.timestamp_ms.tolist()
    return [
        producer.send(
            topics[sources[index]],
            key=batch.key[index],
            value=batch.value[index],
            partition=partitions[index],
            timestamp_ms=stamps[index],
        )
        for index in portion
    ]


def _undecided(pending: list[Any]) -> list[Any]:
    """The deliveries that are still under way; one that failed raises."""
    for delivery in pending:
        if delivery.failed():
            raise delivery.exception
    return [delivery for delivery in pending if not delivery.succeeded()]
