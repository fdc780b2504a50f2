"""The plan: what applying a catalog changes, and what each change costs. Pure: a frozen value, then rendered.

It compares manifests; what is there already comes as a value, and what is not known stays unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coeval.aggregations.tiles import tile_plan
from coeval.online.layout import ROW_HEADER, blob_size
from coeval.spec.manifest import Manifest
from coeval.spec.model import DerivedView, FeatureService, RowView, View, WindowedView
from coeval.spec.types import DataType
from coeval.spec.types import Kind as ValueKind
from coeval_pipelines.catalog.deployed import Deployed, Stored
from coeval_pipelines.catalog.differences import taken_differences, view_differences
from coeval_pipelines.catalog.errors import Problem
from coeval_pipelines.catalog.removal import removals
from coeval_pipelines.catalog.report import Report
from coeval_pipelines.catalog.summary import kinds


class Kind(StrEnum):
    """What becomes of an object."""

    UNCHANGED = "unchanged"
    IN_PLACE = "changed in place"
    NEW = "new"
    NEW_VERSION = "new version"
    REMOVED = "removed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Tiles:
    """One granularity of a windowed view: tiles of one length, `slots` of them a key, of `bytes` each."""

    length: str
    slots: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a view takes. None: not known, and `keys_from` says why; else it says where the number is from.

    `planned_bytes` is the most that the state of one key can take (text in rows left out), `bytes_per_key` what a key
    is expected to take with all that Redis needs for it; `events` are to be read again by a backfill.
    """

    keys: int | None
    keys_margin: int
    keys_from: str
    planned_bytes: int
    bytes_per_key: int
    redis_bytes: int | None
    events: int | None
    partitions: int
    tiles: tuple[Tiles, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one view, derived view or service."""

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


def make_plan(report: Report, there: Deployed, remove: Collection[str] = ()) -> Plan:
    """Compare what the files define with what is there."""
    baseline = there.baseline or Manifest(report.manifest.project, report.manifest.tenant)
    steps = tuple(_steps(report, there, baseline, frozenset(remove)))
    named = {(step.object, step.name) for step in steps}
    others = tuple(item for item in report.problems if (item.kind, item.subject) not in named)
    applied = there.registered is not None and there.registered.hash == report.manifest.hash
    origin = "deployed" if there.released else "registered" if there.registered else "nothing"
    before = there.baseline.hash if there.baseline else ""
    refused = bool(others) or any(step.problems for step in steps)
    commands = ("coeval plan",) if refused else _next(steps, applied, sorted(remove))
    return Plan(
        report.manifest.project, origin, before, report.manifest.hash, applied, steps, others, report.notes, commands
    )


def _steps(report: Report, there: Deployed, baseline: Manifest, remove: Collection[str]) -> Iterator[Step]:
    new, old = report.manifest, baseline
    known = kinds(old) | kinds(new) | {item.subject: item.kind for item in report.problems if _is_object(item)}
    gone = removals(there.registered, report.defined) | removals(old, report.defined)
    for kind in ("view", "derived view", "service"):
        for name in sorted(name for name in known if known[name] == kind):
            problems = tuple(item for item in report.problems if (item.kind, item.subject) == (kind, name))
            if name in gone:
                yield _removal(name, kind, old, tuple(item for item in problems if name not in remove))
            elif problems:
                yield Step(name, kind, Kind.REFUSED, _version(old, name), problems=problems)
            elif name in kinds(new):
                yield _view_step(name, there, old, new) if kind == "view" else _other_step(name, kind, old, new)
            else:
                yield Step(name, kind, Kind.REFUSED, _version(old, name), why=("waits for what it reads to be mended",))


def _is_object(problem: Problem) -> bool:
    return problem.kind in ("view", "derived view", "service")


def _version(manifest: Manifest, name: str) -> str:
    return manifest.views[name].version if name in manifest.views else ""


def _removal(name: str, kind: str, old: Manifest, problems: tuple[Problem, ...]) -> Step:
    readers = [service.name for service in old.services if name in {part.view for part in service.views}]
    why = (f"read by {', '.join(readers)}",) if readers else ()
    return Step(name, kind, Kind.REMOVED, _version(old, name), why=why, problems=problems)


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
    before, after = (_find(manifest, kind, name) for manifest in (old, new))
    if before is None or after is None:
        return Step(name, kind, Kind.NEW)
    why = taken_differences(before, after)
    return Step(name, kind, Kind.UNCHANGED if before == after else Kind.IN_PLACE, why=why)


def _find(manifest: Manifest, kind: str, name: str) -> DerivedView | FeatureService | None:
    items: Sequence[DerivedView | FeatureService] = manifest.services if kind == "service" else manifest.derived_views
    return next((item for item in items if item.name == name), None)


def view_cost(view: View, manifest: Manifest, there: Deployed) -> Cost:
    """What a view takes online and to backfill, as far as it can be known."""
    planned = planned_bytes(view, manifest)
    keys, margin, origin, stored = _keys(view, there)
    each = round(stored.bytes_per_key) if stored else planned
    if stored and origin.startswith("as"):
        each = round(_scaled(stored, view, planned, there))
    return Cost(
        keys=keys,
        keys_margin=margin,
        keys_from=origin,
        planned_bytes=planned,
        bytes_per_key=each,
        redis_bytes=None if keys is None else keys * each,
        events=there.events.get(view.source),
        partitions=view.partitions,
        tiles=_tiles(view, manifest),
    )


def planned_bytes(view: View, manifest: Manifest) -> int:
    """The most that the state of one key takes, header included; for rows without the text of strings."""
    if isinstance(view, WindowedView):
        return blob_size(tile_plan(view, manifest.event_source(view)))
    return _row_bytes(view)


def _row_bytes(view: RowView) -> int:
    widths = [_width(field.type) for field in view.features]
    return ROW_HEADER.size + (len(widths) + 7) // 8 + sum(widths)


def _width(data_type: DataType) -> int:
    """Bytes of a value in a row; of a string, those of its length."""
    if data_type.kind is ValueKind.STRING:
        return 4
    return 16 if data_type.is_wide else 8


def _tiles(view: View, manifest: Manifest) -> tuple[Tiles, ...]:
    if not isinstance(view, WindowedView):
        return ()
    plan = tile_plan(view, manifest.event_source(view))
    return tuple(Tiles(item.name, item.slots, item.dtype.itemsize) for item in plan.granularities)


def _keys(view: View, there: Deployed) -> tuple[int | None, int, str, Stored | None]:
    """Keys, margin, where they are from, and what was found in the store."""
    online = there.online
    own = online.stored.get((view.name, view.version))
    if own:
        return own.keys, own.margin, "sampled" if own.margin else "counted", own
    if online.silent:
        return None, 0, online.silent, None
    sibling = _sibling(view, there)
    if sibling is None:
        return None, 0, "no view with this key and source is online", None
    stored = online.stored[sibling.name, sibling.version]
    return stored.keys, stored.margin, f"as {sibling.name} has now" + (", or fewer" if view.where else ""), stored


def _sibling(view: View, there: Deployed) -> View | None:
    """A view of the baseline that is online and has the same keys: itself first, then any on the same source."""
    baseline = there.baseline
    alike = [
        item
        for item in (baseline.views.values() if baseline else ())
        if item.key == view.key and item.source == view.source and (item.name, item.version) in there.online.stored
    ]
    # One with a condition may have fewer keys than this one will.
    return min(alike, key=lambda item: (item.name != view.name, item.where is not None, item.name), default=None)


def _scaled(stored: Stored, view: View, planned: int, there: Deployed) -> float:
    """Bytes a key, by what the sibling's keys really take beside what was planned for them."""
    baseline, sibling = there.baseline, _sibling(view, there)
    if baseline is None or sibling is None or isinstance(sibling, WindowedView) != isinstance(view, WindowedView):
        return planned
    return stored.bytes_per_key * planned / planned_bytes(sibling, baseline)


def _next(steps: Sequence[Step], applied: bool, remove: Sequence[str]) -> tuple[str, ...]:
    flags = "".join(f" --remove {name}" for name in remove)
    changed = any(step.kind is not Kind.UNCHANGED for step in steps)
    commands = [] if applied or not changed else [f"coeval apply{flags}"]
    fill = [step.name for step in steps if step.needs_backfill]
    if fill:
        views = " ".join(fill)
        commands += ["coeval stream deploy", f"coeval backfill run {views}", f"coeval parity run {views}"]
    return tuple(commands)
