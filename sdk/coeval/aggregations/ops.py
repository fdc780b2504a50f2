"""The operations that partial states are made of, over one value, over arrays and in SQL, side by side. Pure.

Values are physical and never null: a tile keeps, beside any of them, how many values it saw, and where that is 0 the
stored number means nothing. An operation is a commutative monoid: `initial` is its identity, `merge` is associative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from coeval.aggregations.states import (
    Ints,
    Mask,
    Numbers,
    States,
    Storage,
    extreme_states,
    pick_states,
    sum_states,
)

Order: TypeAlias = tuple[int, int, int, int]
"""(event_ts, available_at, partition, offset): the total order of events."""

SPLIT = 10**18
"""Totals that 38 digits may not hold are kept as two: of the multiples of this, and of the rest."""


class OrderColumns(NamedTuple):
    """The SQL of the four parts of the total order, each a BIGINT or an INT."""

    event_ts: str
    available_at: str
    partition: str
    offset: str


@dataclass(frozen=True, slots=True)
class Additive:
    """A sum of what `lift` makes of each value; `lift_sql` is the same in SQL. Exact over integers.

    `lift` takes a number or an array of numbers; where it is one half of a `split` total, of Python integers.
    """

    name: str
    lift: Callable[[Any], Any]
    lift_sql: Callable[[str], str]
    split: bool = False

    @property
    def initial(self) -> int:
        """The state of nothing."""
        return 0

    def add(self, state: Any, value: Any, order: Order) -> Any:
        """The state with one more value."""
        return state + self.lift(value)

    def merge(self, left: Any, right: Any) -> Any:
        """The state of both."""
        return left + right

    def stored(self, state: Any) -> int | float:
        """The number that a slot holds."""
        return state  # type: ignore[no-any-return]

    def reduce(self, states: States, mask: Mask, tiles: Ints) -> Numbers:
        """Merge stored states along axis 1 where the mask holds."""
        return sum_states(states, mask)

    def sql(self, column: str, storage: Storage, order: OrderColumns) -> str:
        """The aggregate expression over a physical column, in Flink and Spark alike."""
        lifted = self.lift_sql(f"CAST({column} AS {storage.value})" if storage is Storage.WIDE else column)
        return f"COALESCE(CAST(SUM({lifted}) AS {storage.value}), CAST(0 AS {storage.value}))"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many values there are."""

    name: str = "count"

    @property
    def initial(self) -> int:
        """The state of nothing."""
        return 0

    def add(self, state: int, value: Any, order: Order) -> int:
        """The state with one more value."""
        return state + 1

    def merge(self, left: int, right: int) -> int:
        """The state of both."""
        return left + right

    def stored(self, state: int) -> int:
        """The number that a slot holds."""
        return state

    def reduce(self, states: States, mask: Mask, tiles: Ints) -> Numbers:
        """Merge stored states along axis 1 where the mask holds."""
        return sum_states(states, mask)

    def sql(self, column: str, storage: Storage, order: OrderColumns) -> str:
        """The aggregate expression over a physical column, in Flink and Spark alike."""
        return f"COUNT({column})"


@dataclass(frozen=True, slots=True)
class Extreme:
    """The greatest or the least value."""

    name: str
    greatest: bool

    @property
    def initial(self) -> None:
        """The state of nothing."""
        return

    def add(self, state: Any, value: Any, order: Order) -> Any:
        """The state with one more value."""
        return self.merge(state, value)

    def merge(self, left: Any, right: Any) -> Any:
        """The state of both."""
        if left is None or right is None:
            return left if right is None else right
        return max(left, right) if self.greatest else min(left, right)

    def stored(self, state: Any) -> int | float:
        """The number that a slot holds."""
        return 0 if state is None else state

    def reduce(self, states: States, mask: Mask, tiles: Ints) -> Numbers:
        """Merge stored states along axis 1 where the mask holds."""
        return extreme_states(states, mask, self.greatest)

    def sql(self, column: str, storage: Storage, order: OrderColumns) -> str:
        """The aggregate expression over a physical column, in Flink and Spark alike."""
        return f"COALESCE({'MAX' if self.greatest else 'MIN'}({column}), CAST(0 AS {storage.value}))"


@dataclass(frozen=True, slots=True)
class Picked:
    """The value of the last or the first event in the total order.

    The state carries the order; a stored one need not, because the tiles of a granularity are ordered themselves.
    """

    name: str
    latest: bool

    @property
    def initial(self) -> None:
        """The state of nothing."""
        return

    def add(self, state: Any, value: Any, order: Order) -> Any:
        """The state with one more value."""
        return self.merge(state, (order, value))

    def merge(self, left: Any, right: Any) -> Any:
        """The state of both."""
        if left is None or right is None:
            return left if right is None else right
        pick = max if self.latest else min
        return pick(left, right, key=lambda state: state[0])

    def stored(self, state: Any) -> int | float:
        """The number that a slot holds."""
        return 0 if state is None else state[1]

    def reduce(self, states: States, mask: Mask, tiles: Ints) -> Numbers:
        """Merge stored states along axis 1 where the mask holds."""
        return pick_states(states, mask, tiles, self.latest)

    def sql(self, column: str, storage: Storage, order: OrderColumns) -> str:
        """The aggregate expression over a physical column, in Flink and Spark alike.

        The greatest text of (order in fixed-width digits, value): neither engine has another arg-max that Flink can
        keep as a mergeable accumulator and both spell alike.
        """
        digits = [_digits(order.event_ts, _BIAS, 19), _digits(order.available_at, _BIAS, 19)]
        digits += [_digits(order.partition, 1, 10), _digits(order.offset, 0, 19)]
        text = f"CASE WHEN {column} IS NOT NULL THEN CONCAT({', '.join(digits)}, CAST({column} AS STRING)) END"
        picked = f"{'MAX' if self.latest else 'MIN'}({text})"
        return f"COALESCE(CAST(SUBSTRING({picked}, {_DIGITS + 1}) AS {storage.value}), CAST(0 AS {storage.value}))"


Op: TypeAlias = Additive | Counted | Extreme | Picked

_BIAS = 10**18
"""Makes every instant from year 1 to 9999 positive, with at most 19 digits."""
_DIGITS = 19 + 19 + 10 + 19


def _digits(column: str, bias: int, width: int) -> str:
    return f"LPAD(CAST(CAST({column} AS BIGINT) + {bias} AS STRING), {width}, '0')"


def high_part(value: Any) -> Any:
    """The multiples of `SPLIT` in a number or an array of Python integers, towards zero."""
    return _sign(value) * (abs(value) // SPLIT)


def low_part(value: Any) -> Any:
    """What `high_part` leaves, with the sign of the value."""
    return _sign(value) * (abs(value) % SPLIT)


def _sign(value: Any) -> Any:
    return (value > 0) * 2 - 1


def low_sql(column: str) -> str:
    """`low_part` of a DECIMAL(38, 0)."""
    return f"MOD({column}, CAST({SPLIT} AS DECIMAL(19, 0)))"


def high_sql(column: str) -> str:
    """`high_part` of a DECIMAL(38, 0)."""
    return f"CAST(({column} - {low_sql(column)}) / CAST({SPLIT} AS DECIMAL(19, 0)) AS DECIMAL(38, 0))"
