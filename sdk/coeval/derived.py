"""Derived features: the same pure, vectorised function online and offline, found by its import path. It knows numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coeval.errors import CatalogError, UsageError
from coeval.spec.model import DerivedView, Field
from coeval.spec.types import Kind

Columns: TypeAlias = Mapping[str, NDArray[Any]]
DerivedFunction: TypeAlias = Callable[[Columns], dict[str, NDArray[Any]]]


@lru_cache(maxsize=256)
def load_function(path: str) -> DerivedFunction:
    """Import `package.module:function`.

    Raises:
        CatalogError: it cannot be imported.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CatalogError(
            f"The derived feature function {path} cannot be imported: {error}.",
            "Install the package that holds it, or run from the directory that does.",
        ) from error
    if not callable(function):
        raise CatalogError(f"{path} is not a function.", "Name it as package.module:function.")
    return function  # type: ignore[no-any-return]


def run_derived(view: DerivedView, columns: Columns) -> dict[str, NDArray[Any]]:
    """Compute a derived view over equally long columns.

    `columns` holds `view__feature` for inputs and plain names for request inputs: numbers as float64 with NaN for null
    (decimals in their own unit), text as object arrays with None. The output has one array per feature, in the same
    convention.

    Raises:
        UsageError: the function leaves an output out or changes the length.
    """
    with np.errstate(all="ignore"):
        outputs = load_function(view.function)(columns)
    rows = len(next(iter(columns.values())))
    return {field.name: _checked(view, field, outputs, rows) for field in view.features}


def _checked(view: DerivedView, field: Field, outputs: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
    if field.name not in outputs or len(outputs[field.name]) != rows:
        raise UsageError(
            f"{view.function} did not return {rows} values of {field.name}.",
            f"Return a dict with one array per feature: {', '.join(item.name for item in view.features)}.",
        )
    values = outputs[field.name]
    return values if field.type.kind is Kind.STRING else finite(values)


def finite(values: NDArray[Any]) -> NDArray[np.float64]:
    """float64 with every NaN and infinity as NaN: a derived number that is not finite is null."""
    numbers = values.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
