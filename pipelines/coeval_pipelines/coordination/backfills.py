"""What an operator does with batch loads: run them, look at them, go on with them, cancel them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from coeval.client import open_redis, read_manifest
from coeval.errors import EngineError, ManifestError, UsageError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import BatchSource, EventSource, View, WindowedView
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import (
    CANCELLED,
    CATCHING_UP,
    FAILED,
    OPEN,
    Change,
    LoadBook,
    LoadRun,
)
from coeval_pipelines.coordination.fill import Asked, fill, load_lock
from coeval_pipelines.coordination.forgotten import check_changelogs
from coeval_pipelines.coordination.handoff import DELIVERY_SLACK, is_streamed
from coeval_pipelines.coordination.locks import is_held
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.coordination.stagers import Stager, stage_in_session
from coeval_pipelines.offline.due import awaits_batch, files_changed, has_late
from coeval_pipelines.offline.session import spark_session
from coeval_pipelines.offline.staging import discard, is_staged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

INTERRUPTED = "interrupted"
"""Not a state that anybody sets: a load that is under way, and nobody works on it."""
SHOWN = 20
_STOP_SECONDS, _POLL_SECONDS = 15.0, 0.1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """A load as it is now: who changed it last, why and when, and how many of its units are written."""

    run: LoadRun
    state: str
    units_done: int
    last: Change
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values; instants are microseconds UTC."""
        document = asdict(self.run) | {"state": self.state, "units_done": self.units_done}
        return document | {"seconds_left": self.seconds_left, "changes": [asdict(item) for item in self.changes]}

    @property
    def seconds_left(self) -> float | None:
        """How long it will go on writing; None: it does not write, or that is not known."""
        return None if self.state == INTERRUPTED else self.run.seconds_left


