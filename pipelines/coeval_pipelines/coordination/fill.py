"""Fill the online store and say when it can be believed: batch load, changelog, then the ready marker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

from coeval.client import open_redis
from coeval.errors import EngineError, UnknownFeatureError
from coeval.online.writer import Incarnation, OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval.spec.types import instant
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.floors import Served, bring_up, served
from coeval_pipelines.coordination.forgotten import check_changelogs
from coeval_pipelines.coordination.handoff import DELIVERY_SLACK, is_streamed, required_cut
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.coordination.runs import now

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CATCH_UP_SECONDS = 600

Loader = Callable[[Mapping[str, int]], None]
"""Loads views by batch: given cuts by view name, returns when everything is written."""
Loaded: TypeAlias = dict[str, tuple[Incarnation, int]]
"""By view, the life of the store into which a batch load was written whole, and the load's run."""


def fill(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    views: Iterable[View],
    load: Loader,
    cut: int | None = None,
) -> None:
    """Load views by batch, wait until the changelog is written too, then mark them ready.

    Without a `cut` (microseconds UTC), the log is cut where it was last time, or else as early as the handoff allows;
    never earlier, so that no tile is left between batch and stream.

    Raises:
        EngineError: the handoff's cut is still to come, the store was wiped meanwhile, or the stream did not catch up.
    """
    with only_one(settings, "fill"):
        _fill(settings, manifest, control, list(views), load, cut)


def heal(settings: Settings, manifest: Manifest, control: ControlPlane, loaded: Loaded | None = None) -> list[str]:
    """Fill again what had been filled once and is not ready now, as after a wipe; returns the names of the views.

    What is noted in `loaded` is not loaded again, only waited for; what is loaded is noted there.
    Erasures that a version of a view in the store does not know of are applied there first.
    """
    bring_up(settings, control, manifest.tenant, lambda: served(settings, control, manifest), wait=False)
    if not _lost(settings, manifest, control):
        return []
    with only_one(settings, "fill", wait=False) as mine:
        lost = _lost(settings, manifest, control) if mine else []
        if lost:
            _fill(settings, manifest, control, lost, load_in_child(settings, manifest), loaded=loaded)
        return [view.name for view in lost]


def backfill(
    settings: Settings, manifest: Manifest, control: ControlPlane, names: Sequence[str], correct: bool = False
) -> dict[str, int]:
    """Bring the log up to date and fill the named views from it; returns what batch wrote, by view.

    With `correct`, the log is cut two minutes ago, so that late events enter the tiles that are final.
    """
    from coeval_pipelines.offline.event_log import ingest_topic
    from coeval_pipelines.offline.session import spark_session

    unknown = sorted(set(names) - manifest.views.keys())
    if unknown:
        raise UnknownFeatureError(f"No view {', '.join(unknown)}.", f"Known: {', '.join(manifest.views)}.")
    written: dict[str, int] = {}
    with spark_session(settings) as spark:
        # Taken before the topics are read: what comes in between is after the cut, not lost before it.
        cut = now() - DELIVERY_SLACK if correct else None
        for source in manifest.event_sources:
            ingest_topic(spark, settings, manifest, source)
        load = load_in_session(spark, settings, manifest, control, written)
        fill(settings, manifest, control, [manifest.views[name] for name in names], load, cut)
    return written


def load_in_session(
    spark: SparkSession,
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    written: dict[str, int],
    say: Callable[[str], None] = lambda _: None,
) -> Loader:
    """A loader that uses a Spark session that is there; it notes what it wrote, by view."""
    from coeval_pipelines.offline.online_load import load_view

    def load(cuts: Mapping[str, int]) -> None:
        for name, cut in cuts.items():
            say(f"batch load of {name}")
            done = load_view(spark, settings, manifest, control, manifest.views[name], cut)
            written[name] = done.written

    return load


