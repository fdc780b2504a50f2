"""What a deployment changes about the stream's runs: planned as values that can be printed, then carried out.

A job whose graph stays takes its state along in a savepoint. Any other begins without state and rewinds, beside the run
that it is to replace: values are absolute and guarded, so that both may write at once and nothing has to stop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from coeval.errors import EngineError
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import EventSource
from coeval.spec.types import iso
from coeval_pipelines.control import ALIVE, STOPPED, ControlPlane, Run
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.names import run_views, stream_sources, stream_views
from coeval_pipelines.streaming.options import StaleStateError, start_of
from coeval_pipelines.streaming.rewind import rewind
from coeval_pipelines.streaming.submit import job_of

KEEP, START, RESUME, BESIDE, RESCALE, REPLACE = "keep", "start", "resume", "beside", "rescale", "replace"
Version: TypeAlias = tuple[str, str]
"""A view's name and version."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to happen to the stream of one source, how, and why; `run` is what will run then.

    `action` is keep, start, resume (of a stopped run, from its savepoint), beside (a new run for new view versions),
    rescale (from a savepoint), or replace (a new run that ends others once it has passed them). `records` counts what
    a run without state reads again.
    """

    source: str
    action: str
    why: str
    run: Run
    records: int = 0

    @property
    def how(self) -> str:
        """What is done, in words."""
        views = ", ".join(self.run.views)
        match self.action:
            case "keep":
                return f"run {self.run.number} goes on: {views}"
            case "resume":
                return f"run {self.run.number} goes on from its savepoint"
            case "rescale":
                return (
                    f"stop run {self.run.number} with a savepoint, go on at parallelism {self.run.parallelism} from it"
                )
        since = iso(min(self.run.since.values()))
        text = f"begin without state: tiles from {since} on, {self.records:,} records to read ({views})"
        match self.action:
            case "beside":
                return f"{text}; what runs goes on"
            case "replace":
                ended = ", ".join(str(number) for number in self.run.replaces)
                return f"{text}; then end run {ended}"
        return text


def plan(settings: Settings, manifest: Manifest, control: ControlPlane, owned: Mapping[str, int]) -> tuple[Change, ...]:
    """What it takes to have every streamed view of a manifest filled, and those of the released one. Changes nothing.

    `owned` is, by view, from when on the stream owns its tiles.

    Raises:
        BrokerError: the broker does not answer.
    """
    released = control.released()
    found: list[Change] = []
    with Broker(settings.kafka) as broker:
        for source in stream_sources(manifest):
            standing = [_standing(settings, control, manifest, source, run) for run in control.runs(source.name, ALIVE)]
            needed = versions(released, source.name) if released else frozenset()
            steps = decide(standing, versions(manifest, source.name), needed)
            found += [_change(settings, broker, manifest, control, source.name, owned, step) for step in steps]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands to a manifest that is to be deployed."""

    run: Run
    fills: frozenset[Version]
    alike: bool
    """Whether it judges records as the manifest says."""
    lost: str = ""
    """Why it was stopped and cannot go on; empty where it runs or can."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is decided of one source: of a run that is there, or, where `run` is None, of one to begin for `views`."""

    action: str
    why: str
    run: Run | None = None
    views: tuple[str, ...] = ()
    replaces: tuple[int, ...] = ()


def decide(standing: Sequence[Standing], wanted: frozenset[Version], released: frozenset[Version]) -> list[Step]:
    """What becomes of each run, and what has to begin. Pure.

    A run is replaced only by one that fills all that it fills and that is wanted or released; each of the others goes
    on as it is, resumed where it was stopped.
    """
    needed = [item for item in standing if item.fills & (wanted | released)]
    fresh = wanted - frozenset[Version]().union(*(item.fills for item in needed if item.alike))
    replaced = [item for item in needed if not item.alike and item.fills & (wanted | released) <= fresh]
    steps = [_going_on(item) for item in needed if item not in replaced]
    if not fresh:
        return steps
    names = tuple(sorted(name for name, _ in fresh))
    if not needed:
        return [*steps, Step(START, "nothing fills these views yet", views=names)]
    if replaced:
        numbers = tuple(item.run.number for item in replaced)
        why = "its source is declared anew: records are judged otherwise"
        return [*steps, Step(REPLACE, why, None, names, numbers)]
    text = ", ".join(f"{name} {version}" for name, version in sorted(fresh))
    return [*steps, Step(BESIDE, f"new version, which no state fits: {text}", views=names)]


