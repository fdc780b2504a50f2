"""Groups of keys for the kernel: as many as the data asks for, a hot key's time in brackets of its own. It knows Spark.

A kernel call holds one group in memory, so a group must not grow with the data. Keys are counted in fine buckets;
neighbouring buckets share a group until it is full, and a bucket that is more than full by itself is cut by time. An
event goes to every bracket of time from which it can be seen, so no state is carried from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BUCKETS = 256
"""Fine buckets, by which keys are counted."""
ROWS = 1_000_000
"""Rows of events and spine that a group should hold; a kernel call takes about 200 bytes for each."""
_SMALL = 64 * 2**20
"""Bytes of events, as Spark estimates them, that are never worth counting."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """The group of each bucket, and the length of a bracket of time for those that are cut (microseconds)."""

    groups: tuple[int, ...]
    brackets: tuple[tuple[int, int], ...] = ()

    def group_sql(self, key: str) -> str:
        """The SQL of a key's group."""
        bucket = bucket_sql(key, len(self.groups))
        return f"ELEMENT_AT(ARRAY({', '.join(map(str, self.groups))}), CAST({bucket} AS INT) + 1)"

    def bracket_sql(self, group: str, instant: str) -> str:
        """The SQL of the bracket that an instant lies in, given the column of the group."""
        if not self.brackets:
            return "0L"
        cases = " ".join(f"WHEN {number} THEN {instant} DIV {length}L" for number, length in self.brackets)
        return f"CASE {group} {cases} ELSE 0L END"


def bucket_sql(key: str, buckets: int = BUCKETS) -> str:
    """The SQL of the fine bucket of a key's expression."""
    return f"PMOD(XXHASH64({key}), {buckets})"


def grouping(rows: Sequence[int], span: int, reach: int, least: int) -> Grouping:
    """Which buckets go together, given the rows in each, the spine's time span and how long an event is seen.

    At least `least` groups, so that every worker has some. A bracket is never shorter than an event is seen: each event
    then goes to two brackets at most.
    """
    full = max(min(ROWS, sum(rows) // least), 1)
    groups: list[int] = []
    brackets: list[tuple[int, int]] = []
    number, held = -1, 0
    for count in rows:
        if number < 0 or held + count > full:
            number, held = number + 1, 0
        held += count
        groups.append(number)
        pieces = min(-(-count // ROWS), max(span // reach, 1))
        if pieces > 1:
            brackets.append((number, span // pieces + 1))
            held = full
    return Grouping(tuple(groups), tuple(brackets))


def is_small(events: DataFrame) -> bool:
    """Whether Spark, from sizes of files, estimates so few events that one way to group them is as good as another."""
    plan = events._jdf.queryExecution().optimizedPlan()  # noqa: SLF001 - there is no public way to ask
    return int(str(plan.stats().sizeInBytes())) <= _SMALL


def count_buckets(frames: Sequence[DataFrame], key: str) -> list[int]:
    """The rows of several frames in each fine bucket of a key's expression."""
    buckets = [frame.selectExpr(f"{bucket_sql(key)} AS bucket") for frame in frames]
    rows = [0] * BUCKETS
    for bucket, count in reduce(lambda one, other: one.unionAll(other), buckets).groupBy("bucket").count().collect():
        rows[bucket] = count
    return rows
