"""What became of the records that a run's job judged: counted in its checkpointed state, kept in a compacted topic.

The SQL that counts is pure; reading it back knows Kafka. A count belongs to a run, a log partition and an outcome; each
message holds the total so far. A run that starts from another run's state begins to count from zero, as it begins to
read where the other ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from coeval.settings import KafkaSettings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, View, WindowedView
from coeval_pipelines.control.model import Run
from coeval_pipelines.kafka import answering, client_options
from coeval_pipelines.streaming.literals import quote, table, view
from coeval_pipelines.streaming.names import accounting_topic

GOOD, DUPLICATE = "good", "duplicate"
"""Outcomes beside the reasons of a reject."""
_VALID = f"CASE WHEN is_first THEN '{GOOD}' ELSE '{DUPLICATE}' END"
_SEPARATOR = "|"
_RECORDS, _LATE = "records", "late:"
_TIMEOUT_MILLISECONDS = 10_000


@dataclass(frozen=True, slots=True)
class Accounting:
    """What a run made of the records that it has read; read = good + duplicates + rejected, exactly.

    `late` counts, by hop (microseconds), the good events that came after their tile of that granularity was final.
    """

    good: int = 0
    duplicates: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    late: Mapping[int, int] = field(default_factory=dict)

    @property
    def read(self) -> int:
        """How many records were judged."""
        return self.good + self.duplicates + sum(self.rejected.values())


def accounts(
    source: EventSource, views: Iterable[View], run: str, topic: str, kafka: Mapping[str, str]
) -> tuple[list[str], str]:
    """The statements that count every judged record once, and the insert that fills the topic."""
    hops = sorted({item.hop for view in views if isinstance(view, WindowedView) for item in view.aggregates})
    flags = [quote(f"{_LATE}{hop}") for hop in hops]
    late = [
        f"available_at >= {_tile_end(hop)} + {source.allowed_lateness} AS {flag}"
        for hop, flag in zip(hops, flags, strict=True)
    ]
    none = ["CAST(NULL AS BOOLEAN)" for _ in hops]
    outcomes = view(
        f"{source.name}@outcomes",
        f"SELECT {_account(run, _VALID)} AS account{_more(late)}\n"
        f"FROM {quote(source.name + '@valid')}\nUNION ALL\n"
        f"SELECT {_account(run, 'reason')}{_more(none)}\n"
        f"FROM {quote(source.name + '@judged')}\nWHERE reason IS NOT NULL",
    )
    counts = ["COUNT(*)", *(f"COUNT(*) FILTER (WHERE {flag})" for flag in flags)]
    insert = (
        f"INSERT INTO {quote(source.name + '@accounting')}\n"
        # These totals are of the whole run: they must outlive the state of its tiles.
        f"SELECT /*+ STATE_TTL('counted' = '0s') */ account, {', '.join(counts)}\n"
        f"FROM {quote(source.name + '@outcomes')} AS counted\nGROUP BY account"
    )
    return [outcomes, _sink(source, topic, flags, kafka)], insert


def _account(run: str, outcome: str) -> str:
    return f"CONCAT('{run}{_SEPARATOR}', CAST(log_partition AS STRING), '{_SEPARATOR}', {outcome})"


def _more(columns: Iterable[str]) -> str:
    return "".join(f",\n    {column}" for column in columns)


def _tile_end(hop: int) -> str:
    return f"event_ts - MOD(MOD(event_ts, {hop}) + {hop}, {hop}) + {hop}"


def _sink(source: EventSource, topic: str, flags: Iterable[str], kafka: Mapping[str, str]) -> str:
    columns = ["account STRING", f"{_RECORDS} BIGINT"]
    columns += [f"{flag} BIGINT" for flag in flags]
    columns.append("PRIMARY KEY (account) NOT ENFORCED")
    options = {
        "connector": "upsert-kafka",
        "topic": topic,
        **{f"properties.{name}": value for name, value in kafka.items()},
        "key.format": "raw",
        "value.format": "json",
        "value.fields-include": "EXCEPT_KEY",
        "sink.buffer-flush.max-rows": "10000",
        "sink.buffer-flush.interval": "1 s",
    }
    return table(f"{source.name}@accounting", columns, options)


def read_accounting(kafka: KafkaSettings, manifest: Manifest, run: Run) -> Accounting:
    """What a run has counted so far; nothing where it has counted nothing. It reads the topic from its beginning.

    Raises:
        BrokerError: the broker does not answer.
    """
    newest: dict[tuple[int, str], Mapping[str, int]] = {}
    for key, value in _messages(kafka, accounting_topic(manifest, run.source)):
        label, partition, outcome = key.decode().split(_SEPARATOR)
        if label == run.label:
            newest[int(partition), outcome] = json.loads(value) if value else {}
    return _summed(newest)


def _summed(newest: Mapping[tuple[int, str], Mapping[str, int]]) -> Accounting:
    outcomes: Counter[str] = Counter()
    late: Counter[int] = Counter()
    for (_, outcome), counts in newest.items():
        outcomes[outcome] += counts.get(_RECORDS, 0)
        if outcome == GOOD:
            late.update({int(name[len(_LATE) :]): n for name, n in counts.items() if name.startswith(_LATE)})
    good, duplicates = outcomes.pop(GOOD, 0), outcomes.pop(DUPLICATE, 0)
    return Accounting(good, duplicates, dict(outcomes), dict(late))


def _messages(kafka: KafkaSettings, topic: str) -> Iterable[tuple[bytes, bytes | None]]:
    from kafka import KafkaConsumer, TopicPartition
    from kafka.errors import KafkaTimeoutError

    found: list[tuple[bytes, bytes | None]] = []
    partition = TopicPartition(topic, 0)
    with answering(kafka), closing(KafkaConsumer(**client_options(kafka), enable_auto_commit=False)) as consumer:
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        consumer.seek_to_beginning(partition)
        while (position := consumer.position(partition)) < end:
            polled = consumer.poll(_TIMEOUT_MILLISECONDS)
            # What was compacted away is passed over without a message.
            if not polled and consumer.position(partition) == position:
                raise KafkaTimeoutError(f"{topic} gives nothing from {position} on, and ends at {end}")
            found += [(item.key, item.value) for batch in polled.values() for item in batch]
    return found
