"""The replay: the last weeks as JSON records in the order in which they became available, faults among them. Seeded.

The same anchor gives the same bytes in the same partitions, so a replay that was cut off goes on where the topic ends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from coeval.errors import BrokerError
from coeval.settings import Settings
from coeval.spec.keys import bucket_of
from coeval.spec.time import HOUR, MINUTE, SECOND
from coeval.spec.types import iso
from coeval_pipelines.demo.data import Anchor, Retail, cents
from coeval_pipelines.kafka import client_options, producer_options

SEED = 20171231
LATE_SHARE = 0.005
DUPLICATE_SHARE = 0.003
MALFORMED_SHARE = 0.002
AHEAD_SHARE = 0.002


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka record; `timestamp_ms` is when it became available."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


@dataclass(slots=True)
class Produced:
    """What a replay put on the topics, now and in earlier runs with the same anchor."""

    by_topic: Counter[str] = field(default_factory=Counter)
    sent_now: int = 0


def messages(retail: Retail, anchor: Anchor, partitions: int) -> list[Message]:
    """Every record of the replay, in the order of availability."""
    random = np.random.default_rng(SEED)
    found = [
        *_faulty("purchases", _purchase_documents(retail, anchor), anchor, partitions, random),
        *_faulty("coupon_redemptions", _redemption_documents(retail, anchor), anchor, partitions, random),
    ]
    return sorted(found, key=lambda message: message.timestamp_ms)


Document = tuple[int, int, dict[str, object]]
"""When it happened (microseconds), the household, and its JSON fields."""


def _purchase_documents(retail: Retail, anchor: Anchor) -> list[Document]:
    frame = retail.purchases[retail.purchases["at"] >= anchor.replay_from]
    prices = {name: cents(frame[name]).tolist() for name in ("sales_value", "retail_disc", "coupon_disc")}
    return [
        (
            row["at"],
            row["household_id"],
            {
                "event_id": row["event_id"],
                "purchased_at": iso(row["at"], seconds=True),
                "household_id": row["household_id"],
                "store_id": row["store_id"],
                "basket_id": row["basket_id"],
                "product_id": row["product_id"],
                "quantity": row["quantity"],
                "amount": price(prices["sales_value"][index]),
                "retail_discount": price(prices["retail_disc"][index]),
                "coupon_discount": price(prices["coupon_disc"][index]),
            },
        )
        for index, row in enumerate(frame.to_dict("records"))
    ]


def _redemption_documents(retail: Retail, anchor: Anchor) -> list[Document]:
    frame = retail.redemptions[retail.redemptions["at"] >= anchor.replay_from]
    return [
        (
            row["at"],
            row["household_id"],
            {
                "event_id": row["event_id"],
                "redeemed_at": iso(row["at"], seconds=True),
                "household_id": row["household_id"],
                "coupon_upc": str(row["coupon_upc"]),
                "campaign_id": row["campaign_id"],
            },
        )
        for row in frame.to_dict("records")
    ]


def price(value: int) -> str:
    """Cents as a decimal literal with two digits."""
    sign = "-" if value < 0 else ""
    return f"{sign}{abs(value) // 100}.{abs(value) % 100:02d}"


def _faulty(
    topic: str, documents: list[Document], anchor: Anchor, partitions: int, random: np.random.Generator
) -> Iterator[Message]:
    """Deliver the documents with delays, some late, some from a fast clock, some twice, and garbage between them."""
    count = len(documents)
    delay = (random.exponential(2.0, count) * SECOND).astype(np.int64)
    late = random.random(count) < LATE_SHARE
    delay[late] = random.integers(1 * HOUR, 48 * HOUR, int(late.sum()))
    ahead = random.random(count) < AHEAD_SHARE
    delay[ahead] = -random.integers(1 * SECOND, 2 * MINUTE, int(ahead.sum()))
    again = random.random(count) < DUPLICATE_SHARE
    garbage = random.random(count) < MALFORMED_SHARE
    for index, (at, household, document) in enumerate(documents):
        available = min(at + int(delay[index]), anchor.end)
        partition = bucket_of(str(household), partitions)
        value = json.dumps(document, separators=(",", ":")).encode()
        key = str(household).encode()
        yield Message(topic, partition, key, value, available // 1000)
        if again[index]:
            resent = min(available + int(random.integers(1, 600)) * SECOND, anchor.end)
            yield Message(topic, partition, key, value, resent // 1000)
        if garbage[index]:
            broken = _BREAKERS[int(random.integers(len(_BREAKERS)))](dict(document), available)
            yield Message(topic, partition, key, broken, available // 1000)


def _broken(change: Callable[[dict[str, object], int], None]) -> Callable[[dict[str, object], int], bytes]:
    def breaker(document: dict[str, object], available: int) -> bytes:
        document["event_id"] = f"broken-{document['event_id']}"
        change(document, available)
        return json.dumps(document).encode()

    return breaker


def _time_field(document: dict[str, object]) -> str:
    return "purchased_at" if "purchased_at" in document else "redeemed_at"


_BREAKERS: tuple[Callable[[dict[str, object], int], bytes], ...] = (
    lambda document, available: json.dumps(document).encode()[:-17],
    lambda document, available: b"\xff\xfe not json",
    _broken(lambda document, available: document.update(household_id=None)),
    _broken(lambda document, available: document.update(household_id="12.5")),
    _broken(lambda document, available: document.update({_time_field(document): "yesterday"})),
    _broken(
        lambda document, available: document.update({_time_field(document): iso(available + 2 * HOUR, seconds=True)})
    ),
    _broken(lambda document, available: document.update(campaign_id="seven", amount="12.345")),
)


def produce(settings: Settings, records: list[Message], on_progress: Callable[[int], None]) -> Produced:
    """Send what the topics do not hold yet. A partition's end offset tells how many of its records were sent before.

    Raises:
        BrokerError: the broker does not take a record.
    """
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.errors import KafkaError

    produced = Produced()
    parts = sorted({(record.topic, record.partition) for record in records})
    try:
        consumer = KafkaConsumer(**client_options(settings.kafka))
        ends = consumer.end_offsets([TopicPartition(*part) for part in parts])
        consumer.close()
        already = {part: ends[TopicPartition(*part)] for part in parts}
        producer = KafkaProducer(**producer_options(settings.kafka), linger_ms=20)
        seen: Counter[tuple[str, int]] = Counter()
        failures: list[Exception] = []
        for record in records:
            part = (record.topic, record.partition)
            produced.by_topic[record.topic] += 1
            seen[part] += 1
            if seen[part] > already[part]:
                producer.send(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    partition=record.partition,
                    timestamp_ms=record.timestamp_ms,
                ).add_errback(failures.append)
                produced.sent_now += 1
            on_progress(1)
        producer.flush()
        producer.close()
        if failures:
            raise failures[0]
    except KafkaError as error:
        raise BrokerError(
            f"The replay stopped: {error}.", "See coeval status; run make demo again: it goes on."
        ) from error
    return produced
