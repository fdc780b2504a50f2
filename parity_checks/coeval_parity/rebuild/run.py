"""A run over training sets: each is built again beside its table, compared, and what was found is kept.

It knows the training sets and the control plane. Nothing of a rebuild stays; no value of a row is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from coeval.client import read_manifest
from coeval.errors import CoevalError, LetGoError
from coeval.settings import Settings
from coeval_parity.rebuild.result import Outcome, RebuildResult, SetRebuild, judged, suspected
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.checks import REBUILD, CheckBook
from coeval_pipelines.offline.asked import Asked
from coeval_pipelines.offline.choice import AUTO, decide
from coeval_pipelines.offline.training.lineage import versions_now
from coeval_pipelines.offline.training.rebuild import Rebuilt, altered, compare, obstacle
from coeval_pipelines.offline.training.registry import Kept, kept_set, kept_sets

SUBJECT = "training:"
"""How the subject of a check is called that is a training set; its name follows."""
_KEPT = 200
"""Runs of each set that are kept."""


def run_rebuild(
    settings: Settings,
    names: Sequence[str] = (),
    engine: str = AUTO,
    say: Callable[[str], None] = lambda message: None,
) -> RebuildResult:
    """Build training sets (default: all) again, and keep what was found of each in the control plane.

    One that cannot be looked at is said to be so, and keeps nobody from looking at the others.

    Raises:
        UsageError: there is no such set or engine.
    """
    decide((), 0, 0, engine)
    tenant = read_manifest(settings.manifest_path).tenant
    sets = [kept_set(settings, tenant, name) for name in names] if names else kept_sets(settings, tenant)
    found = []
    with closing(ControlPlane.open(settings)) as control:
        book = CheckBook(control)
        for number, kept in enumerate(sets, start=1):
            item = _rebuilt(settings, kept, engine, _numbered(say, f"{kept.name} ({number} of {len(sets)})"))
            document = item.to_document(values=False)
            subject = SUBJECT + item.name
            book.record(REBUILD, subject, item.at, item.manifest_hash, passed=item.passed, result=document)
            book.forget(REBUILD, subject, _KEPT)
            found.append(item)
        if not names:
            for subject in book.newest(REBUILD).keys() - {SUBJECT + kept.name for kept in sets}:
                book.forget(REBUILD, subject)
    return RebuildResult(tuple(found))


def _numbered(say: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda message: say(f"{name}: {message}")


def _rebuilt(settings: Settings, kept: Kept, engine: str, say: Callable[[str], None]) -> SetRebuild:
    started, at = time.monotonic(), time.time_ns() // 1000
    lineage = kept.document.lineage
    asked = Asked.of(kept.manifest, lineage["service"])
    facts = (kept.name, lineage["service"], at, lineage["manifest"], lineage["rows"])
    before = lineage["content_hash"]
    found = _compared(settings, kept, engine, say)
    seconds = time.monotonic() - started
    if not isinstance(found, Rebuilt):
        return SetRebuild(*facts, *found, before=before, seconds=seconds)
    outcome, why = judged(found, asked)
    unexplained = outcome is Outcome.UNEXPLAINED
    return SetRebuild(
        *facts,
        outcome,
        why,
        suspected(found, asked, lineage, versions_now()) if unexplained else (),
        engine=found.engine.engine,
        before=before,
        after=found.after,
        apart=found.apart.rows,
        features=found.apart.features,
        values=found.apart.values,
        seconds=seconds,
    )


def _compared(
    settings: Settings, kept: Kept, engine: str, say: Callable[[str], None]
) -> Rebuilt | tuple[Outcome, tuple[str, ...]]:
    """What building a set again found; where that cannot be done, what it is called instead, and why."""
    outcome = Outcome.IMPOSSIBLE
    try:
        reason = obstacle(settings, kept)
        if not reason:
            return compare(settings, kept, engine, say)
    except LetGoError as error:
        reason = error.reason
    except CoevalError as error:
        outcome, reason = Outcome.UNCHECKED, error.reason
    try:  # whatever stands in the way, something else may have written to it
        written = altered(settings, kept, engine, say)
    except CoevalError as error:
        return Outcome.UNCHECKED, tuple(dict.fromkeys((reason, error.reason)))
    return (Outcome.ALTERED, (written, reason)) if written else (outcome, (reason,))