def run(settings: Settings, names: Collection[str] = (), say: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Fill the named views (default: all) from the log, for who has no command line; returns what batch wrote, by view.

    Raises:
        UnknownFeatureError: there is no view of a name.
        EngineError: a view is not deployed, its handoff is still to come, or the stream did not catch up.
    """
    with closing(ControlPlane.open(settings)) as control:
        manifest = to_fill(control, read_manifest(settings.manifest_path), names)
        return backfill(settings, manifest, control, manifest.chosen_views(names), say=say)


def to_fill(control: ControlPlane, applied: Manifest, names: Collection[str]) -> Manifest:
    """The manifest whose views are filled: the applied one, unless it is not deployed and another one is released."""
    released = control.released()
    wanted = [view for view in applied.views.values() if not names or view.name in names]
    deployed = all(control.deployment(view.name, view.version) for view in wanted)
    if released is None or deployed or not set(names) <= released.views.keys():
        return applied
    return released


@dataclass(frozen=True, slots=True)
class Correction:
    """That the log is cut two minutes ago, so that late events enter the tiles that are final.

    Views that this would not change are left as they are, unless it is `forced`.
    """

    forced: bool = False


def backfill(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    views: Sequence[View],
    correction: Correction | None = None,
    asked: Asked = Asked(),  # noqa: B008 - a frozen value
    say: Say = lambda _: None,
) -> dict[str, int]:
    """Bring the log up to date and fill views from it; returns what batch wrote, by view.

    Loads that were interrupted are gone on with, unless a correction wants a later cut. Where nothing is to be
    computed, neither Spark nor the topics are needed.
    """
    # Taken before the topics are read: what comes in between is after the cut, not lost before it.
    cut = now() - DELIVERY_SLACK if correction else None
    with ExitStack() as stack:
        if any(correction or not _goes_on(settings, manifest, control, view) for view in _of_events(manifest, views)):
            _ingest(stack.enter_context(spark_session(settings)), settings, manifest, views, say)
        if correction and not correction.forced:
            views = [view for view in views if _is_due(settings, manifest, control, view, cut or 0, say)]
        stage = stage_here(settings, manifest, control, say)

        def stage_and_close(runs: Sequence[LoadRun]) -> None:
            stage(runs)
            # Spark is not needed any more, and its memory may be.
            stack.close()

        return fill(settings, manifest, control, views, stage_and_close, replace(asked, cut=cut))


def _of_events(manifest: Manifest, views: Sequence[View]) -> list[View]:
    return [view for view in views if isinstance(manifest.sources[view.source], EventSource)]


def _goes_on(settings: Settings, manifest: Manifest, control: ControlPlane, view: View) -> bool:
    """Whether a load of a view is open, and computed."""
    found = LoadBook(control).of(view.name, view.version, OPEN)
    return bool(found) and is_staged(settings, manifest, found[0])


def _ingest(spark: SparkSession, settings: Settings, manifest: Manifest, views: Sequence[View], say: Say) -> None:
    from coeval_pipelines.offline.event_log import ingest_topic

    used = {view.source for view in views}
    for source in manifest.event_sources:
        if source.name in used:
            say(f"log: topic {source.topic}")
            ingest_topic(spark, settings, manifest, source)


def _is_due(settings: Settings, manifest: Manifest, control: ControlPlane, view: View, cut: int, say: Say) -> bool:
    why = why_due(settings, manifest, control, view, cut)
    last = control.last_load(view.name, view.version)
    if not why and last:
        why_not = "no file changed and no row became visible" if not is_streamed(view) else "nothing came late"
        say(f"{view.name}: {why_not} since load {last.run}: left as it is (--force loads it)")
    elif why:
        say(f"{view.name}: {why}")
    return bool(why)


def why_due(settings: Settings, manifest: Manifest, control: ControlPlane, view: View, cut: int) -> str:
    """Why a correction at a cut (microseconds UTC) would change what a view serves; '' where it would not.

    Raises:
        StoreError: the online store does not answer.
        BrokerError: the broker does not, which is asked whether changelogs are whole.
    """
    last = control.last_load(view.name, view.version)
    pins = LoadBook(control).pins(last.run) if last else None
    if last is None or pins is None:
        return "it was not loaded yet"
    with closing(open_redis(settings)) as client:
        if OnlineWriter(client, manifest.tenant).ready_note(view) != str(last.run):
            return "it is not ready"
    if awaits_batch(settings, manifest, view, pins, last.cut):
        return "something was erased"
    source = manifest.sources[view.source]
    if isinstance(source, BatchSource):
        return files_changed(settings, source, pins, now())
    try:
        check_changelogs(settings, manifest, [view], {view.name: last.cut})
    except EngineError:
        return "its changelog has lost records"
    # The stream takes rows however late they come.
    if isinstance(view, WindowedView):
        with spark_session(settings) as spark:
            if has_late(spark, settings, manifest, view, pins, last.cut, cut):
                return "events came late"
    return ""


def stage_here(settings: Settings, manifest: Manifest, control: ControlPlane, say: Say) -> Stager:
    """A stager that has a Spark session while it is needed, if it is."""

    def stage_all(runs: Sequence[LoadRun]) -> None:
        if runs:
            with spark_session(settings) as spark:
                stage_in_session(spark, settings, manifest, control, say)(runs)

    return stage_all


def status(settings: Settings, control: ControlPlane, number: int | None = None) -> tuple[LoadStatus, ...]:
    """The loads that are not over and the newest of the others, newest first; or the one of that number.

    Raises:
        UsageError: there is no load of that number.
    """
    book = LoadBook(control)
    if number is not None:
        return (_status(settings, book, book.get(number)),)
    found = {run.run: run for run in (*book.newest(SHOWN), *book.newest(SHOWN, OPEN))}
    return tuple(_status(settings, book, found[run]) for run in sorted(found, reverse=True))


def _status(settings: Settings, book: LoadBook, run: LoadRun) -> LoadStatus:
    alive = run.is_open and run.state != FAILED and is_held(settings, load_lock(run))
    state = run.state if alive or not run.is_open or run.state == FAILED else INTERRUPTED
    changes = book.changes(run.run)
    done = len(book.units_done(run.run, run.life)) if run.is_open or run.state == CANCELLED else run.units or 0
    return LoadStatus(run, state, done, changes[-1], changes)


def resume(
    settings: Settings, control: ControlPlane, number: int | None, asked: Asked, say: Say = lambda _: None
) -> dict[str, int]:
    """Go on with the loads that were interrupted or failed, or with the one of that number.

    Raises:
        UsageError: there is none, it is over, or somebody works on it.
    """
    found = [item.run for item in status(settings, control, number) if item.run.is_open]
    if number is not None and not found:
        (over,) = status(settings, control, number)
        raise UsageError(f"The load {number} is over: {over.state}.", f"Load anew: coeval backfill run {over.run.view}")
    if number is None:
        found = [run for run in found if not is_held(settings, load_lock(run))]
    written: dict[str, int] = {}
    for content_hash in dict.fromkeys(run.manifest_hash for run in found):
        manifest = control.manifest(content_hash)
        if manifest is None:
            raise ManifestError(f"The control plane does not have the manifest {content_hash[:12]}.", "Load anew.")
        views = [manifest.views[run.view] for run in found if run.manifest_hash == content_hash]
        # A newer load of a view ends the older ones, so each view is there once.
        stage = stage_here(settings, manifest, control, say)
        written |= fill(settings, manifest, control, list(dict.fromkeys(views)), stage, asked)
    return written


def cancel(settings: Settings, control: ControlPlane, number: int) -> LoadStatus:
    """End a load, and wait until who works on it has stopped. What was written stays, and is right.

    Raises:
        UsageError: there is no such load, it is over, or has nothing left to write.
    """
    book = LoadBook(control)
    run = book.get(number)
    if run.state == CATCHING_UP:
        raise UsageError(
            f"The load {number} has written everything, and waits for the stream: there is nothing left to cancel.",
            "It is ready once the stream has caught up: coeval stream status",
        )
    if not book.move(number, CANCELLED, "asked for", now()):
        raise UsageError(f"The load {number} is over: {book.get(number).state}.", "See coeval backfill status")
    until = time.monotonic() + _STOP_SECONDS
    while is_held(settings, load_lock(run)) and book.changes(number)[-2].state != CANCELLED:
        if time.monotonic() > until:
            raise UsageError(
                f"The load {number} is cancelled; who works on it has not noticed yet.", "See coeval backfill status"
            )
        time.sleep(_POLL_SECONDS)
    if not is_held(settings, load_lock(run)):
        discard(settings, number)
    return _status(settings, book, book.get(number))
