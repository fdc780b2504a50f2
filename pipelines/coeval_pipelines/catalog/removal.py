"""What vanishes from the files while it is registered or runs goes only when it is named. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from coeval.spec.manifest import Manifest
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.summary import Key, objects

REMOVE = "COEVAL_REMOVE"
"""Environment variable: views and services that may go, separated by commas."""


def removals(there: Iterable[Manifest | None], defined: Collection[Key]) -> list[Key]:
    """Every view, derived view and service of these manifests that the files define no more, as (kind, name)."""
    known = dict.fromkeys(key for manifest in there if manifest for key in objects(manifest))
    return [key for key in known if key not in defined]


def refusals(there: Collection[Manifest | None], defined: Collection[Key], named: Collection[str]) -> Iterator[Problem]:
    """A problem for every removal that nobody named, and for every name that nothing answers to."""
    gone = removals(there, defined)
    for kind, name in gone:
        if name not in named:
            fix = f"Put it back, or let it go: coeval apply --remove {name} (with feast: {REMOVE}={name} feast apply)."
            yield Problem(f"{kind} {name}", "it is registered, and no file defines it any more", fix)
    known = dict.fromkeys(name for manifest in there if manifest for _, name in objects(manifest))
    for name in sorted(set(named) - {name for _, name in gone}):
        if name in {name for _, name in defined}:
            yield Problem(f"removal of {name}", "the files still define it", "Delete it there, or do not name it.")
        elif name not in known:
            fix = f"Registered are: {', '.join(known) or 'nothing'}."
            yield Problem(f"removal of {name}", "nothing of that name is registered", fix)


def named_in(text: str) -> frozenset[str]:
    """The names in a comma-separated list."""
    return frozenset(filter(None, (name.strip() for name in text.split(","))))