def _going_on(item: Standing) -> Step:
    if item.run.status != STOPPED:
        return Step(KEEP, "what it fills, it fills as it is to", item.run)
    if item.lost:
        return Step(REPLACE, item.lost, item.run)
    return Step(RESUME, "its savepoint is whole and recent", item.run)


def _change(
    settings: Settings,
    broker: Broker,
    manifest: Manifest,
    control: ControlPlane,
    source: str,
    owned: Mapping[str, int],
    step: Step,
) -> Change:
    if step.run is None:
        draft = Run(0, source, manifest.hash, step.views, {}, {}, settings.flink.parallelism)
        draft = replace(draft, replaces=step.replaces, reason=step.why)
        return rewound(broker, control, manifest, draft, owned, step.action)
    if step.action == REPLACE:
        return again(broker, control, step.run, step.why)
    return Change(source, step.action, step.why, step.run)


def again(broker: Broker, control: ControlPlane, run: Run, why: str, limit: int | None = None) -> Change:
    """A run begun anew without state, as itself: it fills what it filled, and ends its former self once past it."""
    manifest = manifest_of(control, run)
    draft = replace(run, restore="", replaces=(run.number,), reason=why)
    return rewound(broker, control, manifest, draft, ownership(manifest, control), REPLACE, limit)


def _standing(settings: Settings, control: ControlPlane, manifest: Manifest, source: EventSource, run: Run) -> Standing:
    own = manifest_of(control, run).sources[source.name]
    assert isinstance(own, EventSource)
    lost = _cannot_resume(settings, control, run) if run.status == STOPPED else ""
    return Standing(run, frozenset(filled_by(control, run)), judging(own) == judging(source), lost)


def judging(source: EventSource) -> tuple[object, ...]:
    """All of a source that decides what becomes of a record."""
    fields = tuple((item.name, item.type, item.nullable, item.origin) for item in source.fields)
    return (fields, source.event_id, source.event_ts, source.max_future_skew, source.dedup)


def _cannot_resume(settings: Settings, control: ControlPlane, run: Run) -> str:
    try:
        start = start_of(settings, run, job_of(settings, manifest_of(control, run), run), time.time())
    except StaleStateError:
        return "it stood still for longer than its state is kept whole"
    return "" if start else "it left no savepoint"


def rewound(
    broker: Broker,
    control: ControlPlane,
    manifest: Manifest,
    draft: Run,
    owned: Mapping[str, int],
    action: str,
    limit: int | None = None,
) -> Change:
    """A draft of a run with the latest start that loses nothing (see `streaming.rewind`)."""
    views = run_views(manifest, draft)
    found = rewind(broker, control.certificates(draft.source, limit=1000), manifest, views, owned, limit)
    topic = manifest.sources[draft.source].topic  # type: ignore[union-attr]
    ends = broker.ends({topic: max(found.start, default=-1) + 1}).get(topic, {})
    records = sum(end - found.start.get(partition, 0) for partition, end in ends.items())
    run = replace(draft, since=found.since, start=found.start)
    return Change(draft.source, action, draft.reason, run, records)


def manifest_of(control: ControlPlane, run: Run) -> Manifest:
    """The manifest that a run was begun with.

    Raises:
        EngineError: the control plane has lost it.
    """
    manifest = control.manifest(run.manifest_hash)
    if manifest is None:
        raise EngineError(f"The manifest of run {run.number} is not in the control plane.", "Deploy it again.")
    return manifest


def versions(manifest: Manifest, source: str) -> frozenset[Version]:
    """The view versions that the stream fills from a source."""
    return frozenset((view.name, view.version) for view in stream_views(manifest, source))


def filled_by(control: ControlPlane, run: Run) -> tuple[Version, ...]:
    """The view versions that a run fills."""
    return tuple((view.name, view.version) for view in run_views(manifest_of(control, run), run))


def filled(control: ControlPlane) -> frozenset[Version]:
    """The view versions that runs fill which are meant to run."""
    return frozenset(item for run in control.runs() for item in filled_by(control, run))


def ownership(manifest: Manifest, control: ControlPlane) -> Mapping[str, int]:
    """By streamed view that is deployed, the instant from which on the stream owns its tiles."""
    found = {view.name: control.deployment(view.name, view.version) for view in manifest.views.values()}
    return {name: item.since for name, item in found.items() if item and is_streamed(manifest.views[name])}
