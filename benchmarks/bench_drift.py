"""What drift finds and what it cries wolf about: planted problems of several strengths, and clean days of purchases.

The purchases of the demo, as their log holds them: each day compared with the same weekday of the eight weeks before,
and with one table of the eight weeks before the first day. Clean days are the last thirty; problems are planted into
each of the last ten. Writes benchmarks/results/drift.json. QUICK=1 looks at fewer days.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.report import QUICK, Figures, aim, publish
from coeval.spec.time import DAY
from coeval_parity.drift.compare import compare
from coeval_parity.drift.features import encode
from coeval_parity.drift.result import FeatureDrift
from coeval_parity.drift.rules import Rules
from coeval_parity.drift.run import compare_rows, sides_of
from coeval_parity.drift.tables import Rows, Table, some_rows
from coeval_parity.drift.windows import Span, earlier_windows, members
from coeval_pipelines.demo import data
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

Change = Callable[[pa.Table, np.random.Generator], pa.Table]


@dataclass(frozen=True, slots=True)
class Problem:
    """A planted problem: the feature that it is in, its strength, and what it does to a day's rows."""

    name: str
    strength: str
    feature: str
    change: Change


@dataclass(frozen=True, slots=True)
class World:
    """Every purchase in the order of time, and its instants."""

    table: pa.Table
    instants: np.ndarray[Any, np.dtype[np.int64]]

    def rows(self, spans: list[Span]) -> Rows:
        """The rows of some spans that are looked at."""
        chosen = np.zeros(len(self.instants), dtype=bool)
        for start, end in spans:
            chosen[np.searchsorted(self.instants, start) : np.searchsorted(self.instants, end)] = True
        return some_rows(self.table.filter(pa.array(chosen)), "purchased_at")


def main() -> None:
    """Run the study."""
    world = _world()
    last = int(world.instants[-1]) // DAY * DAY
    before = ((last - number * DAY, last - (number - 1) * DAY) for number in itertools.count(1))
    # The shops are closed on the 25th of December.
    days = list(itertools.islice((day for day in before if world.rows([day]).of), CLEAN_DAYS))
    cases: list[Figures] = []
    for mode in (_weekly, _fixed):
        cases.append(_clean(world, mode, days))
        cases += [_planted(world, mode, days, problem) for problem in _problems()]
    cases.append(_small(world, days))
    publish("drift", cases, _aims(cases), rules=_rules())


def _world() -> World:
    # The anchor of no shift: weekdays stay what they were.
    retail = data.load_retail(data.Anchor(0, 2**62, 0))
    table = data.purchase_table(retail.purchases)
    # The purchases have no category of few values, so one is made of how many units a line has.
    size = pc.if_else(
        pc.greater(table["quantity"], 1), pc.if_else(pc.greater(table["quantity"], 5), "many", "few"), "one"
    )
    return World(table.append_column("size", size), retail.purchases["at"].to_numpy())


Baseline = tuple[Rows, np.ndarray[Any, np.dtype[np.int64]]]
Mode = Callable[[World, Span, list[Span]], Baseline]


def _weekly(world: World, day: Span, _: list[Span]) -> Baseline:
    """The same weekday of the weeks before."""
    earlier = earlier_windows(day, WEEKS)
    rows = world.rows(earlier)
    assert rows.instants is not None
    return rows, members(rows.instants, earlier)


def _fixed(world: World, day: Span, days: list[Span]) -> Baseline:
    """One table of eight weeks, as a training set is: older than every day that is looked at."""
    end = min(start for start, _ in days)
    span = (end - 7 * WEEKS * DAY, end)
    rows = world.rows([span])
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


def _small(world: World, days: list[Span]) -> Figures:
    """Windows of few rows drawn from clean days must not alarm either."""
    alarms, windows = 0, 0
    for number, day in enumerate(days[:PLANTED_DAYS]):
        rows, random = world.rows([day]), np.random.default_rng(number)
        for size in (60, 200, 600):
            chosen = np.sort(random.choice(rows.table.num_rows, min(size, rows.table.num_rows), replace=False))
            assert rows.instants is not None
            window = Rows(rows.table.take(pa.array(chosen)), rows.instants[chosen], len(chosen))
            alarms += any(item.drifted for item in _compared(world, _fixed(world, day, days), window))
            windows += 1
    return {"case": "small clean windows", "system": "fixed table", "windows": windows, "windows_with_an_alarm": alarms}