def _fill(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    chosen: Sequence[View],
    load: Loader,
    cut: int | None = None,
    loaded: Loaded | None = None,
) -> None:
    """Fill views source by source: where one does not go on, those of the others are ready none the less."""
    failed: list[EngineError] = []
    for source in sorted({view.source for view in chosen}):
        views = [view for view in chosen if view.source == source]
        try:
            _fill_source(settings, manifest, control, source, views, load, cut, {} if loaded is None else loaded)
        except EngineError as error:
            failed.append(error)
    if failed:
        raise EngineError(" ".join(error.reason for error in failed), failed[0].instruction)


def _fill_source(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    source: str,
    views: Sequence[View],
    load: Loader,
    cut: int | None,
    loaded: Loaded,
) -> None:
    from coeval_pipelines.streaming.progress import await_caught_up

    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        lives = {view.name: writer.incarnation(view) for view in views}
        bring_up(settings, control, manifest.tenant, lambda: [Served(manifest, view) for view in views])
        notes = {view.name: (lives[view.name], _last_run(control, view)) for view in views}
        missing = [view for view in views if loaded.get(view.name) != notes[view.name]]
        if missing:
            cuts = {view.name: _cut(view, manifest, control, cut) for view in missing}
            check_changelogs(settings, manifest, missing, cuts)
            load(cuts)
            loaded.update({view.name: (lives[view.name], _last_run(control, view)) for view in missing})
        if any(is_streamed(view) for view in views):
            # All that was produced by now must be online: a first checkpoint of a long topic is not enough.
            await_caught_up(settings, manifest, control, CATCH_UP_SECONDS, sources=[source])
        for view in views:
            run = _last_run(control, view)
            if not run or not writer.mark_ready(view, lives[view.name], str(run)):
                raise EngineError("The online store was wiped while it was being filled.", "Run it again.")


def _last_run(control: ControlPlane, view: View) -> int:
    last = control.last_load(view.name, view.version)
    return last.run if last else 0


def unready(settings: Settings, manifest: Manifest) -> list[View]:
    """The views that readers may not believe now."""
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        return [view for view in manifest.views.values() if not writer.is_ready(view)]


def _lost(settings: Settings, manifest: Manifest, control: ControlPlane) -> list[View]:
    """The views whose last load is not what their ready marker names: wiped, rolled back, or not marked yet."""
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        loads = {view: control.last_load(view.name, view.version) for view in manifest.views.values()}
        return [view for view, load in loads.items() if load and writer.ready_note(view) != str(load.run)]


def load_in_child(settings: Settings, manifest: Manifest) -> Loader:
    """A loader that runs Spark in a process of its own, so that a long-lived one stays small."""

    def load(cuts: Mapping[str, int]) -> None:
        for cut in sorted(set(cuts.values())):
            views = [part for name, value in sorted(cuts.items()) if value == cut for part in ("--view", name)]
            _run_load(settings, manifest, [*views, "--cut", str(cut)])

    return load


def _run_load(settings: Settings, manifest: Manifest, arguments: list[str]) -> None:
    directory = settings.home / "local"
    path = directory / f"manifest-{manifest.hash[:12]}.json"
    path.write_text(manifest.to_json())
    log = directory / "logs" / "load.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "coeval_pipelines.offline.load", "--manifest", str(path), *arguments]
    with log.open("ab") as sink:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=sink, check=False)
    if done.returncode:
        raise EngineError(f"The batch load failed (exit code {done.returncode}).", f"Read {log}.")
    json.loads(done.stdout)


def _cut(view: View, manifest: Manifest, control: ControlPlane, wanted: int | None) -> int:
    deployment = control.deployment(view.name, view.version)
    if deployment is None:
        raise EngineError(f"{view.name} is not deployed.", "Deploy it first: coeval stream deploy")
    last = control.last_load(view.name, view.version)
    cut = max(wanted or 0, last.cut if last else 0, required_cut(view, manifest, deployment.since))
    if cut > now():
        raise EngineError(
            f"{view.name} cannot be filled yet: the stream owns its tiles from {instant(deployment.since)} on, and the"
            f" last tile before those is final at {instant(cut)}.",
            f"Run it again after {instant(cut)}.",
        )
    return cut
