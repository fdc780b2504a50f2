"""A parity result as a JSON document and back. Pure. Values are written as text, so that decimals keep every digit."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from coeval.errors import UsageError
from coeval_parity.result import ParityResult


def to_document(result: ParityResult) -> dict[str, Any]:
    """The result with its totals first, ready for `json.dumps`."""
    return {**result.summary(), **plain(result)}


def from_document(document: Mapping[str, Any]) -> ParityResult:
    """Read what `to_document` wrote; logical values come back as text.

    Raises:
        UsageError: it is not such a document.
    """
    try:
        return _typed(ParityResult, document)  # type: ignore[no-any-return]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"This is not a parity result: {error}.", "Run parity again: coeval parity run") from error


def plain(value: Any) -> Any:
    """A value of dataclasses, mappings and tuples as JSON has it; what is no number as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _names(type(value))}
    return str(value)


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(item.name for item in fields(cls))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return tuple(_typed(arguments[0], item) for item in value)
    if origin in (Union, types.UnionType):
        # An optional of one type is read as that type; the union of logical values stays as it is written.
        inner = [item for item in arguments if item is not types.NoneType]
        return _typed(inner[0], value) if value is not None and len(inner) == 1 else value
    if origin is not None and issubclass(origin, Mapping):
        return {_key(arguments[0], key): _typed(arguments[1], item) for key, item in value.items()}
    if is_dataclass(hint) and isinstance(hint, type):
        hints = _hints(hint)
        given = [item.name for item in fields(hint) if item.name in value]  # an earlier release knew fewer
        return hint(**{name: _typed(hints[name], value[name]) for name in given})
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return float(value) if hint is float else value


def _key(hint: Any, key: str) -> Any:
    return int(key) if hint is int else _typed(hint, key)