def _name(mode: Mode) -> str:
    return "weeks before" if mode is _weekly else "fixed table"


def _problems() -> Iterator[Problem]:
    for share in (0.02, 0.1, 0.3):
        yield Problem("nulls", f"{share:.0%} of rows", "amount", _nulls("amount", share))
    for share in (0.05, 0.2, 1.0):
        yield Problem("unit times 100", f"{share:.0%} of rows", "amount", _scaled("amount", 100, share))
    for factor in (1.1, 1.3, 2.0):
        yield Problem("unit", f"times {factor}", "amount", _scaled("amount", factor, 1.0))
    for share in (0.1, 0.5, 1.0):
        yield Problem("categories swapped", f"{share:.0%} of rows", "size", _swapped("size", share))
    for share in (0.1, 0.3, 1.0):
        yield Problem("frozen", f"{share:.0%} of rows", "amount", _frozen("amount", share))
    for deviations in (0.1, 0.25, 0.5, 1.0):
        yield Problem("shifted", f"by {deviations} deviations", "amount", _shifted("amount", deviations))
    for share in (0.2, 0.5, 1.0):
        yield Problem("store ids renumbered", f"{share:.0%} of rows", "store_id", _renumbered("store_id", share))


def _set(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _some(table: pa.Table, share: float, random: np.random.Generator) -> pa.Array:
    return pa.array(random.random(table.num_rows) < share)


def _nulls(name: str, share: float) -> Change:
    return lambda table, random: _set(
        table, name, pc.if_else(_some(table, share, random), pa.scalar(None, table[name].type), table[name])
    )


def _numbers(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(pa.float64())


def _scaled(name: str, factor: float, share: float) -> Change:
    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        numbers = _numbers(table, name)
        return _set(table, name, pc.if_else(_some(table, share, random), pc.multiply(numbers, factor), numbers))

    return change


def _shifted(name: str, deviations: float) -> Change:
    def change(table: pa.Table, _: np.random.Generator) -> pa.Table:
        numbers = _numbers(table, name)
        return _set(table, name, pc.add(numbers, deviations * pc.stddev(numbers).as_py()))

    return change


def _frozen(name: str, share: float) -> Change:
    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        return _set(table, name, pc.if_else(_some(table, share, random), table[name][0], table[name]))

    return change


def _swapped(name: str, share: float) -> Change:
    """The two most frequent values change places."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        one, other = "one", "few"
        swapped = pc.if_else(
            pc.equal(table[name], one), other, pc.if_else(pc.equal(table[name], other), one, table[name])
        )
        return _set(table, name, pc.if_else(_some(table, share, random), swapped, table[name]))

    return change


def _renumbered(name: str, share: float) -> Change:
    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        return _set(table, name, pc.if_else(_some(table, share, random), pc.add(table[name], 100_000), table[name]))

    return change


_STRONG = (
    "nulls, 10%", "nulls, 30%", "unit times 100", "unit, times 2.0", "categories swapped, 50%",
    "categories swapped, 100%", "frozen, 30%", "frozen, 100%", "shifted, by 0.5", "shifted, by 1.0",
    "store ids renumbered, 50%", "store ids renumbered, 100%",
)  # fmt: skip
"""Problems that anybody would want to hear of."""


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
    small = cases[-1]
    rate = small["windows_with_an_alarm"] / small["windows"]
    aims.append(aim("small clean windows with a false alarm, share", round(rate, 3), 0.02, at_least=False))
    return aims


def _rules() -> Figures:
    limits = {name: getattr(RULES.limits, name) for name in RULES.limits.__dataclass_fields__}
    return {"limits": limits, "alpha": RULES.alpha, "rhythm": RULES.rhythm, "weeks": WEEKS}


if __name__ == "__main__":
    main()
