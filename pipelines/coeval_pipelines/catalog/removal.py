"""What vanishes from the files while it is registered goes only when it is named. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from coeval.spec.manifest import Manifest
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.summary import kinds

REMOVE = "COEVAL_REMOVE"
"""Environment variable: views and services that may go, separated by commas."""


def removals(registered: Manifest | None, defined: Collection[str]) -> dict[str, str]:
    """The kind of every registered view, derived view and service that the files define no more, by name."""
    known = kinds(registered) if registered else {}
    return {name: kind for name, kind in known.items() if name not in defined}


def refusals(registered: Manifest | None, defined: Collection[str], named: Collection[str]) -> Iterator[Problem]:
    """A problem for every removal that nobody named, and for every name that nothing answers to."""
    gone = removals(registered, defined)
    for name, kind in gone.items():
        if name not in named:
            fix = f"Put it back, or let it go: coeval apply --remove {name} (with feast: {REMOVE}={name} feast apply)."
            yield Problem(f"{kind} {name}", "it is registered, and no file defines it any more", fix)
    for name in sorted(set(named) - gone.keys()):
        if name in defined:
            yield Problem(f"removal of {name}", "the files still define it", "Delete it there, or do not name it.")
        elif registered is None or name not in kinds(registered):
            known = ", ".join(kinds(registered)) if registered else "nothing"
            yield Problem(f"removal of {name}", "nothing of that name is registered", f"Registered are: {known}.")


def named_in(text: str) -> frozenset[str]:
    """The names in a comma-separated list."""
    return frozenset(filter(None, (name.strip() for name in text.split(","))))
