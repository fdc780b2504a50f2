"""Draws one block of payments and writes it as JSON, with what was to be done to it. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.spec.time import DAY, MINUTE, SECOND
from tests.support.payments.faults import FAULTS
from tests.support.payments.shape import BLOCK, HOT_CARD, Batch, Chargebacks, Ints, Spec, arrivals

_NOTES = (
    "null",
    '""',
    '"plain"',
    '"a \\"quoted\\", note"',
    '"two\\nlines"',
    '"null"',
    '"\\\\N"',
    '"tab\\t|%"',
    '"ü😀"',
)
_COUNTRIES = ("US", "GB", "DE", "FR", "BR", "IN", "JP", "NG")
_CURRENCIES = ("USD", "GBP", "EUR", "EUR", "BRL", "INR", "JPY", "NGN")


def merchant_names(count: int) -> list[str]:
    """Names of merchants; some have what keys must escape."""
    odd = {5: "m|{}", 6: "m%{}", 7: "ümlaut {}", 8: "comma, {}"}
    return [odd.get(number % 97, "m{}").format(number) for number in range(count)]


def _ranks(rng: np.random.Generator, count: int, skew: float, size: int) -> Ints:
    """Ranks below `count` by a Zipf law, from its continuous inverse."""
    u = rng.random(size)
    if abs(skew - 1.0) < 1e-9:
        drawn = np.exp(u * np.log(count + 1.0))
    else:
        drawn = (((count + 1.0) ** (1.0 - skew) - 1.0) * u + 1.0) ** (1.0 / (1.0 - skew))
    ranks: Ints = np.clip(drawn.astype(np.int64) - 1, 0, count - 1)
    return ranks


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One block of draws before it becomes bytes. `kind` is an index into _KINDS; `cents` the amount of a payment."""

    number: Ints
    source: NDArray[np.int8]
    card: Ints
    arrival: Ints
    happened: Ints
    cents: Ints
    kind: NDArray[np.int8]


_PAYMENT, _REFUND, _SCORE = range(3)
_KINDS = ("", "late", "ahead", "boundary", "duplicate", "elsewhere", *FAULTS)
_LATE, _AHEAD, _BOUNDARY, _DUPLICATE, _ELSEWHERE = range(1, 6)


def draw_block(spec: Spec, block: int, merchants: list[str]) -> Batch:
    """The records of block number `block`; `merchants` are their names, the likeliest first."""
    rng = np.random.default_rng((spec.seed, block))
    drawn = _draw(spec, block, rng)
    stamp = drawn.arrival // 1000
    if spec.jitter:
        stamp = stamp + rng.integers(-spec.jitter, spec.jitter + 1, BLOCK)
    batch = Batch(
        first=block * BLOCK,
        source=drawn.source,
        partition=(drawn.card % spec.partitions).astype(np.int32),
        timestamp_ms=stamp,
        key=[b"%d" % card for card in drawn.card.tolist()],
        value=_documents(drawn, merchants, rng),
        kind=[_KINDS[index] for index in drawn.kind.tolist()],
        chargebacks=_chargebacks(spec, drawn, rng),
    )
    _spoil(batch, random.Random(spec.seed << 40 | block))
    _repeat(batch, drawn, spec.partitions, rng)
    return batch


def _draw(spec: Spec, block: int, rng: np.random.Generator) -> _Drawn:
    number = np.arange(block * BLOCK, (block + 1) * BLOCK, dtype=np.int64)
    card = HOT_CARD + np.where(rng.random(BLOCK) < spec.hot_share, 0, _ranks(rng, spec.cards, spec.skew, BLOCK))
    cents = np.clip(rng.lognormal(8.0, 1.2, BLOCK), 1, 1e9).astype(np.int64)
    source = _sources(spec, rng)
    paid = _last_payment(source)
    source = np.where((source == _REFUND) & (paid < 0), _PAYMENT, source)
    # A refund is of the payment before it: its card, and at most its amount.
    card = np.where(source == _REFUND, card[paid], card)
    cents = np.where(source == _REFUND, np.maximum(1, (cents[paid] * rng.random(BLOCK)).astype(np.int64)), cents)
    arrival, kind = arrivals(spec, number) // 1000 * 1000, _kinds(spec, rng)
    return _Drawn(number, source.astype(np.int8), card, arrival, _happened(spec, arrival, kind, rng), cents, kind)


def _sources(spec: Spec, rng: np.random.Generator) -> Ints:
    payments = 1.0 - spec.refund_share - spec.score_share
    return np.searchsorted([payments, payments + spec.refund_share], rng.random(BLOCK), side="right")


def _last_payment(source: NDArray[Any]) -> Ints:
    """The position of the last payment at or before each record; -1 where there is none."""
    return np.maximum.accumulate(np.where(source == _PAYMENT, np.arange(BLOCK), -1))


def _happened(spec: Spec, arrival: Ints, kind: NDArray[np.int8], rng: np.random.Generator) -> Ints:
    span = np.log(max(spec.max_lateness, 10 * MINUTE + 1) / (10 * MINUTE))
    late = (10 * MINUTE * np.exp(rng.random(BLOCK) * span)).astype(np.int64)
    happened = arrival - np.where(kind == _LATE, late, rng.integers(0, 2 * SECOND, BLOCK))
    # However the record's timestamp is jittered, it is within what sources allow.
    ahead = rng.integers(1, 5 * MINUTE - 1000 * spec.jitter, BLOCK)
    happened = np.where(kind == _AHEAD, arrival + ahead, happened)
    edge = happened // (5 * MINUTE) * (5 * MINUTE) + rng.integers(-1, 2, BLOCK)
    return np.where(kind == _BOUNDARY, edge, happened).astype(np.int64)


