"""What rules of quality find, what drift finds of the same, and what rules cry wolf about on clean days of purchases.

A batch is a day of the demo's purchases, held to the rules that follow from its source and to the suite that `coeval
quality suggest` gives of the eight weeks before. Clean days are the last thirty; problems are planted into each of the
last five. Drift compares each such day with the same weekday of the eight weeks before. Writes
benchmarks/results/quality.json. QUICK=1 looks at fewer days.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.planted import Change, Problem, World, frozen, nulls, purchases, renumbered, scaled, swapped
from benchmarks.report import QUICK, Figures, aim, publish
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource, Field
from coeval.spec.time import DAY, HOUR, MINUTE, SECOND
from coeval.spec.types import INT64, STRING, TIMESTAMP, DataType
from coeval_parity.drift.rules import Rules
from coeval_parity.drift.run import compare_rows
from coeval_parity.drift.tables import Rows, Table
from coeval_parity.drift.windows import Span, earlier_windows, members
from coeval_parity.quality.expectations import Pages
from coeval_parity.quality.frames import to_pandas
from coeval_parity.quality.rules import AHEAD, POSITION, Rule, log_rules
from coeval_parity.quality.suggest import suggest
from coeval_pipelines.offline.arrow_files import Files

CLEAN_DAYS = 6 if QUICK else 30
PLANTED_DAYS = 2 if QUICK else 5
WEEKS = 8
MONEY = DataType.parse("decimal(9,2)")
KEYS = frozenset({"household_id", "store_id"})
FEATURES = ("household_id", "store_id", "quantity", "amount", "size")
SOURCE = EventSource(
    name="purchases",
    topic="purchases",
    fields=(
        Field("event_id", STRING, nullable=False),
        Field("purchased_at", TIMESTAMP, nullable=False),
        Field("household_id", INT64, nullable=False),
        Field("store_id", INT64, nullable=False),
        Field("basket_id", INT64),
        Field("product_id", INT64),
        Field("quantity", INT64),
        Field("amount", MONEY),
        Field("retail_discount", MONEY),
        Field("coupon_discount", MONEY),
        Field("size", STRING),
    ),
    event_id="event_id",
    event_ts="purchased_at",
    max_future_skew=5 * MINUTE,
)
TABLE = Table("log:purchases", Files(None), "purchased_at", FEATURES, KEYS, KEYS)
RULES = Rules()
_SUGGESTED = ("quantity", "amount", "retail_discount", "coupon_discount", "store_id", "size")


def main() -> None:
    """Run the study."""
    world = purchases()
    days = world.last_days(CLEAN_DAYS)
    end = min(start for start, _ in days)
    before = world.all_rows([(end - 7 * WEEKS * DAY, end)])
    manifest = Manifest("grocer", "grocer", (), (SOURCE,))
    rules = [*log_rules(manifest, SOURCE, 0, newest=False), *suggest(before, _SUGGESTED)]
    with tempfile.TemporaryDirectory(prefix="coeval-quality-") as home:
        pages = Pages(Path(home))
        clean = _clean(world, pages, rules, days)
        planted = [_planted(world, pages, rules, days[:PLANTED_DAYS], problem) for problem in _problems()]
    publish("quality", [clean, *planted], _aims(clean, planted), rules=len(rules), weeks=WEEKS)


def _problems() -> Iterator[Problem]:
    yield Problem("nulls", "5 rows, required", "household_id", _few("household_id", lambda column: pa.scalar(None)))
    yield Problem("nulls", "10% of rows", "amount", nulls("amount", 0.1))
    yield Problem("unit times 100", "1% of rows", "amount", scaled("amount", 100, 0.01))
    yield Problem("unit times 100", "100% of rows", "amount", scaled("amount", 100, 1.0))
    yield Problem("unit divided by 100", "100% of rows", "amount", scaled("amount", 0.01, 1.0))
    yield Problem(
        "out of range", "5 rows below 0", "amount", _few("amount", lambda column: pa.scalar(Decimal("-1.00")))
    )
    yield Problem("categories swapped", "100% of rows", "size", swapped("size", 1.0))
    yield Problem("category renamed", "5 rows", "size", _few("size", lambda column: pa.scalar("ONE")))
    yield Problem("frozen", "100% of rows", "amount", frozen("amount", 1.0))
    yield Problem("store ids renumbered", "20% of rows", "store_id", renumbered("store_id", 0.2))
    yield Problem("duplicates", "5 rows", "event_id", _duplicated)
    yield Problem("clock ahead", "5 rows by an hour", AHEAD, _few(AHEAD, lambda column: pc.add(column, HOUR)))


def _few(name: str, change: Callable[[pa.ChunkedArray], pa.Scalar | pa.ChunkedArray]) -> Change:
    """Five rows of a column are changed."""

    def planted(table: pa.Table, random: np.random.Generator) -> pa.Table:
        chosen = np.isin(np.arange(table.num_rows), random.choice(table.num_rows, 5, replace=False))
        column = table[name]
        changed = change(column)
        changed = changed.cast(column.type)
        return table.set_column(table.column_names.index(name), name, pc.if_else(pa.array(chosen), changed, column))

    return planted


def _duplicated(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """Five rows are there again, at other positions."""
    again = table.take(pa.array(random.choice(table.num_rows, 5, replace=False)))
    offsets = pa.array(np.arange(5) + table.num_rows)
    return pa.concat_tables([table, again.set_column(table.column_names.index("offset"), "offset", offsets)])


def _batch(rows: pa.Table) -> pa.Table:
    """A day's purchases as a batch of the log has them."""
    at = rows["purchased_at"].cast(pa.int64())
    whole = pa.array(np.arange(rows.num_rows))
    envelope = {
        "event_ts": at,
        "available_at": pc.add(at, SECOND),
        "declared_ts": at,
        "topic": pa.array(["purchases"] * rows.num_rows),
        "partition": pa.array(np.zeros(rows.num_rows, dtype=np.int32)),
        "offset": whole,
        AHEAD: pa.array(np.full(rows.num_rows, -SECOND)),
    }
    for name, column in envelope.items():
        rows = rows.append_column(name, column)
    return rows


