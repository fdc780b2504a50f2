"""Parity results as a report shows them: one that passes, one that fails for several causes, and a big one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from coeval.spec.model import Tolerance
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import micros
from coeval_parity.describe import iso
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

_PROOFS = {
    Cause.UNEXPLAINED: "Leaving out one event that the store has to hold gives exactly what it does.",
    Cause.STALE: "Without what nobody delivered the log gives exactly what is served.",
    Cause.DEFINITION: "Version 77c1e0d4 of the view gives exactly what is served.",
    Cause.LATE: "Without the event that came late the log gives exactly what is served.",
}
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
        null_online=0,
        null_offline=0,
        largest_difference=0.0 if not wrong else 1.0 if name.startswith("count") else 412.5,
        smape=0.0031 if wrong else 0.0,
        suspects={Suspect.LOST_UPDATE: total[Cause.UNEXPLAINED]} if total[Cause.UNEXPLAINED] else {},
        hours=tuple(hours),
        budgets=(Tolerance("late", 0.01), Tolerance("in_flight", 0.01)),
    )


def view(name: str, features: tuple[FeatureParity, ...], keys: int, source: str = "payments") -> ViewParity:
    """A view that is ready, of a source with two partitions."""
    since, certified = AT - 3 * DAY, {0: 481_204, 1: 480_977}
    return ViewParity(name, "3f2a91bc", True, keys, keys, features, 15 * MINUTE, since, since, certified, source)


def difference(
    of: str,
    name: str,
    cause: Cause,
    key: int,
    suspect: Suspect = Suspect.NONE,
    entity: Mapping[str, object] | None = None,
) -> Mismatch:
    """One value that lacks the newest of three events, both computations and the events behind it."""
    amounts = (Decimal("61.10"), Decimal("12.00"), Decimal("412.50"))
    happened = [_LAST - 2 * MINUTE, _LAST + 61 * SECOND, _LAST + 141 * SECOND]
    is_count = name.startswith("count")
    parts = [("1 event", "1 event"), ("1 event", "2 events")]
    if not is_count:
        parts = [("1 event, sum 61.10",) * 2, ("1 event, sum 12.00", "2 events, sum 424.50")]
    owners = ("stream", "nobody" if cause is Cause.STALE else "stream")
    tiles = [f"5m tile of {iso(at - at % (5 * MINUTE))}" for at in (happened[0], happened[2])]
    steps = tuple(
        Step(tile, owner, *sides, differs=sides[0] != sides[1])
        for tile, owner, sides in zip(tiles, owners, parts, strict=True)
    )
    notes = {Cause.LATE: "late", Cause.STALE: "not delivered", Cause.IN_FLIGHT: "in flight"}
    events = tuple(
        EventLine(
            f"pay-{key}-{number}",
            at,
            at + 2 * SECOND,
            number % 2,
            481_000 + number,
            iso(at - at % (5 * MINUTE)),
            None if is_count else amount,
            notes.get(cause, "") if number == 2 else "",
        )
        for number, (at, amount) in enumerate(zip(happened, amounts, strict=True))
    )
    return Mismatch(
        view=of,
        feature=name,
        label=_FEATURES.get(name, f"latest {name}"),
        key=f"i{key}",
        entity=dict(entity or {"card_id": key}),  # type: ignore[arg-type]
        served=2 if is_count else sum(amounts[:2]),
        expected=3 if is_count else sum(amounts),
        cause=cause,
        symptom=Symptom.NONE,
        proof=_PROOFS.get(cause, "Nothing that is known accounts for it."),
        since=happened[2],
        at=AT,
        steps=steps,
        events=events,
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
        replace(
            difference("card_spend", "sum_amount_1h", Cause.UNEXPLAINED, 82, Suspect.LOST_UPDATE), since=AT - 5 * HOUR
        ),
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
    """Many views of many features, all hours that are kept, long names, hundreds of keys, every cause."""
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
            entries.append(difference(name, parts[key % features].feature, cause, key, entity=entity))
    return ParityResult(AT, "9d41c07be2a8" * 5, tuple(made), tuple(entries), 90_000, 611.0, run=213)


def history(result: ParityResult, count: int = 24) -> list[PastRun]:
    """What the runs before a result found of its views, one an hour, and itself; the last five failed if it does."""
    found: list[PastRun] = []
    for ago in range(count - 1, 0, -1):
        for number, item in enumerate(result.views[:3]):
            causes = {Cause.LATE: 40 + 11 * (ago % 5), Cause.IN_FLIGHT: 9 * (ago % 3)} if not number else {}
            failed = not result.passed and ago < 5 and number < 2
            if failed:
                causes[Cause.DEFINITION if number else Cause.UNEXPLAINED] = 9 - ago if number else 150 - 30 * ago
            causes = {cause: times for cause, times in causes.items() if times}
            at = AT - ago * HOUR
            found.append(PastRun(result.run - ago, at, not failed, item.compared, causes, item.view))
    now = [PastRun(result.run, AT, not item.breaches(), item.compared, item.causes, item.view) for item in result.views]
    return [*found, *now]
