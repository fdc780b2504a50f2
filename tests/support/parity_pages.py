"""Parity results as a report shows them: one that passes, one that fails for several causes, and a big one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import micros
from coeval_parity.result import (
    Cause,
    EventLine,
    FeatureParity,
    Hour,
    Mismatch,
    ParityResult,
    Step,
    Suspect,
    Symptom,
    ViewParity,
)
from coeval_parity.trends import PastRun

AT = micros(datetime(2026, 11, 20, 3, 12, 41, tzinfo=UTC))
_LAST = AT - AT % HOUR
_FEATURES = {
    "count_1h": "count(*) over 1h by 5m",
    "sum_amount_1h": "sum(amount) over 1h by 5m",
    "sum_amount_7d": "sum(amount) over 7d by 1h",
    "max_amount_30d": "max(amount) over 30d by 1d",
}


def feature(
    view: str, name: str, causes: Mapping[Cause, Mapping[int, int]], hourly: int, count: int = 48, label: str = ""
) -> FeatureParity:
    """A feature of `hourly` values in each of the last `count` hours; causes by how many hours ago they were."""
    hours: list[Hour] = []
    for ago in range(count - 1, -1, -1):
        differing = {cause: when[ago] for cause, when in causes.items() if when.get(ago)}
        matched = hourly - sum(differing.values())
        hours.append(Hour(_LAST - ago * HOUR, hourly, matched, differing, earlier=ago == count - 1))
    total: Counter[Cause] = Counter()
    for hour in hours:
        total.update(hour.causes)
    matched = sum(hour.matched for hour in hours)
    wrong = sum(total.values())
    return FeatureParity(
        view=view,
        feature=name,
        label=label or _FEATURES.get(name, f"latest {name}"),
        compared=hourly * count,
        matched=matched,
        within_tolerance=0,
        causes=dict(total),
        symptoms={},
        null_online=wrong,
        null_offline=0,
        largest_difference=412.5 if wrong else 0.0,
        smape=0.0031 if wrong else 0.0,
        suspects={Suspect.LOST_UPDATE: total[Cause.UNEXPLAINED]} if total[Cause.UNEXPLAINED] else {},
        hours=tuple(hours),
    )


def view(name: str, features: tuple[FeatureParity, ...], keys: int, source: str = "payments") -> ViewParity:
    """A view that is ready, of a source with two partitions."""
    since, certified = AT - 3 * DAY, {0: 481_204, 1: 480_977}
    return ViewParity(name, "3f2a91bc", True, keys, keys, features, 0.01, 15 * MINUTE, since, since, certified, source)


def difference(
    of: str,
    name: str,
    cause: Cause,
    key: int,
    suspect: Suspect = Suspect.NONE,
    entity: Mapping[str, object] | None = None,
) -> Mismatch:
    """One value that lacks an event of an hour ago, both computations and the events behind it."""
    happened = AT - HOUR - 7 * MINUTE
    tile = "5m tile of 2026-11-20 02:05:00Z"
    owner = "nobody" if cause is Cause.STALE else "stream"
    note = "late" if cause is Cause.LATE else "lost" if cause is Cause.UNEXPLAINED else "not delivered"
    steps = (
        Step("5m tile of 2026-11-20 02:00:00Z", "stream", "2 events, sum 61.10", "2 events, sum 61.10", False),
        Step(tile, owner, "1 event, sum 12.00", "2 events, sum 424.50", True),
    )
    at = [happened - 4 * MINUTE, happened - 90 * SECOND, happened]
    events = tuple(
        EventLine(
            f"pay-{key}-{number}", ts, ts + 2 * SECOND, number % 2, 481_000 + number, tile[11:], Decimal("412.50"), ""
        )
        for number, ts in enumerate(at)
    )
    return Mismatch(
        view=of,
        feature=name,
        label=_FEATURES.get(name, f"latest {name}"),
        key=f"i{key}",
        entity=dict(entity or {"card_id": key}),  # type: ignore[arg-type]
        served=Decimal("73.10"),
        expected=Decimal("485.60"),
        cause=cause,
        symptom=Symptom.NONE,
        proof="Without the newest event of partition 0 the log gives exactly what is served; the store is certified to "
        "hold it.",
        since=happened,
        at=AT,
        steps=steps,
        events=(*events[:2], replace(events[2], note=note)),
        suspect=suspect,
    )


def passing() -> ParityResult:
    """Everything is equal but a few late values, within their bound."""
    late = {Cause.LATE: {3: 2, 4: 1, 20: 3}}
    spend = (feature("card_spend", "count_1h", late, 900), feature("card_spend", "sum_amount_1h", late, 900))
    limit = (feature("card_limit", "limit", {}, 400),)
    entries = tuple(difference("card_spend", name, Cause.LATE, 4711) for name in ("count_1h", "sum_amount_1h"))
    views = (view("card_spend", spend, 43_200), view("card_limit", limit, 19_200, "limits"))
    return ParityResult(AT, "9d41c07be2a8" * 5, views, entries, 10, 14.2, run=212)


def failing() -> ParityResult:
    """Updates lost on their way, tiles that nobody owns, another version; and what is benign beside them."""
    lost = {ago: 9 + 3 * (ago % 4) for ago in range(6)}
    late = {ago: 4 + ago % 5 for ago in range(0, 30, 2)}
    sums = {Cause.UNEXPLAINED: lost, Cause.LATE: late, Cause.IN_FLIGHT: {0: 31}}
    spend = (
        feature("card_spend", "count_1h", sums, 900),
        feature("card_spend", "sum_amount_1h", sums, 900),
        feature("card_spend", "sum_amount_7d", {Cause.LATE: late, Cause.STALE: {1: 14, 2: 22, 3: 8}}, 900),
        feature("card_spend", "max_amount_30d", {}, 900),
    )
    merchant = (feature("merchant_volume", "sum_amount_1h", {Cause.DEFINITION: {0: 5, 1: 3}}, 120),)
    limit = (feature("card_limit", "limit", {}, 400),)
    entries = [
        difference("card_spend", "count_1h", Cause.UNEXPLAINED, 4711, Suspect.LOST_UPDATE),
        difference("card_spend", "sum_amount_1h", Cause.UNEXPLAINED, 4711, Suspect.LOST_UPDATE),
        difference("card_spend", "sum_amount_1h", Cause.UNEXPLAINED, 82, Suspect.LOST_UPDATE),
        difference("card_spend", "sum_amount_7d", Cause.STALE, 903),
        difference("merchant_volume", "sum_amount_1h", Cause.DEFINITION, 17, entity={"merchant_id": "Café 'Nord' 17"}),
        difference("card_spend", "sum_amount_1h", Cause.LATE, 5150),
    ]
    views = (
        view("card_spend", spend, 43_200),
        view("merchant_volume", merchant, 5_760),
        view("card_limit", limit, 19_200, "limits"),
    )
    return ParityResult(AT, "9d41c07be2a8" * 5, views, tuple(entries), 512, 31.7, run=213)


def big(views: int = 12, features: int = 24) -> ParityResult:
    """Many views of many features, all 73 buckets of hours in gaps, long names, hundreds of keys, all causes."""
    draw = random.Random(7)
    made: list[ViewParity] = []
    entries: list[Mismatch] = []
    for number in range(views):
        name = f"customer_behaviour_over_many_channels_{number}"
        parts = []
        for index in range(features):
            causes = {cause: {draw.randrange(73): draw.randrange(1, 400)} for cause in Cause if draw.random() < 0.2}
            parts.append(feature(name, f"distinct_merchants_in_category_{index}_30d", causes, 500, 73))
        made.append(view(name, tuple(parts), 36_500))
        for key in range(20):
            cause = draw.choice(list(Cause))
            entity = {"customer_id": 10**12 + key, "channel": "a rather long channel name / with parts"}
            entries.append(difference(name, parts[key].feature, cause, key, entity=entity))
    return ParityResult(AT, "9d41c07be2a8" * 5, tuple(made), tuple(entries), 90_000, 611.0, run=213)


def history(result: ParityResult, count: int = 24) -> list[PastRun]:
    """The runs before a result, one an hour, and itself; the last five before it failed if it does."""
    found: list[PastRun] = []
    for ago in range(count - 1, 0, -1):
        causes = {Cause.LATE: 40 + 11 * (ago % 5), Cause.IN_FLIGHT: 9 * (ago % 3)}
        failed = not result.passed and ago < 5
        if failed:
            causes[Cause.UNEXPLAINED] = 150 - 30 * ago
        causes = {cause: number for cause, number in causes.items() if number}
        found.append(PastRun(result.run - ago, AT - ago * HOUR, not failed, result.compared, causes))
    return [*found, PastRun(result.run, AT, result.passed, result.compared, result.causes)]
