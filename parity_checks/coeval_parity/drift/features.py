"""Columns as what is compared: numbers as they are, instants as ages, all else as codes. Pure; it knows Arrow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coeval.errors import UsageError
from coeval_parity.drift.measures import Floats
from coeval_parity.drift.rules import Kind

MAX_CATEGORIES = 1000
"""Of more different values than these, or than a twentieth of the rows, each is somebody's, and tells nothing."""
_SHARE = 0.05
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature on both sides, as float64 with NaN for null: numbers, or codes of `labels`."""

    name: str
    kind: Kind
    baseline: Floats
    window: Floats
    labels: tuple[str, ...] = ()

    def within(self, baseline: NDArray[np.bool_], window: NDArray[np.bool_]) -> Feature:
        """Some rows of the baseline against other rows of it."""
        return replace(self, baseline=self.baseline[baseline], window=self.baseline[window])


def encode(
    name: str,
    columns: tuple[pa.ChunkedArray, pa.ChunkedArray],
    instants: tuple[NDArray[np.int64] | None, NDArray[np.int64] | None],
    kind: Kind | None,
    *,
    is_id: bool = False,
) -> Feature:
    """A column of baseline and window. Without a kind, its type decides; `is_id`: its numbers are no sizes.

    Raises:
        UsageError: its types cannot be compared.
    """
    baseline, window = columns
    try:
        return _encoded(name, baseline, window, instants, kind, is_id=is_id)
    except pa.ArrowException as error:
        raise UsageError(
            f"{name} cannot be compared: it is {baseline.type} in the baseline and {window.type} in the window.",
            'Leave it out: a rule of "kind": "skip" for it, see docs/drift.md.',
        ) from error


def _encoded(
    name: str,
    baseline: pa.ChunkedArray,
    window: pa.ChunkedArray,
    instants: tuple[NDArray[np.int64] | None, NDArray[np.int64] | None],
    kind: Kind | None,
    *,
    is_id: bool,
) -> Feature:
    wanted = kind or (Kind.CATEGORY if is_id else _natural(baseline.type))
    if wanted is Kind.NUMBER and not _is_text(baseline.type):
        if _is_text(window.type):
            raise pa.ArrowInvalid("text is no number")
        return Feature(name, Kind.NUMBER, _numbers(baseline, instants[0]), _numbers(window, instants[1]))
    found = _codes(name, baseline, window)
    if wanted is Kind.IDENTIFIER or (kind is None and _names(found)):
        return replace(found, kind=Kind.IDENTIFIER)
    return found


def _natural(kind: pa.DataType) -> Kind:
    return Kind.CATEGORY if _is_text(kind) or pa.types.is_boolean(kind) else Kind.NUMBER


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _numbers(column: pa.ChunkedArray, instants: NDArray[np.int64] | None) -> Floats:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _ages(column, instants)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    # A number beyond 2^53 loses digits that no distribution shows.
    values: Floats = pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _ages(column: pa.ChunkedArray, instants: NDArray[np.int64] | None) -> Floats:
    """Seconds before the row's instant: an instant itself is never what it was. Without one, since the epoch."""
    valid = column.is_valid().to_numpy()
    micros = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).fill_null(0).to_numpy()
    seconds = (instants - micros if instants is not None else micros) / _SECOND
    return np.where(valid, seconds, np.nan)


def _codes(name: str, baseline: pa.ChunkedArray, window: pa.ChunkedArray) -> Feature:
    texts = [column if _is_text(column.type) else column.cast(pa.string()) for column in (baseline, window)]
    chunks = [chunk.cast(pa.large_string()) for column in texts for chunk in column.chunks]
    encoded = pa.chunked_array(chunks, pa.large_string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.cast(pa.float64()).to_numpy(zero_copy_only=False)
    rows = len(baseline)
    return Feature(name, Kind.CATEGORY, codes[:rows], codes[rows:], tuple(encoded.dictionary.to_pylist()))


def _names(feature: Feature) -> bool:
    """Whether the values of a column say who, not what."""
    values = feature.baseline[~np.isnan(feature.baseline)]
    different = len(np.unique(values))
    return different > MAX_CATEGORIES or (different > 50 and different > _SHARE * len(values))
