"""Fill the online store and say when it can be believed: batch load, changelog, then the ready marker.

A load that was interrupted is gone on with: under its number, at its cut, with the units that are left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

import redis

from coeval.client import open_redis
from coeval.errors import CoevalError, EngineError, UsageError
from coeval.online.writer import Incarnation, OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.control.loads import (
    CANCELLED,
    CATCHING_UP,
    CORRECTION,
    FAILED,
    FIRST_FILL,
    LOADING,
    OPEN,
    READY,
    REBUILD,
    LoadBook,
    LoadRun,
)
from coeval_pipelines.coordination.beats import beating
from coeval_pipelines.coordination.floors import Served, bring_up, served
from coeval_pipelines.coordination.forgotten import check_changelogs
from coeval_pipelines.coordination.handoff import cut_of, is_streamed
from coeval_pipelines.coordination.locks import only_one
from coeval_pipelines.coordination.runs import now
from coeval_pipelines.coordination.stagers import CancelledError, Stager, check, stage_in_child
from coeval_pipelines.offline.latency import probing
from coeval_pipelines.offline.online_load import write_units
from coeval_pipelines.offline.staging import discard, is_staged, staged_runs
from coeval_pipelines.offline.throttle import Limits, Throttle

CATCH_UP_SECONDS = 600
LATENCY_BUDGET_MS = 5.0
"""What reads may take beside a load, where readers are served and nothing else was asked for."""

Watch = Callable[[LoadRun, int, int], None]
"""Told of a load how many of its rows are written, and of how many."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How views are to be filled. Without a `cut` (microseconds UTC), the log is cut where it was last time, or else as
    early as the handoff allows; never earlier, so that no tile is left between batch and stream.

    Without `limits`, a load is held back where readers are served by the same store. `wait`: for another process that
    loads one of the views, rather than be refused. `why` is written down.
    """

    cut: int | None = None
    limits: Limits | None = None
    wait: bool = True
    why: str = "asked for"
    watch: Watch = lambda *_: None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A view's load and the life of the store that it goes into."""

    view: View
    run: LoadRun
    incarnation: Incarnation

    @property
    def life(self) -> str:
        """Tells the life of the store: what was written to another one counts for nothing."""
        return hashlib.sha256(json.dumps(sorted(self.incarnation.items())).encode()).hexdigest()[:16]


def load_lock(view: View | LoadRun) -> str:
    """The name of the lock that is held by who loads a view version."""
    name = view.view if isinstance(view, LoadRun) else view.name
    return f"load-{name}-{view.version}"


def fill(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    views: Iterable[View],
    stage: Stager,
    asked: Asked = Asked(),
) -> dict[str, int]:
    """Load views by batch, wait until the changelog is written too, then mark them ready; what batch wrote, by view.

    Raises:
        UsageError: another process loads one of the views.
        EngineError: the handoff's cut is still to come, the store was wiped meanwhile, the stream did not catch up, or
            somebody cancelled a load. Views that are not concerned are ready none the less.
    """
    chosen = list(views)
    with _mine(settings, control, chosen, asked.wait):
        return _fill(settings, manifest, control, chosen, stage, asked)


def heal(settings: Settings, manifest: Manifest, control: ControlPlane) -> list[str]:
    """Fill again what had been filled once and is not ready now, as after a wipe; returns the names of the views.

    Erasures that a version of a view in the store does not know of are applied there first.
    """
    bring_up(settings, control, manifest.tenant, lambda: served(settings, control, manifest), wait=False)
    if not _lost(settings, manifest, control):
        return []
    with ExitStack() as stack:
        free = [
            view
            for view in _lost(settings, manifest, control)
            if stack.enter_context(only_one(settings, load_lock(view), wait=False))
        ]
        lost = [view for view in _lost(settings, manifest, control) if view in free]
        if lost:
            stage = stage_in_child(settings, manifest, control)
            _fill(settings, manifest, control, lost, stage, Asked(why="the store has lost what was loaded"))
        return [view.name for view in lost]