def _failing(pages: Pages, rules: list[Rule], batch: pa.Table) -> tuple[list[str], set[int]]:
    """The rules that a batch breaks, and the offsets of the rows that break them."""
    checked, rows = pages.check("purchases", to_pandas(batch), "pandas", rules, POSITION)
    broken = [number for number, item in enumerate(checked) if item.breaks]
    named = {int(row[2]) for number in broken for row in rows.get(number, ())}
    return [f"{rules[number].type.removeprefix('expect_')} {rules[number].column}" for number in broken], named


def _clean(world: World, pages: Pages, rules: list[Rule], days: list[Span]) -> Figures:
    broken = [_failing(pages, rules, _batch(world.all_rows([day])))[0] for day in days]
    return {
        "case": "clean days",
        "system": "quality",
        "days": len(days),
        "days_with_an_alarm": sum(map(bool, broken)),
        "which": sorted({name for names in broken for name in names}),
    }


def _planted(world: World, pages: Pages, rules: list[Rule], days: list[Span], problem: Problem) -> Figures:
    by_rules, by_drift, which = 0, 0, set[str]()
    planted = named = wrongly = 0
    for number, day in enumerate(days):
        clean = _batch(world.all_rows([day]))
        changed = problem.change(clean, np.random.default_rng(number)).cast(clean.schema, safe=False)
        broken, rows = _failing(pages, rules, changed)
        wrong = _changed_rows(clean, changed, problem.feature)
        by_rules += bool(broken)
        which |= set(broken)
        planted, named, wrongly = planted + len(wrong), named + len(rows & wrong), wrongly + len(rows - wrong)
        by_drift += _drifts(world, day, changed)
    return {
        "case": f"{problem.name}, {problem.strength}",
        "system": "quality",
        "days": len(days),
        "found_days": by_rules,
        "found_by": sorted(which),
        "rows_planted": planted,
        "rows_named": named,
        "rows_named_wrongly": wrongly,
        "found_days_by_drift": by_drift,
    }


def _changed_rows(clean: pa.Table, changed: pa.Table, name: str) -> set[int]:
    """The offsets of rows that are not as they were, and of those that are there twice."""
    if changed.num_rows > clean.num_rows:
        ids = changed["event_id"].to_pylist()
        twice = set(ids[clean.num_rows :])
        return {offset for offset, item in enumerate(ids) if item in twice}
    before, after = clean[name].to_pylist(), changed[name].to_pylist()
    return {offset for offset, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]}


def _drifts(world: World, day: Span, batch: pa.Table) -> bool:
    earlier = earlier_windows(day, WEEKS)
    baseline = world.rows(earlier)
    assert baseline.instants is not None
    window = Rows(batch, batch["purchased_at"].cast(pa.int64()).to_numpy(), batch.num_rows)
    groups = members(baseline.instants, earlier)
    return any(item.drifted for item in compare_rows(TABLE, FEATURES, baseline, window, groups, RULES))


_FOR_RULES = ("nulls", "unit times 100", "out of range", "category renamed", "duplicates", "clock ahead")
"""Problems that single rows show; the others are only seen in a distribution."""


def _aims(clean: Figures, planted: list[Figures]) -> list[Figures]:
    mine = [case for case in planted if case["case"].startswith(_FOR_RULES)]
    days = sum(case["days"] for case in mine)
    either = sum(max(case["found_days"], case["found_days_by_drift"]) for case in planted)
    wrongly = sum(case["rows_named_wrongly"] for case in planted)
    share = sum(case["found_days"] for case in mine) / days
    both = either / sum(case["days"] for case in planted)
    return [
        aim("problems of single rows found by rules, share of days", round(share, 3), 1.0, at_least=True),
        aim("problems found by rules or drift, share of days", round(both, 3), 0.95, at_least=True),
        aim("rows named that nothing was planted into", wrongly, 0, at_least=False),
        aim("clean days with a false alarm", clean["days_with_an_alarm"], 1, at_least=False),
    ]


if __name__ == "__main__":
    main()
