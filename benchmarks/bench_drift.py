"""What drift finds and what it cries wolf about: planted problems of several strengths, and clean days of purchases.

The purchases of the demo, as their log holds them: each day compared with the same weekday of the eight weeks before,
and with one table of the eight weeks before the first day. Clean days are the last thirty; problems are planted into
each of the last ten, and into small windows of them. A slow drift grows from the first of the thirty to the last.
Writes benchmarks/results/drift.json. QUICK=1 looks at fewer days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.planted import Problem, World, frozen, nulls, purchases, renumbered, scaled, shifted, swapped
from benchmarks.report import QUICK, Figures, aim, publish
from coeval.spec.time import DAY
from coeval_parity.drift.compare import compare
from coeval_parity.drift.features import encode
from coeval_parity.drift.result import FeatureDrift
from coeval_parity.drift.rules import Rules
from coeval_parity.drift.run import compare_rows, sides_of
from coeval_parity.drift.tables import Rows, Table
from coeval_parity.drift.windows import Span, earlier_windows, members
from coeval_pipelines.offline.arrow_files import Files

CLEAN_DAYS = 6 if QUICK else 30
PLANTED_DAYS = 3 if QUICK else 10
WEEKS = 8
KEYS = frozenset({"household_id", "store_id"})
IDS = KEYS | {"basket_id", "product_id"}
FEATURES = (
    "household_id", "store_id", "basket_id", "product_id", "quantity", "amount", "retail_discount", "coupon_discount",
    "size",
)  # fmt: skip
RULES = Rules()
TABLE = Table("log:purchases", Files(None), "purchased_at", FEATURES, IDS, KEYS)
SMALL = (60, 200, 600)
SMALL_STEP, SMALL_PLANTED_DAYS = 2, 3
"""Small windows are drawn from every second clean day; problems are planted into those of three."""
RAMPS = (0.005, 0.01, 0.02, 0.05)
"""By how much of what they were amounts grow each day."""


def main() -> None:
    """Run the study."""
    world = purchases()
    days = world.last_days(CLEAN_DAYS)
    cases: list[Figures] = []
    for mode in (_weekly, _fixed):
        cases.append(_clean(world, mode, days))
        cases += [_planted(world, mode, days, problem) for problem in _problems()]
        cases.append(_small(world, mode, days[::SMALL_STEP]))
        cases += [_ramped(world, mode, days, rate) for rate in RAMPS]
    strong = [problem for problem in _problems() if _is_strong(problem)]
    cases += [_small_planted(world, _weekly, days, problem) for problem in strong]
    publish("drift", cases, _aims(cases), rules=_rules())


Baseline = tuple[Rows, np.ndarray[Any, np.dtype[np.int64]]]
Mode = Callable[[World, Span, list[Span]], Baseline]


@lru_cache(maxsize=64)
def _between(world: World, spans: tuple[Span, ...]) -> Rows:
    return world.rows(list(spans))


def _weekly(world: World, day: Span, _: list[Span]) -> Baseline:
    """The same weekday of the weeks before."""
    earlier = earlier_windows(day, WEEKS)
    rows = _between(world, tuple(earlier))
    assert rows.instants is not None
    return rows, members(rows.instants, earlier)


def _fixed(world: World, day: Span, days: list[Span]) -> Baseline:
    """One table of eight weeks, as a training set is: older than every day that is looked at."""
    end = min(start for start, _ in days)
    span = (end - 7 * WEEKS * DAY, end)
    rows = _between(world, (span,))
    assert rows.instants is not None
    # The days of the same weekday in the table say what is usual.
    earlier = [item for item in earlier_windows(day, 3 * WEEKS) if item[0] >= span[0] and item[1] <= span[1]]
    return rows, members(rows.instants, earlier)


def _compared(world: World, baseline: Baseline, window: Rows) -> list[FeatureDrift]:
    return compare_rows(TABLE, FEATURES, baseline[0], window, baseline[1], RULES)


def _one(problem: Problem, baseline: Baseline, window: Rows) -> FeatureDrift:
    """The feature of a problem alone, held to the same limits as among all others."""
    sides = sides_of(TABLE, baseline[0], window, baseline[1], RULES, len(FEATURES))
    columns = baseline[0].table[problem.feature], window.table[problem.feature]
    instants = baseline[0].instants, window.instants
    feature = encode(problem.feature, columns, instants, None, is_id=problem.feature in IDS)
    return compare(feature, sides, RULES)


def _clean(world: World, mode: Mode, days: list[Span]) -> Figures:
    alarms: list[str] = []
    alarmed = 0
    nearest = 0.0
    for day in days:
        found = _compared(world, mode(world, day, days), world.rows([day]))
        over = [item for item in found if item.drifted]
        alarmed += bool(over)
        alarms += [f"{item.feature}:{item.worst.name}" for item in over if item.worst]
        nearest = max([nearest, *(i.worst.value / i.worst.limit for i in found if i.worst and i.worst.limit)])
    return {
        "case": "clean days",
        "system": _name(mode),
        "days": len(days),
        "comparisons": len(days) * len(FEATURES),
        "days_with_an_alarm": alarmed,
        "false_alarms": len(alarms),
        "which": sorted(set(alarms)),
        "largest_share_of_a_limit": round(nearest, 3),
    }


def _planted(world: World, mode: Mode, days: list[Span], problem: Problem) -> Figures:
    found, by = 0, set[str]()
    for number, day in enumerate(days[:PLANTED_DAYS]):
        rows = world.rows([day])
        changed = Rows(problem.change(rows.table, np.random.default_rng(number)), rows.instants, rows.of)
        drift = _one(problem, mode(world, day, days), changed)
        found += drift.drifted
        by |= {item.name for item in drift.measures if item.over}
    return {
        "case": f"{problem.name}, {problem.strength}",
        "system": _name(mode),
        "days": len(days[:PLANTED_DAYS]),
        "found_days": found,
        "found_by": sorted(by),
    }


def _drawn(world: World, day: Span, size: int, seed: int) -> Rows:
    """So many rows of a day, chosen at random."""
    rows, random = world.rows([day]), np.random.default_rng(seed)
    assert rows.instants is not None
    chosen = np.sort(random.choice(rows.table.num_rows, min(size, rows.table.num_rows), replace=False))
    return Rows(rows.table.take(pa.array(chosen)), rows.instants[chosen], len(chosen))


def _small(world: World, mode: Mode, days: list[Span]) -> Figures:
    """Windows of few rows drawn from clean days must not alarm either."""
    alarms: list[str] = []
    alarmed = 0
    for number, day in enumerate(days):
        baseline = mode(world, day, days)
        for size in SMALL:
            over = [item for item in _compared(world, baseline, _drawn(world, day, size, number)) if item.drifted]
            alarmed += bool(over)
            alarms += [f"{item.feature}:{item.worst.name}" for item in over if item.worst]
    return {
        "case": "small clean windows",
        "system": _name(mode),
        "windows": len(days) * len(SMALL),
        "windows_with_an_alarm": alarmed,
        "which": sorted(set(alarms)),
    }


def _small_planted(world: World, mode: Mode, days: list[Span], problem: Problem) -> Figures:
    found = dict.fromkeys(SMALL, 0)
    for number, day in enumerate(days[:SMALL_PLANTED_DAYS]):
        baseline = mode(world, day, days)
        for size in SMALL:
            rows = _drawn(world, day, size, number)
            changed = problem.change(rows.table, np.random.default_rng(number))
            found[size] += _one(problem, baseline, Rows(changed, rows.instants, rows.of)).drifted
    return {
        "case": f"small windows: {problem.name}, {problem.strength}",
        "system": _name(mode),
        "days": len(days[:SMALL_PLANTED_DAYS]),
        "found_days_by_rows": {str(size): count for size, count in found.items()},
    }


def _ramped(world: World, mode: Mode, days: list[Span], rate: float) -> Figures:
    """Amounts that grow from the first day on, by the same step each day: from which day on it is found."""
    first = min(start for start, _ in days)
    grown = 1 + rate * np.maximum(0, (world.instants - first) // DAY + 1)
    table = world.table
    dearer = pc.multiply(table["amount"].cast(pa.float64()), pa.array(grown))
    ramped = World(table.set_column(table.column_names.index("amount"), "amount", dearer), world.instants)
    problem = Problem("grows", f"{rate:.2%} a day", "amount", lambda rows, _: rows)
    found = [
        number
        for number, day in enumerate(sorted(days), 1)
        if _one(problem, mode(ramped, day, days), ramped.rows([day])).drifted
    ]
    return {
        "case": f"grows slowly, {rate:.2%} a day",
        "system": _name(mode),
        "days": len(days),
        "found_days": len(found),
        "first_found_on_day": found[0] if found else None,
        "grown_by_then": round(rate * found[0], 3) if found else None,
    }


def _name(mode: Mode) -> str:
    return "weeks before" if mode is _weekly else "fixed table"


def _problems() -> Iterator[Problem]:
    for share in (0.02, 0.1, 0.3):
        yield Problem("nulls", f"{share:.0%} of rows", "amount", nulls("amount", share))
    for share in (0.05, 0.2, 1.0):
        yield Problem("unit times 100", f"{share:.0%} of rows", "amount", scaled("amount", 100, share))
    for factor in (1.1, 1.3, 2.0):
        yield Problem("unit", f"times {factor}", "amount", scaled("amount", factor, 1.0))
    for share in (0.1, 0.5, 1.0):
        yield Problem("categories swapped", f"{share:.0%} of rows", "size", swapped("size", share))
    for share in (0.1, 0.3, 1.0):
        yield Problem("frozen", f"{share:.0%} of rows", "amount", frozen("amount", share))
    for deviations in (0.1, 0.25, 0.5, 1.0):
        yield Problem("shifted", f"by {deviations} deviations", "amount", shifted("amount", deviations))
    for share in (0.2, 0.5, 1.0):
        yield Problem("store ids renumbered", f"{share:.0%} of rows", "store_id", renumbered("store_id", share))


_STRONG = (
    "nulls, 10%", "nulls, 30%", "unit times 100", "unit, times 2.0", "categories swapped, 50%",
    "categories swapped, 100%", "frozen, 30%", "frozen, 100%", "shifted, by 0.5", "shifted, by 1.0",
    "store ids renumbered, 50%", "store ids renumbered, 100%",
)  # fmt: skip
"""Problems that anybody would want to hear of."""


def _is_strong(problem: Problem) -> bool:
    return f"{problem.name}, {problem.strength}".startswith(_STRONG)


def _aims(cases: list[Figures]) -> list[Figures]:
    aims = []
    for system in ("weeks before", "fixed table"):
        mine = [case for case in cases if case["system"] == system]
        strong = [case for case in mine if case["case"].startswith(_STRONG)]
        share = sum(case["found_days"] for case in strong) / sum(case["days"] for case in strong)
        aims.append(aim(f"strong problems found, share of days, {system}", round(share, 3), 0.95, at_least=True))
        clean = next(case for case in mine if case["case"] == "clean days")
        rate = clean["days_with_an_alarm"] / clean["days"]
        aims.append(aim(f"clean days with a false alarm, share, {system}", round(rate, 3), 0.05, at_least=False))
        small = next(case for case in mine if case["case"] == "small clean windows")
        rate = small["windows_with_an_alarm"] / small["windows"]
        text = f"small clean windows with a false alarm, share, {system}"
        aims.append(aim(text, round(rate, 3), 0.02, at_least=False))
    slow = next(case for case in mine if case["case"] == "grows slowly, 2.00% a day")
    text = "days until a drift of 2% a day is found against a fixed table"
    aims.append(aim(text, slow["first_found_on_day"], 30, at_least=False))
    return aims


def _rules() -> Figures:
    limits = {name: getattr(RULES.limits, name) for name in RULES.limits.__dataclass_fields__}
    return {"limits": limits, "alpha": RULES.alpha, "rhythm": RULES.rhythm, "weeks": WEEKS}


if __name__ == "__main__":
    main()
