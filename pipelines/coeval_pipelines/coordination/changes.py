"""What a deployment changes about the stream's runs: planned as values that can be printed, then carried out.

A job whose graph stays takes its state along in a savepoint. Any other begins without state and rewinds, beside the run
that it is to replace: values are absolute and guarded, so that both may write at once and nothing has to stop.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval.spec.types import instant
from coeval_pipelines.control import RUNNING, STOPPED, ControlPlane, Run
from coeval_pipelines.coordination.handoff import is_streamed
from coeval_pipelines.streaming.broker import Broker
from coeval_pipelines.streaming.names import run_views, stream_sources, stream_views
from coeval_pipelines.streaming.options import StaleStateError, start_of
from coeval_pipelines.streaming.rewind import rewind
from coeval_pipelines.streaming.submit import job_of

KEEP, START, RESUME, BESIDE, RESCALE, REPLACE = "keep", "start", "resume", "beside", "rescale", "replace"


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
        since = instant(min(self.run.since.values())).isoformat()
        text = f"begin without state: tiles from {since} on, {self.records:,} records to read ({views})"
        match self.action:
            case "beside":
                return f"{text}; what runs goes on"
            case "replace":
                ended = ", ".join(str(number) for number in self.run.replaces)
                return f"{text}; then end run {ended}"
        return text


def plan(settings: Settings, manifest: Manifest, control: ControlPlane, owned: Mapping[str, int]) -> tuple[Change, ...]:
    """What it takes to have every streamed view of a manifest filled. Changes nothing.

    `owned` is, by view, from when on the stream owns its tiles.

    Raises:
        BrokerError: the broker does not answer.
    """
    found = []
    with Broker(settings.kafka) as broker:
        for source in stream_sources(manifest):
            runs = control.runs(source.name, (RUNNING, STOPPED))
            found.append(_plan_source(settings, broker, manifest, control, source.name, owned, runs))
    return tuple(found)


def _plan_source(
    settings: Settings,
    broker: Broker,
    manifest: Manifest,
    control: ControlPlane,
    source: str,
    owned: Mapping[str, int],
    runs: Sequence[Run],
) -> Change:
    wanted = stream_views(manifest, source)
    filled = {view: run for run in runs for view in filled_by(control, run)}
    missing = [view for view in wanted if (view.name, view.version) not in filled]

    def begin(action: str, why: str, views: Sequence[View], replaces: Sequence[Run] = ()) -> Change:
        draft = Run(0, source, manifest.hash, tuple(view.name for view in views), {}, {}, settings.flink.parallelism)
        numbers = tuple(run.number for run in replaces)
        return rewound(broker, control, manifest, replace(draft, replaces=numbers, reason=why), owned, action)

    if not runs:
        return begin(START, "nothing fills these views yet", wanted)
    if missing:
        names = ", ".join(f"{view.name} {view.version}" for view in missing)
        return begin(BESIDE, f"new version, which no state fits: {names}", missing)
    stopped = [run for run in runs if run.status == STOPPED]
    if not stopped:
        newest = runs[-1]
        return Change(source, KEEP, "every view is filled as it is to be", newest)
    if len(runs) > 1:
        return begin(REPLACE, "several runs are stopped: one takes over from all of them", wanted, runs)
    why = _cannot_resume(settings, control, stopped[0])
    if why:
        return begin(REPLACE, why, wanted, stopped)
    return Change(source, RESUME, "its savepoint is whole and recent", stopped[0])


def _cannot_resume(settings: Settings, control: ControlPlane, run: Run) -> str:
    manifest = control.manifest(run.manifest_hash)
    assert manifest is not None
    try:
        start = start_of(settings, run, job_of(settings, manifest, run), time.time())
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


def filled_by(control: ControlPlane, run: Run) -> tuple[tuple[str, str], ...]:
    """The view versions that a run fills."""
    manifest = control.manifest(run.manifest_hash)
    return tuple((view.name, view.version) for view in run_views(manifest, run)) if manifest else ()


def ownership(manifest: Manifest, control: ControlPlane) -> Mapping[str, int]:
    """By streamed view that is deployed, the instant from which on the stream owns its tiles."""
    found = {view.name: control.deployment(view.name, view.version) for view in manifest.views.values()}
    return {name: item.since for name, item in found.items() if item and is_streamed(manifest.views[name])}
