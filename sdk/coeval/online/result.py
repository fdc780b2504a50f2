"""What a read gives back: columns, statuses, event times; and its conversions. It knows numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from coeval.spec.types import DataType, Kind, Logical, to_logical

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class Status(IntEnum):
    """The status of a served value; under each but UNAVAILABLE the value equals what the offline rule gives."""

    PRESENT = 0
    NULL = 1
    """The event's own null, or an empty aggregate."""
    EXPIRED = 2
    OVERFLOW = 3
    NOT_FOUND = 4
    """Nothing is stored for the key; a count is 0."""
    UNAVAILABLE = 5
    """The view version is not ready in this store, or the store did not answer in time: no value at all."""


@dataclass(frozen=True, slots=True)
class Column:
    """One feature of many entities: physical values (see `coeval.spec.types`), statuses as int8, of equal length.

    Where the status has no value, the entry of `values` means nothing: `null` tells.
    """

    type: DataType
    values: NDArray[Any]
    null: NDArray[np.bool_]
    status: NDArray[np.int8]

    def logical(self) -> list[Logical]:
        """The values as users see them: int, float, Decimal, str, bool, UTC datetime, date; None for null."""
        return [
            None if null else to_logical(self.type, value)
            for value, null in zip(self.values.tolist(), self.null.tolist(), strict=True)
        ]

    def numeric(self) -> NDArray[np.float64]:
        """float64 values with NaN for null; decimals in their own unit.

        Raises:
            TypeError: the column holds text.
        """
        if self.type.kind is Kind.STRING:
            raise TypeError("a text column has no numeric form")
        values = np.where(self.null, 0, self.values).astype(np.float64)
        return np.where(self.null, np.nan, values / 10**self.type.scale)


class Block(Protocol):
    """The features of one view as they were read. A column is made when it is asked for."""

    @property
    def event_ts(self) -> NDArray[np.int64]:
        """The newest event behind each entity's values (microseconds UTC, 0 for none)."""

    @property
    def present(self) -> bool:
        """Whether every value is known to be PRESENT; False tells nothing."""

    def plain(self, names: Sequence[str]) -> Sequence[Sequence[Any]] | None:
        """The rows of these features where they are Python's numbers as they are, without nulls and scales, already."""

    def column(self, name: str) -> Column:
        """A feature as arrays."""

    def logical(self, name: str) -> list[Logical]:
        """A feature as users see it."""

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Features as floats, (entities, names): NaN for null, decimals in their own unit. None of them is text."""

    def codes(self, names: Sequence[str]) -> NDArray[np.int8]:
        """The statuses of features, (entities, names)."""


@dataclass(frozen=True, slots=True)
class MadeBlock:
    """Columns that were computed: a `Block`."""

    columns: Mapping[str, Column]
    event_ts: NDArray[np.int64]
    present: bool = False

    def plain(self, names: Sequence[str]) -> None:
        """See `Block`."""
        del names

    def column(self, name: str) -> Column:
        """See `Block`."""
        return self.columns[name]

    def logical(self, name: str) -> list[Logical]:
        """See `Block`."""
        return self.columns[name].logical()

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """See `Block`."""
        return np.column_stack([self.columns[name].numeric() for name in names])

    def codes(self, names: Sequence[str]) -> NDArray[np.int8]:
        """See `Block`."""
        return np.column_stack([self.columns[name].status for name in names])


class Part(NamedTuple):
    """Some of the features of one view, in a row: a result is a list of them. `numeric` are those that are no text."""

    view: str
    block: Block
    names: Sequence[str]
    numeric: Sequence[str]


class FeatureResult:
    """The features of a service for a list of entities, in the service's stable order.

    `at` is the instant of the read (microseconds UTC), `manifest_hash` names the definitions that it was read with.
    """

    def __init__(
        self, parts: Sequence[Part], entities: Mapping[str, Sequence[Any]], at: int, manifest_hash: str
    ) -> None:
        self._parts = parts
        self.entities = entities
        self.at = at
        self.manifest_hash = manifest_hash

    def __repr__(self) -> str:
        return f"FeatureResult({len(self)} entities, {len(self.names)} features, manifest {self.manifest_hash[:12]})"

    def __len__(self) -> int:
        return len(next(iter(self.entities.values()), ()))

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in a stable order."""
        return tuple(f"{part.view}__{name}" for part in self._parts for name in part.names)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The features as arrays, by name."""
        return {f"{part.view}__{name}": part.block.column(name) for part in self._parts for name in part.names}

    @cached_property
    def codes(self) -> NDArray[np.int8]:
        """The statuses as numbers, (entities, features), in the order of `names`."""
        if all(part.block.present for part in self._parts):
            return np.zeros((len(self), sum([len(part.names) for part in self._parts])), dtype=np.int8)
        return _beside([part.block.codes(part.names) for part in self._parts], len(self), np.int8)

    @property
    def status(self) -> dict[str, list[Status]]:
        """Statuses by feature."""
        return {
            name: [_STATUSES[code] for code in codes]
            for name, codes in zip(self.names, self.codes.T.tolist(), strict=True)
        }

    @property
    def event_ts(self) -> dict[str, NDArray[np.int64]]:
        """Per view, the newest event behind each entity's values (microseconds UTC, 0 for none); derived: none."""
        return {part.view: part.block.event_ts for part in self._parts if len(part.block.event_ts)}

    @property
    def age(self) -> dict[str, NDArray[np.float64]]:
        """Per view, seconds since the newest event behind each entity's values; NaN where there is none."""
        return {
            view: np.where(instants == 0, np.nan, (self.at - instants) / 1e6)
            for view, instants in self.event_ts.items()
        }

    def to_dict(self) -> dict[str, list[Any]]:
        """Entities and features as lists of logical values."""
        found: dict[str, list[Any]] = {name: list(values) for name, values in self.entities.items()}
        for part in self._parts:
            for name in part.names:
                found[f"{part.view}__{name}"] = part.block.logical(name)
        return found

    def to_numpy(self) -> NDArray[np.float64]:
        """The numeric features as one (entities, n) float64 array, NaN for null; text features are left out."""
        parts = [part for part in self._parts if part.numeric]
        plain = [part.block.plain(part.numeric) for part in parts]
        if parts and None not in plain:
            rows = zip(*plain, strict=True)
            return np.array([[*chain.from_iterable(row)] for row in rows], dtype=np.float64)
        return _beside([part.block.numbers(part.numeric) for part in parts], len(self), np.float64)

    def to_arrow(self) -> pyarrow.Table:
        """Entities and features as an Arrow table of their own types; needs pyarrow."""
        from coeval.arrow import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Entities and features as a pandas DataFrame of logical values; needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.to_dict())

    def to_polars(self) -> polars.DataFrame:
        """Entities and features as a polars DataFrame; needs polars and pyarrow."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame


def _beside(matrices: Sequence[NDArray[Any]], rows: int, dtype: Any) -> NDArray[Any]:
    return np.concatenate(matrices, axis=1) if matrices else np.empty((rows, 0), dtype=dtype)


_STATUSES = tuple(Status)
