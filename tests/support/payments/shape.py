"""What payments to generate, and what comes out: values. Pure. Times are microseconds since the epoch, UTC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coeval.spec.time import DAY, SECOND

BLOCK = 10_000
"""Records drawn together. Part of what a seed means."""
HOT_CARD = 1_000_000
"""The card of the hot share; the others follow it, the more often used ones first."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Burst:
    """In every `period` seconds, `factor` times the mean rate for the first `length` seconds, the rest spread over."""

    period: float
    length: float
    factor: float


@dataclass(frozen=True, slots=True)
class Spec:
    """What to generate. Shares are of all records; what remains is good payments, on time.

    `start` is when the first record becomes available (microseconds UTC), `rate` how many follow a second in the mean.
    A `skew` of 0 draws cards evenly; with `hot_share` 0 and as many cards as events, keys are nearly unique.
    """

    seed: int
    events: int
    start: int
    rate: float = 1000.0
    partitions: int = 2
    cards: int = 10_000
    merchants: int = 1_000
    hot_share: float = 0.5
    """Records of one card."""
    skew: float = 0.8
    """The exponent of the Zipf law by which the other cards are used."""
    burst: Burst | None = None
    refund_share: float = 0.05
    score_share: float = 0.10
    late_share: float = 0.02
    """Records that come 10 minutes to `max_lateness` after they happened."""
    max_lateness: int = 3 * DAY
    ahead_share: float = 0.01
    """Records of producers whose clock is ahead, by less than sources allow (5 minutes)."""
    boundary_share: float = 0.02
    """Records that happened on an edge of tiles, or a microsecond off it."""
    duplicate_share: float = 0.01
    """Records that repeat an earlier one of their block, byte for byte."""
    elsewhere_share: float = 0.0
    """Of those, the ones that come through another partition, which is a producer's fault: a conflict."""
    malformed_share: float = 0.01
    jitter: int = 0
    """Milliseconds by which a record's timestamp may be off the order of its partition."""
    chargeback_share: float = 0.002
    """Payments that are charged back 2 to 60 days later."""


@dataclass(frozen=True, slots=True)
class Chargebacks:
    """Labels that come days after the payment, for training: 1 for fraud, 0 for a dispute that was withdrawn."""

    event_id: list[str]
    card_id: Ints
    charged_back_at: Ints
    label: Ints


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order in which they are produced, as columns. `first` is the number of the first one.

    `source` is an index into `catalog.SOURCES`. `kind` says what was done on purpose: a name in `faults.FAULTS`,
    "late", "ahead", "boundary", "duplicate", "elsewhere", or nothing.
    """

    first: int
    source: NDArray[np.int8]
    partition: NDArray[np.int32]
    timestamp_ms: Ints
    """The record's Kafka timestamp: when it becomes available."""
    key: list[bytes]
    value: list[bytes]
    kind: list[str]
    chargebacks: Chargebacks

    def __len__(self) -> int:
        return len(self.value)


def arrivals(spec: Spec, numbers: Ints) -> Ints:
    """When the records of these numbers become available."""
    seconds = numbers / spec.rate
    if spec.burst:
        period, length = spec.burst.period, spec.burst.length
        inside = min(1.0, spec.burst.factor * length / period)
        whole, part = np.divmod(seconds, period)
        part /= period
        early, rest = part / inside * length, (part - inside) / max(1.0 - inside, 1e-9) * (period - length) + length
        seconds = whole * period + np.where(part < inside, early, rest)
    passed: Ints = (seconds * SECOND).astype(np.int64)
    instants: Ints = spec.start + passed
    return instants
