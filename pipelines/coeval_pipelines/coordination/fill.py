"""Fill the online store and say when it can be believed: batch load, changelog, then the ready marker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import tenacity

from coeval.client import open_redis
from coeval.errors import EngineError, UnknownFeatureError
from coeval.online.writer import OnlineWriter
from coeval.settings import Settings
from coeval.spec.manifest import Manifest
from coeval.spec.model import View
from coeval_pipelines.control import ControlPlane
from coeval_pipelines.coordination.deploy import now, only_one
from coeval_pipelines.coordination.handoff import covers, is_streamed, required_cut

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Loader = Callable[[Mapping[str, int]], None]
"""Loads views by batch: given cuts by view name, returns when everything is written."""


def fill(
    settings: Settings,
    manifest: Manifest,
    control: ControlPlane,
    views: Iterable[View],
    load: Loader,
    cut: int | None = None,
) -> None:
    """Load views by batch, wait until the changelog is written too, then mark them ready.

    Without a `cut` (microseconds UTC), the log is cut where it was last time, or else as early as the handoff allows.

    Raises:
        EngineError: the store was wiped meanwhile, or the changelog was not written in time.
    """
    with only_one(settings):
        _fill(settings, manifest, control, list(views), load, cut)


def heal(settings: Settings, manifest: Manifest, control: ControlPlane) -> list[str]:
    """Fill again what had been filled once and is not ready now, as after a wipe; returns the names of the views."""
    if not _lost(settings, manifest, control):
        return []
    with only_one(settings):
        lost = _lost(settings, manifest, control)
        if lost:
            _fill(settings, manifest, control, lost, load_in_child(settings, manifest))
        return [view.name for view in lost]


def backfill(
    settings: Settings, manifest: Manifest, control: ControlPlane, names: Sequence[str], correct: bool = False
) -> dict[str, int]:
    """Bring the log up to date and fill the named views from it; returns what batch wrote, by view.

    With `correct`, the log is cut now, so that late events enter the tiles that are final.
    """
    from coeval_pipelines.offline.event_log import ingest_topic
    from coeval_pipelines.offline.session import spark_session

    unknown = sorted(set(names) - manifest.views.keys())
    if unknown:
        raise UnknownFeatureError(f"No view {', '.join(unknown)}.", f"Known: {', '.join(manifest.views)}.")
    written: dict[str, int] = {}
    with spark_session(settings) as spark:
        cut = now() if correct else None
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
    chosen: list[View],
    load: Loader,
    cut: int | None = None,
) -> None:
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        incarnation = writer.incarnation()
        load({view.name: cut or _cut(view, manifest, control) for view in chosen})
        for view in chosen:
            if is_streamed(view):
                _await_changelog(control, manifest, writer, view)
            if not writer.mark_ready(view, incarnation, manifest.hash):
                raise EngineError("The online store was wiped while it was being filled.", "Run it again.")


def unready(settings: Settings, manifest: Manifest) -> list[View]:
    """The views that readers may not believe now."""
    with closing(open_redis(settings)) as client:
        writer = OnlineWriter(client, manifest.tenant)
        return [view for view in manifest.views.values() if not writer.is_ready(view)]


def _lost(settings: Settings, manifest: Manifest, control: ControlPlane) -> list[View]:
    """The views that had been filled once, and that readers may not believe now."""
    return [view for view in unready(settings, manifest) if control.last_load(view.name, view.version)]


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


def _cut(view: View, manifest: Manifest, control: ControlPlane) -> int:
    last = control.last_load(view.name, view.version)
    if last is not None:
        return last.cut
    deployment = control.deployment(view.name, view.version)
    if deployment is None:
        raise EngineError(f"{view.name} is not deployed.", "Deploy it first: coeval stream deploy")
    return required_cut(view, manifest, deployment.since)


def _await_changelog(
    control: ControlPlane, manifest: Manifest, writer: OnlineWriter, view: View, seconds: float = 300
) -> None:
    from coeval_pipelines.streaming.names import changelog_topic

    topic = changelog_topic(manifest, view)

    def covered() -> bool:
        found = control.certificates(view.source, limit=1)
        return bool(found) and covers(found[0], topic, writer.offsets(view))

    wait = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        wait=tenacity.wait_fixed(0.2),
        stop=tenacity.stop_after_delay(seconds),
    )
    try:
        wait(covered)
    except tenacity.RetryError as error:
        raise EngineError(
            f"The changelog of {view.name} was not written within {seconds:.0f} s.",
            "See coeval status; the writer's log is var/local/logs/writer.log.",
        ) from error
