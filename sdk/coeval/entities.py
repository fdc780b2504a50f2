"""Entities as callers have them, made columns: dicts, lists of dicts, numpy, Arrow, pandas, polars. It imports none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coeval.errors import EntityKeyError

Columns = Mapping[str, Sequence[Any]]
Entities = Columns | Sequence[Mapping[str, Any]] | Any
"""Columns by name, a list of dicts, a structured numpy array, an Arrow table, a pandas or polars frame."""
_TO_LIST = ("tolist", "to_pylist", "to_list")
"""What numpy, Arrow and polars call it."""


def as_columns(entities: Entities) -> Columns:
    """Entities as lists by join key.

    Raises:
        EntityKeyError: they are nothing that has named columns.
    """
    if isinstance(entities, Mapping):
        return {name: _as_list(name, values) for name, values in entities.items()}
    table: Any = entities
    names = _column_names(table)
    if names is not None:
        return {name: _as_list(name, table[name]) for name in names}
    if isinstance(entities, Sequence) and all(isinstance(row, Mapping) for row in entities):
        keys = dict.fromkeys(name for row in entities for name in row)
        return {name: [row.get(name) for row in entities] for name in keys}
    raise EntityKeyError(
        f"Entities cannot be a {type(entities).__name__}.",
        "Give columns ({'card_id': [1, 2]}), a list of dicts, a structured array, an Arrow table or a data frame.",
    )


def _column_names(entities: Any) -> Sequence[str] | None:
    """Of an Arrow table, a pandas or polars frame, a structured array."""
    for attribute in ("column_names", "columns"):
        names = getattr(entities, attribute, None)
        if names is not None and all(isinstance(name, str) for name in names):
            return list(names)
    fields: Sequence[str] | None = getattr(getattr(entities, "dtype", None), "names", None)
    return fields


def _as_list(name: str, values: Any) -> list[Any]:
    if isinstance(values, list):
        return values
    for method in _TO_LIST:
        if hasattr(values, method):
            found = getattr(values, method)()
            return found if isinstance(found, list) else [found]
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise EntityKeyError(f"{name} is one value, {values!r}, not a column.", f"Give a list: {{{name!r}: [...]}}.")
    return list(values)
