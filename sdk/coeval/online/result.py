"""What a read gives back: columns, statuses, event times; and its conversions. It knows numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coeval.spec.types import DataType, Kind, Logical, to_logical


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


@dataclass(frozen=True)
class FeatureResult:
    """The features of a service for a list of entities, in the service's stable order.

    `event_ts` holds, per view, the newest event behind each entity's values (microseconds UTC, 0 for none), `at` the
    instant of the read, `manifest_hash` the definitions that it was read with.
    """

    columns: Mapping[str, Column]
    entities: Mapping[str, Sequence[Any]]
    event_ts: Mapping[str, NDArray[np.int64]]
    at: int
    manifest_hash: str

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in a stable order."""
        return tuple(self.columns)

    @property
    def status(self) -> dict[str, list[Status]]:
        """Statuses by feature."""
        return {name: [Status(code) for code in column.status.tolist()] for name, column in self.columns.items()}

    @property
    def age(self) -> dict[str, NDArray[np.float64]]:
        """Per view, seconds since the newest event behind each entity's values; NaN where there is none."""
        return {
            view: np.where(instants == 0, np.nan, (self.at - instants) / 1e6)
            for view, instants in self.event_ts.items()
        }

    def __len__(self) -> int:
        return len(next(iter(self.entities.values()), ()))

    def to_dict(self) -> dict[str, list[Any]]:
        """Entities and features as lists of logical values."""
        return {
            **{name: list(values) for name, values in self.entities.items()},
            **{name: column.logical() for name, column in self.columns.items()},
        }

    def to_numpy(self) -> NDArray[np.float64]:
        """The numeric features as one (entities, n) float64 array, NaN for null; text features are left out."""
        numbers = [item.numeric() for item in self.columns.values() if item.type.kind is not Kind.STRING]
        return np.column_stack(numbers) if numbers else np.empty((len(self), 0))

    def to_pandas(self) -> Any:
        """Entities and features as a pandas DataFrame of logical values; needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.to_dict())
