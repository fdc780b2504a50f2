"""The engines of the other rooms, found by their entry points: the SDK imports none of them."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from coeval.errors import MissingExtraError


def engine(name: str, extras: str) -> Any:
    """What the entry point `name` of the group `coeval.engines` stands for.

    Raises:
        MissingExtraError: what it needs is not installed; `extras` are said to bring it.
    """
    hint = " or ".join(f"pip install 'coeval[{extra}]'" for extra in extras.split("|"))
    found = list(entry_points(group="coeval.engines", name=name))
    if not found:
        raise MissingExtraError(f"The engine {name} is not installed.", hint)
    try:
        return found[0].load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed.", hint) from error