@contextmanager
def _mine(settings: Settings, control: ControlPlane, views: Sequence[View], wait: bool) -> Iterator[None]:
    """Hold the locks of views: nobody else loads them."""
    with ExitStack() as stack:
        # In one order: two that wait for each other's would never end.
        for view in sorted(views, key=lambda item: item.name):
            if not stack.enter_context(only_one(settings, load_lock(view), wait)):
                raise _refused(control, view)
        yield


def _refused(control: ControlPlane, view: View) -> UsageError:
    book = LoadBook(control)
    found = book.of(view.name, view.version, OPEN)
    by = f"load {found[0].run}, {book.changes(found[0].run)[-1].who}" if found else "another process"
    return UsageError(
        f"{view.name} is being loaded already ({by}).",
        "See coeval backfill status; wait for it (--wait), or end it: coeval backfill cancel "
        + (str(found[0].run) if found else "RUN"),
    )


def _fill(
    settings: Settings, manifest: Manifest, control: ControlPlane, chosen: Sequence[View], stage: Stager, asked: Asked
) -> dict[str, int]:
    """Fill views source by source: where one does not go on, those of the others are ready none the less."""
    _sweep(settings, control)
    # Asked before anything is ready by this: nobody was served until then.
    asked = replace(asked, limits=asked.limits or default_limits(settings, control, manifest))
    failed: list[EngineError] = []
    written: dict[str, int] = {}
    by_source: list[list[Prepared]] = []
    for source in sorted({view.source for view in chosen}):
        views = [view for view in chosen if view.source == source]
        with _collecting(failed):
            by_source.append(_prepare(settings, manifest, control, views, asked))
    runs = [item.run for prepared in by_source for item in prepared]
    with beating(LoadBook(control), [run.run for run in runs]):
        if runs:
            with _noting_failure(control, runs):
                stage([run for run in runs if not is_staged(settings, manifest, run)])
        for prepared in by_source:
            with _collecting(failed), _noting_failure(control, [item.run for item in prepared]):
                written |= _fill_source(settings, manifest, control, prepared, asked)
    if failed:
        raise EngineError(" ".join(error.reason for error in failed), failed[0].instruction)
    return written


def _sweep(settings: Settings, control: ControlPlane) -> None:
    """Delete what loads that are over have left behind, as where their process was killed after they were cancelled."""
    kept = set(staged_runs(settings))
    # A control plane that was begun anew hands out numbers again: what is not known to be open is not of those.
    for number in kept - LoadBook(control).open_runs():
        discard(settings, number)


@contextmanager
def _collecting(failed: list[EngineError]) -> Iterator[None]:
    try:
        yield
    except EngineError as error:
        failed.append(error)


@contextmanager
def _noting_failure(control: ControlPlane, runs: Sequence[LoadRun]) -> Iterator[None]:
    try:
        yield
    except (CoevalError, redis.RedisError) as error:
        for run in runs:
            LoadBook(control).move(run.run, FAILED, getattr(error, "reason", str(error)), now())
        raise


def _prepare(
    settings: Settings, manifest: Manifest, control: ControlPlane, views: Sequence[View], asked: Asked
) -> list[Prepared]:
    """The loads of views of one source: those that are gone on with, and new ones."""
    cuts = {view.name: cut_of(view, manifest, control, asked.cut, now()) for view in views}
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        lives = {view.name: writer.incarnation(view) for view in views}
        bring_up(settings, control, manifest.tenant, lambda: [Served(manifest, view) for view in views])
        check_changelogs(settings, manifest, views, cuts)
        control.save_manifest(manifest, now())
        runs = {view.name: _run_of(control, writer, manifest, view, cuts[view.name], asked) for view in views}
    return [Prepared(view, runs[view.name], lives[view.name]) for view in views]


def _run_of(
    control: ControlPlane, writer: OnlineWriter, manifest: Manifest, view: View, cut: int, asked: Asked
) -> LoadRun:
    """The load that is gone on with, if one is open whose cut is late enough; else a new one, which ends those."""
    book = LoadBook(control)
    found = book.of(view.name, view.version, OPEN)
    if found and found[0].cut >= cut:
        return found[0]
    kind = kind_of(control, writer, view)
    run = book.begin(view.name, view.version, manifest.hash, cut, kind, asked.why, now())
    for older in found:
        book.move(older.run, CANCELLED, f"load {run.run} takes its place", now())
    return run


