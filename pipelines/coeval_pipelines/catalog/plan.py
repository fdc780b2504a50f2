"""The plan: what applying a catalog changes, and what each change costs. Pure: a frozen value, then rendered.

It compares manifests; what is there already comes as a value, and what is not known stays unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coeval.spec.manifest import Manifest
from coeval.spec.model import Entity
from coeval_pipelines.catalog.costs import Cost, view_cost
from coeval_pipelines.catalog.deployed import Deployed
from coeval_pipelines.catalog.differences import (
    ground_differences,
    project_differences,
    taken_differences,
    view_differences,
)
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.removal import removals
from coeval_pipelines.catalog.report import Report
from coeval_pipelines.catalog.summary import objects

_KINDS = ("view", "derived view", "service")


class Kind(StrEnum):
    """What becomes of an object."""

    UNCHANGED = "unchanged"
    IN_PLACE = "changed in place"
    NEW = "new"
    NEW_VERSION = "new version"
    REMOVED = "removed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one object: project, source, entity, view, derived view or service."""

    name: str
    object: str
    kind: Kind
    before: str = ""
    after: str = ""
    why: tuple[str, ...] = ()
    cost: Cost | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def needs_backfill(self) -> bool:
        """Whether its values are to be computed anew."""
        return self.object == "view" and self.kind in (Kind.NEW, Kind.NEW_VERSION)


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying a catalog changes. `compared_with` is deployed, registered or nothing."""

    project: str
    compared_with: str
    before: str
    after: str
    applied: bool
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    next: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """Whether `apply` would refuse it."""
        return bool(self.problems) or any(step.problems for step in self.steps)


def make_plan(report: Report, there: Deployed, remove: Collection[str] = (), breaking: Collection[str] = ()) -> Plan:
    """Compare what the files define with what is there; `remove` may vanish, the sources `breaking` may break."""
    baseline = there.baseline or Manifest(report.manifest.project, report.manifest.tenant)
    steps = (*_ground(report, baseline), *_steps(report, there, baseline, frozenset(remove)))
    named = {(step.object, step.name) for step in steps if step.object in _KINDS or step.problems}
    others = tuple(item for item in report.problems if (item.kind, item.subject) not in named)
    applied = there.registered is not None and there.registered.hash == report.manifest.hash
    origin = "deployed" if there.released else "registered" if there.registered else "nothing"
    before = there.baseline.hash if there.baseline else ""
    refused = bool(others) or any(step.problems for step in steps)
    runs = there.released is None or there.released.hash == report.manifest.hash
    flags = "".join(
        [f" --remove {name}" for name in sorted(remove)] + [f" --break {name}" for name in sorted(breaking)]
    )
    commands = ("coeval plan",) if refused else _next(steps, applied, runs, flags)
    return Plan(
        report.manifest.project, origin, before, report.manifest.hash, applied, steps, others, report.notes, commands
    )


def _ground(report: Report, old: Manifest) -> Iterator[Step]:
    """What becomes of that on which views stand; of it, only what changes is a step."""
    new = report.manifest
    moved = project_differences(old, new)
    if moved:
        yield Step(new.project, "project", Kind.NEW if old.tenant != new.tenant else Kind.IN_PLACE, why=moved)
    for kind, before, after in (("source", old.sources, new.sources), ("entity", _entities(old), _entities(new))):
        for name in sorted(before.keys() | after.keys()):
            if name not in before:
                yield Step(name, kind, Kind.NEW)
            elif name in after and before[name] != after[name]:
                why = ground_differences(before[name], after[name])
                problems = tuple(item for item in report.problems if (item.kind, item.subject) == (kind, name))
                yield Step(name, kind, Kind.REFUSED if problems else Kind.IN_PLACE, why=why, problems=problems)
            elif name not in after and not report.problems:  # With any, it may be broken and not gone.
                yield Step(name, kind, Kind.REMOVED)


def _entities(manifest: Manifest) -> dict[str, Entity]:
    return {entity.name: entity for entity in manifest.entities}


def _steps(report: Report, there: Deployed, baseline: Manifest, remove: Collection[str]) -> Iterator[Step]:
    new = report.manifest
    gone = removals((there.registered, baseline), report.defined)
    # Another tenant has other keys, topics and paths: nothing that is there is of use to it.
    old = baseline if baseline.tenant == new.tenant else Manifest(new.project, new.tenant)
    broken = {(item.kind, item.subject) for item in report.problems if item.kind in _KINDS}
    keys = {*gone, *objects(baseline), *objects(new), *broken}
    for kind, name in sorted(keys, key=lambda key: (_KINDS.index(key[0]), key[1])):
        problems = tuple(item for item in report.problems if (item.kind, item.subject) == (kind, name))
        if (kind, name) in gone:
            yield _removal(name, kind, baseline, tuple(item for item in problems if name not in remove))
        elif problems:
            yield Step(name, kind, Kind.REFUSED, _version(old, name), problems=problems)
        elif (kind, name) in objects(new):
            yield _view_step(name, there, old, new) if kind == "view" else _other_step(name, kind, old, new)
        else:
            yield Step(name, kind, Kind.REFUSED, _version(old, name), why=("waits for what it reads to be mended",))


def _version(manifest: Manifest, name: str) -> str:
    return manifest.views[name].version if name in manifest.views else ""


def _removal(name: str, kind: str, old: Manifest, problems: tuple[Problem, ...]) -> Step:
    parts = {service.name: {part.view for part in (*service.views, *service.derived)} for service in old.services}
    readers = [service for service, read in parts.items() if name in read and kind != "service"]
    why = (f"read by {', '.join(readers)}",) if readers else ()
    return Step(name, kind, Kind.REMOVED, _version(old, name) if kind == "view" else "", why=why, problems=problems)


def _view_step(name: str, there: Deployed, old: Manifest, new: Manifest) -> Step:
    view = new.views[name]
    cost = view_cost(view, new, there)
    if name not in old.views:
        return Step(name, "view", Kind.NEW, "", view.version, cost=cost)
    before = old.views[name]
    found = view_differences(name, old, new)
    if before.version != view.version:
        why = found.values or ("the same definition, hashed by another release",)
        return Step(name, "view", Kind.NEW_VERSION, before.version, view.version, why + found.metadata, cost)
    kind = Kind.IN_PLACE if before != view else Kind.UNCHANGED
    return Step(name, "view", kind, before.version, view.version, found.metadata, cost)


def _other_step(name: str, kind: str, old: Manifest, new: Manifest) -> Step:
    before, after = (objects(manifest).get((kind, name)) for manifest in (old, new))
    if before is None:
        return Step(name, kind, Kind.NEW)
    why = taken_differences(before, after)
    return Step(name, kind, Kind.UNCHANGED if before == after else Kind.IN_PLACE, why=why)


def _next(steps: Sequence[Step], applied: bool, runs: bool, flags: str) -> tuple[str, ...]:
    commands = [] if applied else [f"coeval apply{flags}"]
    fill = [step.name for step in steps if step.needs_backfill]
    if fill or not runs:
        commands.append("coeval stream deploy")
    if fill:
        views = " ".join(fill)
        commands += [f"coeval backfill run {views}", f"coeval parity run {views}"]
    return tuple(commands)