def _kinds(spec: Spec, rng: np.random.Generator) -> NDArray[np.int8]:
    """What is done to each record: one draw, cut by the shares."""
    elsewhere = spec.duplicate_share * spec.elsewhere_share
    shares = [spec.late_share, spec.ahead_share, spec.boundary_share, spec.duplicate_share - elsewhere, elsewhere]
    shares += [spec.malformed_share / len(FAULTS)] * len(FAULTS)
    return np.searchsorted(np.cumsum([1.0 - sum(shares), *shares[:-1]]), rng.random(BLOCK), side="right").astype(
        np.int8
    )


def _documents(drawn: _Drawn, merchants: list[str], rng: np.random.Generator) -> list[bytes]:
    times = np.datetime_as_string(drawn.happened.astype("datetime64[us]")).tolist()
    numbers, cards = drawn.number.tolist(), drawn.card.tolist()
    amounts = [f"{cents // 100}.{cents % 100:02}" for cents in drawn.cents.tolist()]
    for index in np.flatnonzero(rng.random(BLOCK) < 0.01).tolist():
        amounts[index] = "null"
    shops = _ranks(rng, len(merchants), 0.8, BLOCK).tolist()
    lands, items = rng.integers(0, len(_COUNTRIES), BLOCK).tolist(), rng.integers(0, 20, BLOCK).tolist()
    notes = rng.integers(0, len(_NOTES), BLOCK).tolist()
    scores = rng.random(BLOCK).tolist()
    paid = _last_payment(drawn.source).tolist()

    def payment(index: int) -> str:
        land = lands[index]
        return (
            f'{{"event_id":"pay_{numbers[index]:012}","occurred_at":"{times[index]}Z","card_id":{cards[index]},'
            f'"merchant_id":"{merchants[shops[index]]}","country":"{_COUNTRIES[land]}","amount":{amounts[index]},'
            f'"currency":"{_CURRENCIES[land]}","is_online":{"true" if items[index] & 1 else "false"},'
            f'"items":{items[index]},"note":{_NOTES[notes[index]]}}}'
        )

    def refund(index: int) -> str:
        # The number as text: both are one literal to every engine.
        amount = amounts[index] if amounts[index] == "null" else f'"{amounts[index]}"'
        return (
            f'{{"event_id":"ref_{numbers[index]:012}","occurred_at":"{times[index]}Z","card_id":"{cards[index]}",'
            f'"payment_id":"pay_{numbers[paid[index]]:012}","amount":{amount}}}'
        )

    def score(index: int) -> str:
        return (
            f'{{"event_id":"sco_{numbers[index]:012}","occurred_at":"{times[index]}Z","card_id":{cards[index]},'
            f'"score":{scores[index]!r},"model":"forest-{items[index] % 3}"}}'
        )

    make = (payment, refund, score)
    return [make[source](index).encode() for index, source in enumerate(drawn.source.tolist())]


def _spoil(batch: Batch, rng: random.Random) -> None:
    """Spoil the records whose kind is a fault."""
    for index, kind in enumerate(batch.kind):
        if kind in FAULTS:
            available = int(batch.timestamp_ms[index]) * 1000
            batch.value[index] = FAULTS[kind][1](batch.value[index], rng, available)


def _repeat(batch: Batch, drawn: _Drawn, partitions: int, rng: np.random.Generator) -> None:
    """Make each duplicate a copy of an earlier good record of the block; one that finds none stays what it was."""
    chosen = np.flatnonzero((drawn.kind == _DUPLICATE) | (drawn.kind == _ELSEWHERE))
    # Near ones are likelier: a producer repeats what it has just sent.
    distance = np.exp(rng.random(len(chosen)) * np.log(np.maximum(chosen, 1))).astype(np.int64)
    for index, original in zip(chosen.tolist(), (chosen - distance).tolist(), strict=True):
        if original < 0 or batch.kind[original] in _NOT_REPEATED:
            batch.kind[index] = ""
            continue
        away = batch.kind[index] == "elsewhere"
        batch.source[index] = batch.source[original]
        batch.partition[index] = (batch.partition[original] + away) % partitions
        batch.key[index], batch.value[index] = batch.key[original], batch.value[original]


_NOT_REPEATED = frozenset({"duplicate", "elsewhere", *FAULTS})


def _chargebacks(spec: Spec, drawn: _Drawn, rng: np.random.Generator) -> Chargebacks:
    """Large payments are charged back more often, and are fraud more often."""
    large = drawn.cents >= np.quantile(drawn.cents, 0.9)
    odds = spec.chargeback_share * np.where(large, 5.5, 0.5)
    eligible = (drawn.source == _PAYMENT) & (drawn.kind < _DUPLICATE)
    chosen = np.flatnonzero((rng.random(BLOCK) < odds) & eligible)
    after = rng.integers(2 * DAY, 60 * DAY, BLOCK)[chosen]
    fraud = (rng.random(BLOCK) < np.where(large, 0.9, 0.6))[chosen].astype(np.int64)
    ids = [f"pay_{number:012}" for number in drawn.number[chosen].tolist()]
    return Chargebacks(ids, drawn.card[chosen], drawn.happened[chosen] + after, fraud)