def kind_of(control: ControlPlane, writer: OnlineWriter, view: View) -> str:
    """What a new load of a view would be."""
    last = control.last_load(view.name, view.version)
    if last is None:
        return FIRST_FILL
    return CORRECTION if writer.ready_note(view) == str(last.run) else REBUILD


def _fill_source(
    settings: Settings, manifest: Manifest, control: ControlPlane, prepared: Sequence[Prepared], asked: Asked
) -> dict[str, int]:
    from coeval_pipelines.streaming.progress import await_caught_up

    cancelled: list[CancelledError] = []
    written: dict[str, int] = {}
    for item in prepared:
        try:
            written[item.view.name] = _load(settings, manifest, control, item, asked)
        except CancelledError as error:
            cancelled.append(error)
            _stop(settings, control, item.run)
    left = [item for item in prepared if item.view.name in written]
    if any(is_streamed(item.view) for item in left):
        # All that was produced by now must be online: a first checkpoint of a long topic is not enough.
        await_caught_up(settings, manifest, control, CATCH_UP_SECONDS, sources=[left[0].view.source])
    for item in left:
        _mark_ready(settings, manifest, control, item)
    if cancelled:
        raise cancelled[0]
    return written


def _stop(settings: Settings, control: ControlPlane, run: LoadRun) -> None:
    """Let go of a load that was cancelled. What it wrote stays: each tile and row is right by itself, as of its cut."""
    LoadBook(control).stopped(run.run, "stopped writing", now())
    discard(settings, run.run)


def _load(settings: Settings, manifest: Manifest, control: ControlPlane, item: Prepared, asked: Asked) -> int:
    """Write what is left of a load."""
    book, run = LoadBook(control), item.run
    check(book, run)
    limits = asked.limits or Limits()
    book.move(run.run, LOADING, f"writing, {described(limits)}", now())

    def beat(rows: int, _: float) -> None:
        found = book.get(run.run)
        asked.watch(found, rows, found.rows or rows)
        check(book, run)

    with _throttled(settings, manifest, item.view, limits) as throttle:
        written = write_units(settings, manifest, book, run, item.life, throttle, beat)
    if not book.move(run.run, CATCHING_UP, "all that batch has is written", now()):
        raise CancelledError(book, run)
    control.finish_load(run.run, written, now())
    return written


@contextmanager
def _throttled(settings: Settings, manifest: Manifest, view: View, limits: Limits) -> Iterator[Throttle]:
    if not limits.latency_ms:
        yield Throttle(limits)
        return
    with probing(settings, manifest.tenant, view) as reads:
        yield Throttle(limits, reads)


def described(limits: Limits) -> str:
    """Limits in words."""
    said = [f"at most {limits.writes_per_second:,.0f} a second"] if limits.writes_per_second else []
    said += [f"reads within {limits.latency_ms:g} ms"] if limits.latency_ms else []
    return ", ".join(said) or "as fast as it goes"


def default_limits(settings: Settings, control: ControlPlane, manifest: Manifest) -> Limits:
    """A latency budget where a view that may be served is ready in this store; else none."""
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        ready = any(writer.is_ready(item.view) for item in served(settings, control, manifest))
    return Limits(latency_ms=LATENCY_BUDGET_MS if ready else 0.0)


def _mark_ready(settings: Settings, manifest: Manifest, control: ControlPlane, item: Prepared) -> None:
    run = item.run.run
    with closing(open_redis(settings)) as client:
        if not OnlineWriter(client, manifest.tenant).mark_ready(item.view, item.incarnation, str(run)):
            raise EngineError("The online store was wiped while it was being filled.", "Run it again.")
    book = LoadBook(control)
    book.move(run, READY, "batch and changelog are written", now())
    book.forget_units(run)
    discard(settings, run)


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
