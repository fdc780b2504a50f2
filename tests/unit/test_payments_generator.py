"""The payments generator: the same bytes for a seed, the shares that were asked for, faults that are what they say."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from coeval.aggregations.tiles import tile_plan
from coeval.spec.manifest import Manifest
from coeval.spec.model import WindowedView
from coeval.spec.records import Event, Reason, Record, ingest, parse_record
from coeval.spec.time import DAY, MINUTE, SECOND
from tests.support.payments import catalog
from tests.support.payments.catalog import SOURCES, ViewSet
from tests.support.payments.faults import FAULTS
from tests.support.payments.generator import generate, records
from tests.support.payments.shape import BLOCK, HOT_CARD, Batch, Burst, Spec, arrivals

START = 1_767_225_600_000_000
SPEC = Spec(20260711, 2 * BLOCK + 5_000, START, partitions=3)
FOUL = replace(SPEC, malformed_share=0.3, duplicate_share=0.05, elsewhere_share=0.2, jitter=40)
DIGEST = "ac3be2ac9b4d8811cd5b14c95eff687376b14a73259e89d10416f9885fddfcdd"


def _digest(batches: Sequence[Batch]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        for column in (batch.source, batch.partition, batch.timestamp_ms):
            found.update(column.astype("<i8").tobytes())
        for key, value, kind in zip(batch.key, batch.value, batch.kind, strict=True):
            found.update(b"%b\0%b\0%b\n" % (key, value, kind.encode()))
        back = batch.chargebacks
        found.update(repr((back.event_id, back.card_id.tolist(), back.charged_back_at.tolist())).encode())
    return found.hexdigest()


@cache
def _parsed(spec: Spec) -> list[tuple[str, str, Event | Reason]]:
    """What was done to each record, its source, and what the contract makes of it."""
    found = []
    for batch in generate(spec):
        columns = zip(batch.kind, batch.source, batch.timestamp_ms, batch.value, strict=True)
        for offset, (kind, source, stamp, value) in enumerate(columns):
            record = Record(value, int(stamp) * 1000, 0, offset)
            found.append((kind, SOURCES[source].name, parse_record(SOURCES[source], record)))
    return found


def _share(spec: Spec, kind: str) -> float:
    return sum(found == kind for found, _, _ in _parsed(spec)) / spec.events


def test_a_seed_always_gives_the_same_bytes() -> None:
    assert _digest(list(generate(replace(FOUL, events=5_000)))) == DIGEST
    assert _digest(list(generate(replace(FOUL, events=5_000, seed=1)))) != DIGEST


def test_the_first_events_are_the_same_for_any_total() -> None:
    few, many = (b"".join(b"".join(batch.value) for batch in generate(replace(SPEC, events=n))) for n in (777, 15_000))
    assert many.startswith(few)


@pytest.mark.parametrize("first", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 4_999])
def test_a_stream_continues_where_it_is_told_to(first: int) -> None:
    whole = [value for batch in generate(SPEC) for value in batch.value]
    rest = list(generate(SPEC, first))
    assert [value for batch in rest for value in batch.value] == whole[first:]
    assert rest[0].first == first


def test_every_malformed_record_is_rejected_for_its_reason_and_no_other_is() -> None:
    for kind, source, outcome in _parsed(FOUL):
        wanted = FAULTS[kind][0] if kind in FAULTS else None
        assert (outcome if isinstance(outcome, Reason) else None) == wanted, (kind, source, outcome)


def test_every_fault_comes_in_every_source() -> None:
    found = {(kind, source) for kind, source, _ in _parsed(FOUL)}
    assert len(FAULTS) >= 12
    assert {(kind, item.name) for kind in FAULTS for item in SOURCES} <= found
    for kind in FAULTS:
        assert _share(FOUL, kind) == pytest.approx(FOUL.malformed_share / len(FAULTS), rel=0.2)


@pytest.mark.parametrize(("kind", "share"), [("late", 0.02), ("ahead", 0.01), ("boundary", 0.02), ("duplicate", 0.01)])
def test_shares_are_what_was_asked_for(kind: str, share: float) -> None:
    assert _share(SPEC, kind) == pytest.approx(share, rel=0.2)


def test_half_of_the_events_are_of_one_card_and_few_keys_are_nearly_unique() -> None:
    def cards(spec: Spec) -> Counter[object]:
        return Counter(event.values["card_id"] for _, _, event in _parsed(spec) if isinstance(event, Event))

    skewed = cards(SPEC)
    assert skewed[HOT_CARD] / skewed.total() == pytest.approx(0.5, abs=0.03)
    assert len(skewed) > 3_000
    even = cards(replace(SPEC, hot_share=0.0, skew=0.0, cards=1_000_000))
    assert len(even) / even.total() > 0.9


def test_lateness_and_skew_are_within_their_bounds() -> None:
    bounds = {
        "": (0, 2 * SECOND),
        "late": (10 * MINUTE, 3 * DAY),
        "ahead": (-5 * MINUTE, 0),
        "boundary": (-1, 6 * MINUTE),
    }
    for kind, source, event in _parsed(SPEC):
        if isinstance(event, Event) and kind in bounds:
            low, high = bounds[kind]
            assert low <= event.available_at - event.declared_ts <= high, (kind, source)


def test_timestamps_rise_per_partition_unless_they_jitter() -> None:
    assert all((np.diff(batch.timestamp_ms) >= 0).all() for batch in generate(SPEC))
    assert any((np.diff(batch.timestamp_ms) < 0).any() for batch in generate(FOUL))


def test_duplicates_are_found_and_those_in_another_partition_are_conflicts() -> None:
    found = {source.name: ingest(source, records(FOUL)[source.name]) for source in SOURCES}
    made = Counter(kind for kind, _, _ in _parsed(FOUL))
    copies, spoilt = made["duplicate"] + made["elsewhere"], sum(made[kind] for kind in FAULTS)
    assert sum(len(item.duplicates) for item in found.values()) == copies
    assert sum(item.conflicts for item in found.values()) == pytest.approx(made["elsewhere"], rel=0.1)
    assert sum(len(item.rejected) for item in found.values()) == spoilt
    assert sum(len(item.good) for item in found.values()) == FOUL.events - copies - spoilt


def test_a_burst_is_as_much_faster_as_it_says_and_the_mean_stays() -> None:
    spec = replace(SPEC, burst=Burst(period=60, length=5, factor=6))
    seconds = (arrivals(spec, np.arange(180_000)) - START) / SECOND
    counts, _ = np.histogram(seconds, bins=[0, 5, 60, 65, 120, 125, 180])
    assert (np.diff(seconds) >= 0).all()
    assert counts.tolist() == pytest.approx([30_000, 30_000] * 3, abs=2)


def test_chargebacks_come_days_later_and_are_of_good_payments() -> None:
    spec = replace(SPEC, chargeback_share=0.02)
    paid = {event.event_id: event for _, _, event in _parsed(spec) if isinstance(event, Event)}
    back = [batch.chargebacks for batch in generate(spec)]
    rows = [row for b in back for row in zip(b.event_id, b.card_id, b.charged_back_at, b.label, strict=True)]
    assert len(rows) == pytest.approx(0.02 * 0.85 * spec.events, rel=0.3)
    assert {int(label) for *_, label in rows} == {0, 1}
    for event_id, card, at, _ in rows:
        assert paid[event_id].values["card_id"] == card
        assert 2 * DAY <= at - paid[event_id].declared_ts <= 60 * DAY


@pytest.mark.parametrize("views", [1, 3, 10, "all", ("card_spend", "latest_score")])
def test_the_catalog_offers_one_three_ten_all_or_named_views(views: ViewSet) -> None:
    manifest = catalog.manifest(views, tenant="t", topic_prefix="x.", partitions=4)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert len(manifest.views) == (views if isinstance(views, int) else 7 if views == "all" else len(views))
    assert {source.topic for source in manifest.event_sources} <= {f"x.{source.name}" for source in SOURCES}
    hops = {
        item.hop
        for view in manifest.views.values()
        if isinstance(view, WindowedView)
        for item in tile_plan(view, manifest.event_source(view)).granularities
    }
    assert len(hops) == 3
