"""Real purchases, day by day, and problems that are planted into them; for the benchmarks of drift and quality."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coeval.spec.time import DAY
from coeval_parity.drift.tables import Rows, some_rows
from coeval_parity.drift.windows import Span
from coeval_pipelines.demo import data

Change = Callable[[pa.Table, np.random.Generator], pa.Table]


@dataclass(frozen=True, slots=True)
class Problem:
    """A planted problem: the feature that it is in, its strength, and what it does to a day's rows."""

    name: str
    strength: str
    feature: str
    change: Change


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Every purchase in the order of time, and its instants."""

    table: pa.Table
    instants: np.ndarray[Any, np.dtype[np.int64]]

    def all_rows(self, spans: list[Span]) -> pa.Table:
        """Every row of some spans."""
        chosen = np.zeros(len(self.instants), dtype=bool)
        for start, end in spans:
            chosen[np.searchsorted(self.instants, start) : np.searchsorted(self.instants, end)] = True
        return self.table.filter(pa.array(chosen))

    def rows(self, spans: list[Span]) -> Rows:
        """The rows of some spans that drift looks at."""
        return some_rows(self.all_rows(spans), "purchased_at")

    def last_days(self, count: int) -> list[Span]:
        """The last whole days on which the shops were open, the newest first."""
        last = int(self.instants[-1]) // DAY * DAY
        before = ((last - number * DAY, last - (number - 1) * DAY) for number in itertools.count(1))
        # The shops are closed on the 25th of December.
        return list(itertools.islice((day for day in before if len(self.all_rows([day]))), count))


def purchases() -> World:
    """The purchases of the demo on the days on which they were made."""
    # The anchor of no shift: weekdays stay what they were.
    retail = data.load_retail(data.Anchor(0, 2**62, 0))
    table = data.purchase_table(retail.purchases)
    # The purchases have no category of few values, so one is made of how many units a line has.
    size = pc.if_else(
        pc.greater(table["quantity"], 1), pc.if_else(pc.greater(table["quantity"], 5), "many", "few"), "one"
    )
    return World(table.append_column("size", size), retail.purchases["at"].to_numpy())


def _set(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _some(table: pa.Table, share: float, random: np.random.Generator) -> pa.Array:
    return pa.array(random.random(table.num_rows) < share)


def nulls(name: str, share: float) -> Change:
    """This share of a column's values is gone."""
    return lambda table, random: _set(
        table, name, pc.if_else(_some(table, share, random), pa.scalar(None, table[name].type), table[name])
    )


def _numbers(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(pa.float64())


def scaled(name: str, factor: float, share: float) -> Change:
    """This share of a column's values is multiplied."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        numbers = _numbers(table, name)
        return _set(table, name, pc.if_else(_some(table, share, random), pc.multiply(numbers, factor), numbers))

    return change


def shifted(name: str, deviations: float) -> Change:
    """All values move by so many standard deviations."""

    def change(table: pa.Table, _: np.random.Generator) -> pa.Table:
        numbers = _numbers(table, name)
        return _set(table, name, pc.add(numbers, deviations * pc.stddev(numbers).as_py()))

    return change


def frozen(name: str, share: float) -> Change:
    """This share of the rows has the first row's value."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        return _set(table, name, pc.if_else(_some(table, share, random), table[name][0], table[name]))

    return change


def swapped(name: str, share: float) -> Change:
    """The two most frequent values change places."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        one, other = "one", "few"
        turned = pc.if_else(
            pc.equal(table[name], one), other, pc.if_else(pc.equal(table[name], other), one, table[name])
        )
        return _set(table, name, pc.if_else(_some(table, share, random), turned, table[name]))

    return change


def renumbered(name: str, share: float) -> Change:
    """This share of the ids is another's."""

    def change(table: pa.Table, random: np.random.Generator) -> pa.Table:
        return _set(table, name, pc.if_else(_some(table, share, random), pc.add(table[name], 100_000), table[name]))

    return change
