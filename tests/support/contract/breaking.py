"""Runs mutations: the cases of the views that can tell, through the broken engine, compared with the contract."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from coeval.settings import Settings
from coeval.spec.manifest import Manifest, with_version
from tests.support.contract import catalog
from tests.support.contract.adapters import Adapter
from tests.support.contract.adapters.flink import Flink, run
from tests.support.contract.cases import Case
from tests.support.contract.compare import differences
from tests.support.contract.mutations import LUA, Mutation
from tests.support.contract.patching import changed, changed_jobs

TOGETHER = 4
"""Broken stream jobs that run at once: one task slot each."""


def caught(mutation: Mutation, adapters: Sequence[Adapter], cases: Sequence[Case]) -> int:
    """By how many cases a mutation of this process is caught; the adapters are those of its engine."""
    mine = [case for case in cases if case.view in mutation.views]
    found = 0
    for adapter in adapters:
        taken = [case for case in mine if adapter.takes(case)]
        with _broken(mutation), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken engine may well warn
            answers = adapter.answers(taken)
        found += len(differences(taken, answers, adapter.counts))
    return found


def _broken(mutation: Mutation) -> AbstractContextManager[None]:
    if mutation.module == LUA:
        script = f".read_text().replace({mutation.old!r}, {mutation.new!r})"
        return changed(LUA, ".read_text()", script)
    return changed(mutation.module, mutation.old, mutation.new)


def caught_by_flink(mutations: Sequence[Mutation], settings: Settings, cases: Sequence[Case]) -> list[int]:
    """By how many cases each mutation of the stream is caught; the cases have been delivered to the topic.

    Each broken job is one of a source and views of its own over the same topic, a few at a time.
    """
    found: list[int] = []
    for start in range(0, len(mutations), TOGETHER):
        some = mutations[start : start + TOGETHER]
        names = [f"m{start + place}" for place in range(len(some))]
        changes = {name: (item.old, item.new) for name, item in zip(names, some, strict=True)}
        asked = [[case for case in cases if case.view in item.views] for item in some]
        suffixes = [f"_{name}" for name in names]
        with changed_jobs(changes):
            answers = run(settings, _manifest(names, some), list(zip(suffixes, asked, strict=True)))
        found += [len(differences(mine, got, Flink(settings).counts)) for mine, got in zip(asked, answers, strict=True)]
    return found


def _manifest(names: Sequence[str], mutations: Sequence[Mutation]) -> Manifest:
    whole = catalog.manifest()
    sources = [replace(catalog.EVENTS, name=name) for name in names]
    views = [
        with_version(replace(catalog.VIEWS[view], name=f"{view}_{source.name}", source=source.name), source)
        for source, mutation in zip(sources, mutations, strict=True)
        for view in mutation.views
    ]
    windowed = {view.name for view in whole.windowed_views}
    return replace(
        whole,
        project="broken",
        tenant="broken",
        event_sources=tuple(sources),
        batch_sources=(),
        windowed_views=tuple(view for view in views if view.name.rpartition("_")[0] in windowed),  # type: ignore[misc]
        row_views=tuple(view for view in views if view.name.rpartition("_")[0] not in windowed),  # type: ignore[misc]
    )
